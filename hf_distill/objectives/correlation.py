"""Correlation of predicted probabilities: of a row's classes, and of a class's rows (DIST)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.base import Pairs
from hf_distill.objectives.prediction import Prediction, logits_of, softened
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_number, check_temperature
from hf_distill.signals.signals import Problem, Signals


def pearson_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """1 - Pearson's correlation over the last axis, where both sides vary.

    Computed as half the squared distance of the centred values, each brought to length 1, which is
    the same and exactly 0 when equal. A side that does not vary has no direction and counts as the
    point 0: no distance from another such, 1/2 from one that varies, and a bounded gradient.

    Args:
        student: [..., N], float32 or wider.
        teacher: [..., N].
        counted: bool, broadcastable to both: what counts.

    Returns:
        [...], 0 to 2.
    """
    gap = _direction(student, counted) - _direction(teacher, counted)
    return gap.square().sum(-1) / 2


def _direction(values: Tensor, counted: Tensor) -> Tensor:
    values = values.masked_fill(~counted, 0)
    mean = values.sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp(min=1)
    centred = (values - mean).masked_fill(~counted, 0)
    length, size = (side.norm(dim=-1, keepdim=True) for side in (centred, values))
    # What is left of equal values is rounding, and its direction is noise.
    rounding = 8 * torch.finfo(values.dtype).eps * size
    direction: Tensor = centred / length.masked_fill(length <= rounding, 1)
    return direction


def correlation_distance(
    student: Tensor,
    teacher: Tensor,
    counted: Tensor,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """The sum beta * inter-class + gamma * intra-class distance of probabilities (2205.10536).

    Inter-class: `pearson_distance` of a row's probabilities over the classes. Intra-class: that of
    a class's probabilities over the rows, mean over classes; every row is given the same.

    There is no factor T^2: a correlation does not change with the size of what it compares, so the
    gradient does not fade when the temperature rises. (The authors' code has the factor.)

    Args:
        student: Logits, [*R, C].
        teacher: Logits, [*R, C].
        counted: [*R] bool, the rows that count: no other has part in the intra-class distance.
        temperature: Divides the logits; > 0.
        beta: Weight of the inter-class distance.
        gamma: Weight of the intra-class distance.

    Returns:
        [*R].
    """
    student, teacher = (side.exp() for side in softened(student, teacher, temperature))
    inter = pearson_distance(student, teacher, torch.ones_like(student, dtype=torch.bool))
    mine, theirs = (side.flatten(0, -2).T for side in (student, teacher))
    intra = pearson_distance(mine, theirs, counted.flatten()).mean()
    return beta * inter + gamma * intra


@dataclass(frozen=True)
class DIST(Prediction):
    """Correlation of the probabilities within rows and within classes, for strong teachers.

    Asks only that the student's probabilities rise and fall with the teacher's, not that they are
    the same: a small student cannot be as sure. A class must be the same one in every row, so spans
    are refused.

    Args:
        temperature: Divides the logits of both sides; > 0. The value is not scaled back.
        beta: Weight of the distance between a row's classes; >= 0.
        gamma: Weight of the distance between the rows of the batch, class by class; >= 0.
    """

    temperature: Number = 1.0
    beta: Number = 1.0
    gamma: Number = 1.0

    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    serves_spans: ClassVar[bool] = False
    compares_batch: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Huang, You, Wang, Qian, Xu: Knowledge Distillation from A Stronger Teacher. 2022. "
        "arXiv:2205.10536"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        check_temperature(self.temperature)
        check_number("beta", self.beta, "Use 0 to leave a row's classes out.", at_least=0)
        check_number("gamma", self.gamma, "Use 0 to leave a class's rows out.", at_least=0)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        temperature, beta, gamma = (
            fixed(setting) for setting in (self.temperature, self.beta, self.gamma)
        )
        counted = student.counted("row")
        return correlation_distance(
            logits_of(student), logits_of(teacher), counted, temperature, beta, gamma
        )
