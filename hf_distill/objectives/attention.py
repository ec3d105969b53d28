"""Attention maps: where each token looks, as probabilities over the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs, Shape
from hf_distill.objectives.divergence import kl, log_probabilities
from hf_distill.objectives.precision import wide_pair
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.signals.signals import Signals, Unit


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of the maps, summed over real keys, mean over heads.

    The sum, not the mean, over keys: it is at most 2 whatever the length.

    Args:
        student: [B, A, T, T], probabilities.
        teacher: [B, A, T, T], probabilities.
        mask: [B, T] bool, the real keys.

    Returns:
        [B, T], one value per query.
    """
    student, teacher = wide_pair(student, teacher)
    difference = (student - teacher).masked_fill(~mask[:, None, None], 0)
    return difference.square().sum(-1).mean(1)


def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """KL(teacher || student) of the maps over real keys, mean over heads.

    Args:
        student: [B, A, T, T], probabilities.
        teacher: [B, A, T, T], probabilities.
        mask: [B, T] bool, the real keys.

    Returns:
        [B, T], one value per query.
    """
    # The inverse of the smallest probability is the gradient of its logarithm, and must be finite
    # in the type that the gradient goes back to.
    smallest = max(torch.finfo(side.dtype).tiny for side in (student, teacher))
    real = mask[:, None, None]
    # Log-softmax of a log-probability is itself; it makes up for rounding in half precision.
    logs = [
        log_probabilities(side.clamp(min=smallest).log(), real)
        for side in wide_pair(student, teacher)
    ]
    return kl(*logs).mean(1)


def check_heads(name: str, student: Shape, teacher: Shape) -> None:
    """Raise ValueError where maps cannot be compared head by head."""
    if student.heads != teacher.heads:
        raise ValueError(
            f"attention heads of the student must be the teacher's {teacher.heads} for {name}, "
            f"got {student.heads!r}. Build the student with {teacher.heads} heads, or use MiniLMv2."
        )


@dataclass(frozen=True)
class AttentionMSE(Objective):
    """Squared distance of attention probabilities, per query token.

    TinyBERT compares the scores before softmax; these are the probabilities.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    unit: ClassVar[Unit] = "token"
    citation: ClassVar[str] = (
        "Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding. 2019. "
        "arXiv:1909.10351"
    )

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raise ValueError unless both have the same number of heads."""
        check_heads("AttentionMSE", student, teacher)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            attention_mse(student.attention[mine], teacher.attention[theirs], student.mask)
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class AttentionKL(Objective):
    """KL(teacher || student) of attention probabilities, per query token, as in MobileBERT."""

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    unit: ClassVar[Unit] = "token"
    citation: ClassVar[str] = (
        "Sun et al.: MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices. 2020. "
        "arXiv:2004.02984"
    )

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raise ValueError unless both have the same number of heads."""
        check_heads("AttentionKL", student, teacher)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            attention_kl(student.attention[mine], teacher.attention[theirs], student.mask)
            for mine, theirs in pairs
        )
