"""The shape that the sentences of a batch span: their distances and angles (RKD), at any widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from hf_distill.objectives.precision import products, wide_pair, widened
from hf_distill.objectives.sentence import AmongSentences, other_sentences

_RKD = "Park, Kim, Lu, Cho: Relational Knowledge Distillation. 2019. arXiv:1904.05068"
_NO_DISTANCE = 1e-12
_NO_DIRECTION = 1e-3
"""Of the mean distance: nearer sentences differ by rounding, and what they point at is noise."""


def _pairs(real: Tensor) -> Tensor:
    """[B] -> [B, B] bool: two different sentences, neither of them empty."""
    return other_sentences(real) & real.unsqueeze(-1)


def _distances(states: Tensor) -> Tensor:
    """[B, D] -> [B, B]; without matrix products, which lose the small ones."""
    return torch.cdist(states, states, compute_mode="donot_use_mm_for_euclid_dist")


def _mean_distance(distances: Tensor, real: Tensor) -> Tensor:
    pairs = _pairs(real)
    total = distances.masked_fill(~pairs, 0).sum()
    return (total / pairs.sum().clamp(min=1)).clamp(min=_NO_DISTANCE)


def rkd_distance(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Huber distance (delta 1) of the distances to the other sentences, mean over these.

    Distances are divided by the batch's mean distance: the distance-wise loss of 1904.05068.

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = _pairs(real)
    lengths = (_distances(widened(side)) for side in (student, teacher))
    relative = (each / _mean_distance(each, real) for each in lengths)
    gaps = huber_loss(*wide_pair(*relative), reduction="none")
    return gaps.masked_fill(~others, 0).sum(-1) / others.sum(-1).clamp(min=1)


def rkd_angle(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Huber distance (delta 1) of the cosines of angles at a sentence, mean over pairs of others.

    The angle at j between i and k, i, j and k different: the angle-wise loss of 1904.05068.

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.

    Returns:
        [B]; 0 for a sentence with less than two others.
    """
    others = _pairs(real)
    different = ~torch.eye(len(real), dtype=torch.bool, device=real.device)
    triples = others.unsqueeze(-1) & others.unsqueeze(-2) & different
    cosines = (_angles(widened(side), real) for side in (student, teacher))
    gaps = huber_loss(*wide_pair(*cosines), reduction="none")
    count = triples.sum((-2, -1)).clamp(min=1)
    return gaps.masked_fill(~triples, 0).sum((-2, -1)) / count


def _angles(states: Tensor, real: Tensor) -> Tensor:
    """[B, D] -> [B, B, B], at (j, i, k) the cosine of the angle at j between i and k."""
    lengths = _distances(states)
    least = _NO_DIRECTION * _mean_distance(lengths, real).detach()
    directions = (states - states.unsqueeze(1)) / lengths.clamp(min=least).unsqueeze(-1)
    return products(directions, directions)


@dataclass(frozen=True)
class RKDDistance(AmongSentences):
    """Relational distillation of the distances between the sentences of a batch, at any widths.

    Args:
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    citation: ClassVar[str] = _RKD

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        return rkd_distance(student, teacher, real)


@dataclass(frozen=True)
class RKDAngle(AmongSentences):
    """Relational distillation of the angles that three sentences of a batch span, at any widths.

    The paper gives it twice the weight of the distances. Memory grows as B^2 (B + D) with B
    sentences of width D: at width 768 it takes 0.1 GB for 64, 0.3 GB for 128, 1.2 GB for 256.

    Args:
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    citation: ClassVar[str] = _RKD

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        return rkd_angle(student, teacher, real)
