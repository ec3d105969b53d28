"""Sentences among each other: how alike the sentences of a batch are to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.divergence import kl, log_probabilities
from hf_distill.objectives.precision import products, widened
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_temperature
from hf_distill.objectives.states import PooledStates
from hf_distill.signals.signals import Unit

Normalized = Literal["sentences", "rows"]


def similarities(states: Tensor) -> Tensor:
    """Cosines of sentences: [B, D] -> [B, B]; 0 for an empty sentence, whose state is 0."""
    directions = unit_length(widened(states), dim=-1)
    return products(directions, directions)


def row_similarities(states: Tensor) -> Tensor:
    """Inner products of sentences, each row at length 1: [B, D] -> [B, B]; 0 for an empty one."""
    return unit_length(products(states, states), dim=-1)


def other_sentences(real: Tensor) -> Tensor:
    """[B] -> [B, B] bool: which sentences a sentence is compared with: not itself, not empty."""
    return real & ~torch.eye(len(real), dtype=torch.bool, device=real.device)


def similarity_mse(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Squared difference of similarities, mean over the other sentences.

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = other_sentences(real)
    difference = similarities(student) - similarities(teacher.detach())
    return difference.masked_fill(~others, 0).square().sum(-1) / others.sum(-1).clamp(min=1)


def row_similarity_mse(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Squared distance of rows of similarities, divided by B: the loss of 1907.09682, by row.

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty: only they are counted in B.

    Returns:
        [B]; their mean is the paper's sum over the matrix, divided by B^2.
    """
    difference = row_similarities(student) - row_similarities(teacher.detach())
    return difference.square().sum(-1) / real.sum().clamp(min=1)


def similarity_kl(
    student: Tensor, teacher: Tensor, real: Tensor, temperature: float = 0.05
) -> Tensor:
    """KL(teacher || student) of softmax(similarity / temperature) over the other sentences.

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.
        temperature: Divides the similarities of both sides; the value is not scaled back.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = other_sentences(real)
    return kl(
        log_probabilities(similarities(student) / temperature, others),
        log_probabilities(similarities(teacher.detach()) / temperature, others),
    )


@dataclass(frozen=True)
class AmongSentences(PooledStates):
    """What objectives share that compare the sentences of a batch with each other.

    Under several processes, each compares the sentences of its own batch.
    """

    unit: ClassVar[Unit] = "sequence"
    default_mapping: ClassVar[str] = "last"
    compares_batch: ClassVar[bool] = True


@dataclass(frozen=True)
class SimilarityMSE(AmongSentences):
    """Squared difference of the sentences' similarities within the batch, at any widths.

    Args:
        normalize: What has length 1. "sentences": similarities are cosines, and a sentence's
            likeness to itself is left out. "rows": the paper's own form, inner products of which
            each sentence's row has length 1, itself included; long states count more, and the
            value falls with the batch size.
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    normalize: Normalized = "sentences"

    citation: ClassVar[str] = (
        "Tung, Mori: Similarity-Preserving Knowledge Distillation. 2019. arXiv:1907.09682"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a choice that is none."""
        super().__post_init__()
        if self.normalize not in get_args(Normalized):
            raise ValueError(
                f"normalize must be one of {', '.join(get_args(Normalized))}, got "
                f"{self.normalize!r}. Choose one."
            )

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        measure = similarity_mse if self.normalize == "sentences" else row_similarity_mse
        return measure(student, teacher, real)


@dataclass(frozen=True)
class SimilarityKL(AmongSentences):
    """KL of each sentence's distribution over the batch's other sentences, at any widths.

    Prefer it to SimilarityMSE where the nearest sentences matter most, as in retrieval.

    Args:
        temperature: Divides the cosines of both sides; > 0. Lower looks at nearer sentences only.
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    temperature: Number = 0.05

    citation: ClassVar[str] = (
        "Passalis, Tefas: Learning Deep Representations with Probabilistic Knowledge Transfer. "
        "2018. arXiv:1803.10837"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a choice that is none, or a temperature that is none."""
        super().__post_init__()
        check_temperature(self.temperature)

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        return similarity_kl(student, teacher, real, fixed(self.temperature))
