"""The shape that the sentences of a batch span: their distances and angles (RKD), at any widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import huber_loss
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.precision import products, wide_pair, widened
from hf_distill.objectives.sentence import AmongSentences, other_sentences

_RKD = "Park, Kim, Lu, Cho: Relational Knowledge Distillation. 2019. arXiv:1904.05068"
_NO_DISTANCE = 1e-12
_NO_DIRECTION = 1e-3
"""Of the mean distance: nearer sentences differ by rounding, and what they point at is noise."""


def _differences(states: Tensor, real: Tensor) -> Tensor:
    """[B, D] -> [B, B, D], at (i, j) state j - state i in units of the mean distance."""
    apart = widened(states) - widened(states).unsqueeze(1)
    pairs = other_sentences(real) & real.unsqueeze(-1)
    total: Tensor = vector_norm(apart, dim=-1).masked_fill(~pairs, 0).sum()
    mean = total / pairs.sum().clamp(min=1)
    return apart / mean.clamp(min=_NO_DISTANCE)


def rkd_distance(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Huber distance (delta 1) of the distances to the other sentences, mean over these.

    Distances are divided by the batch's mean distance (1904.05068, equations 5 to 7).

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.

    Returns:
        [B]; 0 for a sentence without others.
    """
    others = other_sentences(real) & real.unsqueeze(-1)
    lengths = (vector_norm(_differences(side, real), dim=-1) for side in (student, teacher))
    gaps = huber_loss(*wide_pair(*lengths), reduction="none")
    return gaps.masked_fill(~others, 0).sum(-1) / others.sum(-1).clamp(min=1)


def rkd_angle(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """Huber distance (delta 1) of the cosines of angles at a sentence, mean over pairs of others.

    The angle at j between i and k, i, j and k different (1904.05068, equations 8 and 9).

    Args:
        student: [B, D].
        teacher: [B, D], of any width.
        real: [B] bool, the sentences that are not empty.

    Returns:
        [B]; 0 for a sentence with less than two others.
    """
    others = other_sentences(real) & real.unsqueeze(-1)
    different = ~torch.eye(len(real), dtype=torch.bool, device=real.device)
    triples = others.unsqueeze(-1) & others.unsqueeze(-2) & different
    cosines = (_angles(_differences(side, real)) for side in (student, teacher))
    gaps = huber_loss(*wide_pair(*cosines), reduction="none")
    count = triples.sum((-2, -1)).clamp(min=1)
    return gaps.masked_fill(~triples, 0).sum((-2, -1)) / count


def _angles(differences: Tensor) -> Tensor:
    """[B, B, D] -> [B, B, B], at (j, i, k) the cosine of the angle at j between i and k."""
    directions = unit_length(differences, dim=-1, eps=_NO_DIRECTION)
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

    The paper gives it twice the weight of the distances. It holds some B^2 (B + D) numbers for a
    batch of B: 20 MB for 64 sentences at width 768, 700 MB for 256, on each side and in float32.

    Args:
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    citation: ClassVar[str] = _RKD

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        return rkd_angle(student, teacher, real)
