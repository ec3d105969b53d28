"""Relational distillation against plain loops."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from torch import Tensor

from hf_distill.objectives.distances import rkd_angle, rkd_distance
from tests.objectives import oracles

REAL = torch.tensor([True, False, True, True, True])
THERE = REAL.nonzero().flatten().tolist()


def states() -> tuple[Tensor, Tensor]:
    """Of different widths; the second sentence is empty. Far enough apart for both of Huber's."""
    student = torch.randn(5, 3, dtype=torch.float64) * torch.tensor([1, 1, 1, 1, 9])[:, None]
    teacher = torch.randn(5, 6, dtype=torch.float64)
    return student * REAL[:, None], teacher * REAL[:, None]


def huber(left: float, right: float) -> float:
    gap = abs(left - right)
    return gap * gap / 2 if gap <= 1 else gap - 0.5


def difference(states: Tensor, i: int, j: int) -> list[float]:
    return [x - y for x, y in zip(states[i].tolist(), states[j].tolist(), strict=True)]


def length(vector: list[float]) -> float:
    return math.sqrt(oracles.inner(vector, vector))


def test_rkd_distance_is_the_loop() -> None:
    """Distances that are not divided by their mean compare the widths of two models."""
    sides = states()
    means = [
        oracles.mean([length(difference(side, i, j)) for i, j in permutations(THERE, 2)])
        for side in sides
    ]
    expected = [0.0] * 5
    gaps = []
    for i, j in permutations(THERE, 2):
        mine, theirs = (
            length(difference(side, i, j)) / mean for side, mean in zip(sides, means, strict=True)
        )
        gaps.append(abs(mine - theirs))
        expected[i] += huber(mine, theirs) / 3
    assert min(gaps) < 1 < max(gaps), "Both parts of Huber's distance must be met."
    found = rkd_distance(*sides, REAL)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_rkd_angle_is_the_loop() -> None:
    """The vertex taken for an end, or pairs counted that are one sentence, is another angle."""
    sides = states()
    expected = [0.0] * 5
    for i, j, k in permutations(THERE, 3):
        mine, theirs = (
            oracles.inner(
                oracles.unit(difference(side, i, j)), oracles.unit(difference(side, k, j))
            )
            for side in sides
        )
        expected[j] += huber(mine, theirs) / (3 * 2)
    found = rkd_angle(*sides, REAL)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_rkd_by_hand() -> None:
    """Student: points 0, 1, 2 of a line. Teacher: a right angle with sides of 1."""
    student = torch.tensor([[1.0], [0.0], [2.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    real = torch.ones(3).bool()
    # Cosines at the corner: -1 and 0. At the other points: 1 and sqrt(1/2).
    corner, point = 0.5, (1 - math.sqrt(0.5)) ** 2 / 2
    torch.testing.assert_close(
        rkd_angle(student, teacher, real), torch.tensor([corner, point, point])
    )
    # Distances 1, 1, 2 of mean 4/3; 1, 1, sqrt 2 of mean (2 + sqrt 2) / 3.
    mean = (2 + math.sqrt(2)) / 3
    short, long = (0.75 - 1 / mean) ** 2 / 2, (1.5 - math.sqrt(2) / mean) ** 2 / 2
    torch.testing.assert_close(
        rkd_distance(student, teacher, real),
        torch.tensor([short, (short + long) / 2, (short + long) / 2]),
    )


@pytest.mark.parametrize("compare", [rkd_distance, rkd_angle])
def test_rkd_sees_the_shape_only(compare: object) -> None:
    """A student of another scale, place and rotation has learnt the shape all the same."""
    assert callable(compare)
    teacher = torch.randn(4, 3, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    found = compare(7 * teacher @ rotation + 100, teacher, torch.ones(4).bool())
    torch.testing.assert_close(found, torch.zeros(4, dtype=torch.float64))


def test_small_distances_survive_far_from_the_origin() -> None:
    """Squared lengths less products is the fast way, and leaves of near sentences nothing."""
    student, teacher = (1000 + torch.randn(2, 5, 8) / 100).round(decimals=4)
    real = torch.ones(5).bool()
    exact = rkd_distance(student.double(), teacher.double(), real)
    found = rkd_distance(student, teacher, real)
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=0)


def test_equal_sentences_have_no_direction() -> None:
    """A sentence twice in a batch: rounding sets a direction, and its gradient is a million."""
    teacher = torch.randn(4, 8)
    student = torch.randn(4, 8)
    student[1] = student[0] + 1e-6
    student.requires_grad_()
    rkd_angle(student, teacher, torch.ones(4).bool()).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1000


@pytest.mark.parametrize("compare", [rkd_distance, rkd_angle])
def test_a_batch_of_equal_sentences_has_a_finite_gradient(compare: object) -> None:
    """The mean distance is 0 there, and the root of 0 has no derivative."""
    assert callable(compare)
    student = torch.ones(4, 8, requires_grad=True)
    compare(student, torch.randn(4, 8), torch.ones(4).bool()).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
