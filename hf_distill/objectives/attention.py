"""Attention maps: where each token looks, as probabilities over the keys or as scores before."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs, Shape
from hf_distill.objectives.divergence import kl, log_probabilities
from hf_distill.objectives.precision import wide_pair, widened
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.signals.signals import Signals, Unit

Heads = Literal["each", "mean"]


def _sides(student: Tensor, teacher: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
    """Both sides in float32 or wider; with "mean", the mean of their heads as a single one."""
    if heads == "mean":
        student, teacher = (widened(side).mean(1, keepdim=True) for side in (student, teacher))
    return wide_pair(student, teacher)


def _squares(student: Tensor, teacher: Tensor, mask: Tensor, heads: Heads) -> Tensor:
    """Squared differences, 0 on keys that are padding."""
    student, teacher = _sides(student, teacher, heads)
    return (student - teacher).masked_fill(~mask[:, None, None], 0).square()


def attention_mse(student: Tensor, teacher: Tensor, mask: Tensor, heads: Heads = "each") -> Tensor:
    """Squared distance of the maps, summed over real keys, mean over heads.

    The sum, not the mean, over keys: it is at most 2 whatever the length.

    Args:
        student: [B, A, T, T], probabilities.
        teacher: [B, A, T, T], probabilities.
        mask: [B, T] bool, the real keys.
        heads: "each" with the one of its number; or the "mean" of the maps, of any numbers A.

    Returns:
        [B, T], one value per query.
    """
    return _squares(student, teacher, mask, heads).sum(-1).mean(1)


def attention_scores_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, heads: Heads = "each"
) -> Tensor:
    """Squared difference of the scores, mean over real keys and over heads.

    Args:
        student: [B, A, T, T], before mask and softmax.
        teacher: [B, A, T, T], before mask and softmax.
        mask: [B, T] bool, the real keys.
        heads: "each" with the one of its number; or the "mean" of the scores, of any numbers A.

    Returns:
        [B, T], one value per query.
    """
    total = _squares(student, teacher, mask, heads).sum(-1).mean(1)
    return total / mask.sum(-1, keepdim=True).clamp(min=1)


def attention_kl(student: Tensor, teacher: Tensor, mask: Tensor, heads: Heads = "each") -> Tensor:
    """KL(teacher || student) of the maps over real keys, mean over heads.

    Args:
        student: [B, A, T, T], probabilities.
        teacher: [B, A, T, T], probabilities.
        mask: [B, T] bool, the real keys.
        heads: "each" with the one of its number; or the "mean" of the maps, of any numbers A.

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
        for side in _sides(student, teacher, heads)
    ]
    return kl(*logs).mean(1)


def check_heads(name: str, student: Shape, teacher: Shape, remedy: str) -> None:
    """Raise ValueError where maps cannot be compared head by head."""
    if student.heads != teacher.heads:
        raise ValueError(
            f"attention heads of the student must be the teacher's {teacher.heads} for {name}, "
            f"got {student.heads!r}. Build the student with {teacher.heads} heads, {remedy}."
        )


@dataclass(frozen=True)
class _Maps(Objective):
    """What losses on attention maps share: one signal, compared by head or as a mean of heads."""

    heads: Heads = "each"

    unit: ClassVar[Unit] = "token"

    def __post_init__(self) -> None:
        """Raise ValueError on a choice that is none."""
        if self.heads not in get_args(Heads):
            raise ValueError(
                f"heads must be one of {', '.join(get_args(Heads))}, got {self.heads!r}. "
                "Choose mean where student and teacher differ in number."
            )

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raise ValueError unless both have the same number of heads, or heads are averaged."""
        if self.heads == "each":
            remedy = "compare the mean over heads (heads: mean), or use MiniLMv2"
            check_heads(type(self).__name__, student, teacher, remedy)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        (signal,) = self.needs
        ours, shown = getattr(student, signal), getattr(teacher, signal)
        return mean_over_pairs(
            self.compare(ours[mine], shown[theirs], student.mask) for mine, theirs in pairs
        )

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """[B, A, T, T] twice and [B, T] -> [B, T]."""


@dataclass(frozen=True)
class AttentionMSE(_Maps):
    """Squared distance of attention probabilities, per query token.

    TinyBERT compares the scores before softmax (AttentionScoresMSE); these are the probabilities.

    Args:
        heads: "each" head is compared with the teacher's of its number, so both need as many; or
            the "mean" over heads with the teacher's, whatever their numbers.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    citation: ClassVar[str] = (
        "Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding. 2019. "
        "arXiv:1909.10351"
    )

    def compare(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """[B, T]."""
        return attention_mse(student, teacher, mask, self.heads)


@dataclass(frozen=True)
class AttentionScoresMSE(_Maps):
    """Squared difference of attention scores before softmax, per query token, as in TinyBERT.

    Of families only whose score is QK^T / sqrt(d) and no more: none with relative positions.

    Args:
        heads: "each" head is compared with the teacher's of its number, so both need as many; or
            the "mean" over heads with the teacher's, whatever their numbers.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention_scores"})
    citation: ClassVar[str] = (
        "Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding. 2019. "
        "arXiv:1909.10351"
    )

    def compare(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """[B, T]."""
        return attention_scores_mse(student, teacher, mask, self.heads)


@dataclass(frozen=True)
class AttentionKL(_Maps):
    """KL(teacher || student) of attention probabilities, per query token, as in MobileBERT.

    Args:
        heads: "each" head is compared with the teacher's of its number, so both need as many; or
            the "mean" over heads with the teacher's, whatever their numbers.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention"})
    citation: ClassVar[str] = (
        "Sun et al.: MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices. 2020. "
        "arXiv:2004.02984"
    )

    def compare(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """[B, T]."""
        return attention_kl(student, teacher, mask, self.heads)
