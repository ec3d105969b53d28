"""What is compared: the catalogue of objectives. `__all__` is the registry."""

from hf_distill.objectives.attention import AttentionKL, AttentionMSE
from hf_distill.objectives.hidden import PKD, HiddenCosine, HiddenMSE
from hf_distill.objectives.mutual_information import NWJ, TUBA, InfoNCE, JensenShannonMI, MIAlpha
from hf_distill.objectives.prediction import (
    BinaryCrossEntropy,
    CrossEntropy,
    KLDivergence,
    LogitMSE,
    SigmoidKL,
    SoftCrossEntropy,
    SquaredError,
)
from hf_distill.objectives.relation import MiniLM, MiniLMv2
from hf_distill.objectives.sentence import SimilarityKL, SimilarityMSE

__all__ = [
    "NWJ",
    "PKD",
    "TUBA",
    "AttentionKL",
    "AttentionMSE",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "HiddenCosine",
    "HiddenMSE",
    "InfoNCE",
    "JensenShannonMI",
    "KLDivergence",
    "LogitMSE",
    "MIAlpha",
    "MiniLM",
    "MiniLMv2",
    "SigmoidKL",
    "SimilarityKL",
    "SimilarityMSE",
    "SoftCrossEntropy",
    "SquaredError",
]
