"""Sentences among each other: how alike the sentences of a batch are to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.divergence import check_temperature, kl, log_probabilities
from hf_distill.objectives.precision import products, widened
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.signals.signals import Signals, Unit


def similarities(hidden: Tensor, mask: Tensor) -> Tensor:
    """Cosines of mean-pooled sentences: [B, T, D] and [B, T] -> [B, B]; 0 for an empty sentence."""
    pooled = widened(hidden).masked_fill(~mask.unsqueeze(-1), 0).sum(1)
    # The sum has the direction of the mean.
    pooled = normalize(pooled, dim=-1)
    return products(pooled, pooled)


def other_sentences(mask: Tensor) -> Tensor:
    """[B, T] -> [B, B] bool: which sentences a sentence is compared with: not itself, not empty."""
    itself = torch.eye(mask.shape[0], dtype=torch.bool, device=mask.device)
    return mask.any(-1) & ~itself


def similarity_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared difference of similarities, mean over the other sentences.

    Args:
        student: [B, T, D].
        teacher: [B, T, D], of any width.
        mask: [B, T] bool, the real tokens.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = other_sentences(mask)
    difference = similarities(student, mask) - similarities(teacher.detach(), mask)
    return difference.masked_fill(~others, 0).square().sum(-1) / others.sum(-1).clamp(min=1)


def similarity_kl(
    student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 0.05
) -> Tensor:
    """KL(teacher || student) of softmax(similarity / temperature) over the other sentences.

    Args:
        student: [B, T, D].
        teacher: [B, T, D], of any width.
        mask: [B, T] bool, the real tokens.
        temperature: Divides the similarities of both sides; the value is not scaled back.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = other_sentences(mask)
    return kl(
        log_probabilities(similarities(student, mask) / temperature, others),
        log_probabilities(similarities(teacher.detach(), mask) / temperature, others),
    )


@dataclass(frozen=True)
class SimilarityMSE(Objective):
    """Squared difference of the sentences' cosine similarities within the batch, at any widths."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    default_mapping: ClassVar[str] = "last"
    compares_batch: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Tung, Mori: Similarity-Preserving Knowledge Distillation. 2019. arXiv:1907.09682"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B]."""
        return mean_over_pairs(
            similarity_mse(student.hidden[mine], teacher.hidden[theirs], student.mask)
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class SimilarityKL(Objective):
    """KL of each sentence's distribution over the batch's other sentences, at any widths.

    Prefer it to SimilarityMSE where the nearest sentences matter most, as in retrieval.

    Args:
        temperature: Divides the cosines of both sides; > 0. Lower looks at nearer sentences only.
    """

    temperature: float = 0.05

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    default_mapping: ClassVar[str] = "last"
    compares_batch: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. "
        "2018. arXiv:1803.10837"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B]."""
        return mean_over_pairs(
            similarity_kl(
                student.hidden[mine], teacher.hidden[theirs], student.mask, self.temperature
            )
            for mine, theirs in pairs
        )
