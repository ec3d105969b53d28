"""torchdistill: the middle-level losses that are about the same quantity as one of ours."""

from __future__ import annotations

import importlib
from types import ModuleType

from torch import Tensor

from hf_distill.objectives import (
    DIST,
    CrossEntropy,
    KLDivergence,
)
from hf_distill.objectives.class_divergence import kl_divergence
from peer_losses.batches import (
    CLASSES,
    HOT,
    Batch,
    with_logits,
    with_padding_counted,
)
from peer_losses.comparison import Comparison, Peer, loss, mixed
from peer_losses.of_torchdistill_states import between, compared, on_states

MIX = ((0.5, CrossEntropy()), (0.5, KLDivergence(temperature=HOT)))

ELSEWHERE = {
    "ATLoss": "sums of squared channels of convolutions",
    "AffinityLoss": "affinities within single channels",
    "AltActTransferLoss": "signs of activations",
    "AuxSSKDLoss": "rotated images",
    "CCKDLoss": "distance, not squared, of unnormalised inner products of sentences",
    "CRDLoss": "noise-contrastive, with memories of the whole training set; drawing its own"
    " negatives raises AttributeError",
    "ChSimLoss": "inner products of channels",
    "DISTPlusLoss": "adds correlations of feature maps to DISTLoss",
    "FTLoss": "paraphrased features",
    "HierarchicalContextLoss": "pooled feature maps",
    "KTALoss": "translated features",
    "LogitStdKDLoss": "KL of standardised logits",
    "PADL2Loss": "learnt variances",
    "RegularizationLoss": "a norm of one side",
    "SKDDirectionLoss": "Mahalanobis distance of cosines of logits",
    "SRDLoss": "logarithm of a sum of powers of differences",
    "SSKDLoss": "rotated images",
    "VIDLoss": "Gaussian likelihood with learnt variances",
}


def _load() -> ModuleType:
    """Its losses alone: the package's models would import torchvision."""
    return importlib.import_module("torchdistill.losses.mid_level")


def _comparisons(losses: ModuleType) -> list[Comparison]:
    """Its losses on logits, on flows, and on sentences among each other."""
    return [*_with_labels(losses), *_on_logits(losses), *on_states(losses)]


def _with_labels(losses: ModuleType) -> list[Comparison]:
    kd = between(losses, "KDLoss", temperature=HOT, alpha=0.5)

    def flattened(given: Batch) -> Tensor:
        mine, theirs = (side.flatten(0, 1) for side in given.logits)
        return compared(kd, mine, theirs, given.labels.flatten())

    def soft_padding(given: Batch) -> Tensor:
        hard = mixed(given, MIX[:1], ())
        return hard + mixed(with_padding_counted(given), MIX[1:], ())

    return [
        Comparison(
            "KDLoss(temperature=4, alpha=0.5)",
            lambda b: compared(kd, *b.logits, b.labels),
            MIX,
            "",
        ),
        Comparison(
            "KDLoss(temperature=4, alpha=0.5), targets None",
            lambda b: compared(kd, *b.logits),
            KLDivergence(temperature=HOT),
            "T² and the weight are left out with the labels, which its own example for Hugging Face"
            " models does not pass.",
            factor=1 / HOT**2,
        ),
        Comparison(
            "KDLoss(temperature=4, alpha=0.5), tokens in one row",
            flattened,
            MIX,
            "Padding counts in the KL; only the cross-entropy leaves out labels of -100.",
            rebuilt=soft_padding,
            padding="right",
            head="token",
        ),
    ]


def _on_logits(losses: ModuleType) -> list[Comparison]:
    plain = between(losses, "KDLoss", temperature=1.0, alpha=0.0)
    paper, code = (
        between(losses, "SKDInstanceLoss", temperature=HOT, mode=mode) for mode in ("paper", "code")
    )
    dist, hot = (between(losses, "DISTLoss", tau=tau) for tau in (1.0, HOT))

    def over_tokens(given: Batch) -> Tensor:
        mine, theirs = (side.transpose(1, 2) for side in given.logits)
        rows = given.mask.new_ones(mine.shape[:-1])
        return CLASSES * loss(with_logits(given, mine, theirs, rows), KLDivergence(temperature=1.0))

    def of_the_unsure(given: Batch) -> Tensor:
        surest = given.logits[1].softmax(-1).max(-1).values
        return (kl_divergence(*given.logits, HOT) * (surest <= surest.quantile(0.5))).mean()

    return [
        Comparison(
            "KDLoss(temperature=1), tokens",
            lambda b: compared(plain, *b.logits),
            KLDivergence(temperature=1.0),
            "Softmax runs over axis 1, which is the tokens of [B, T, C]: tokens compete, not"
            " classes. And the sum over C is divided by B alone.",
            rebuilt=over_tokens,
            head="token",
        ),
        Comparison(
            "SKDInstanceLoss(temperature=4, mode='paper')",
            lambda b: compared(paper, *b.logits),
            KLDivergence(temperature=HOT),
            "T² is missing; its mode 'code' has it.",
            factor=1 / HOT**2,
        ),
        Comparison(
            "SKDInstanceLoss(temperature=4, mode='code')",
            lambda b: compared(code, *b.logits),
            KLDivergence(temperature=HOT),
            "Another method: only the half of the rows that the teacher is less sure of counts.",
            rebuilt=of_the_unsure,
        ),
        Comparison("DISTLoss(tau=1)", lambda b: compared(dist, *b.logits), DIST(), ""),
        Comparison(
            "DISTLoss(tau=4)",
            lambda b: compared(hot, *b.logits),
            DIST(temperature=HOT),
            "T² as in the authors' code. A correlation does not shrink with T: the factor makes it"
            " larger instead of keeping its size.",
            factor=HOT**2,
        ),
    ]


def _registered(losses: ModuleType) -> set[str]:
    from torchdistill.losses.registry import MIDDLE_LEVEL_LOSS_DICT

    return {*MIDDLE_LEVEL_LOSS_DICT}


PEERS = (Peer("torchdistill", _load, _comparisons, _registered, ELSEWHERE),)
