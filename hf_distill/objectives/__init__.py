"""What is compared: the catalogue of objectives. `__all__` is the registry."""

from hf_distill.objectives.alignment import CKA
from hf_distill.objectives.attention import AttentionKL, AttentionMSE, AttentionScoresMSE
from hf_distill.objectives.class_divergence import (
    JensenShannon,
    KLDivergence,
    ReverseKL,
    SkewedKL,
    SoftCrossEntropy,
    SymmetricKL,
    TotalVariation,
)
from hf_distill.objectives.contrast import HiddenInfoNCE
from hf_distill.objectives.correlation import DIST
from hf_distill.objectives.decoupled import DecoupledKD
from hf_distill.objectives.distances import RKDAngle, RKDDistance
from hf_distill.objectives.gold import BinaryCrossEntropy, CrossEntropy, SquaredError
from hf_distill.objectives.gram import FSP, NST, TokenGramMSE
from hf_distill.objectives.hidden import PKD, HiddenCosine, HiddenKL, HiddenMSE
from hf_distill.objectives.logits import LogitMSE, SigmoidKL
from hf_distill.objectives.mutual_information import NWJ, TUBA, InfoNCE, JensenShannonMI, MIAlpha
from hf_distill.objectives.ranking import MarginMSE, RankingKL
from hf_distill.objectives.relation import MiniLM, MiniLMv2
from hf_distill.objectives.sentence import SimilarityKL, SimilarityMSE

__all__ = [
    "CKA",
    "DIST",
    "FSP",
    "NST",
    "NWJ",
    "PKD",
    "TUBA",
    "AttentionKL",
    "AttentionMSE",
    "AttentionScoresMSE",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "DecoupledKD",
    "HiddenCosine",
    "HiddenInfoNCE",
    "HiddenKL",
    "HiddenMSE",
    "InfoNCE",
    "JensenShannon",
    "JensenShannonMI",
    "KLDivergence",
    "LogitMSE",
    "MIAlpha",
    "MarginMSE",
    "MiniLM",
    "MiniLMv2",
    "RKDAngle",
    "RKDDistance",
    "RankingKL",
    "ReverseKL",
    "SigmoidKL",
    "SimilarityKL",
    "SimilarityMSE",
    "SkewedKL",
    "SoftCrossEntropy",
    "SquaredError",
    "SymmetricKL",
    "TokenGramMSE",
    "TotalVariation",
]
