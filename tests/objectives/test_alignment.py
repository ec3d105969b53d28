"""Centred kernel alignment against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import CKA
from hf_distill.objectives.alignment import cka
from hf_distill.objectives.pooling import pooled
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

REAL = torch.tensor([True, True, False, True, True])


def hsic(left: Tensor, right: Tensor) -> float:
    """tr(K H L H) of linear kernels, entry by entry."""
    count = len(left)

    def centred(states: Tensor) -> list[list[float]]:
        rows = states.tolist()
        kernel = [[oracles.inner(x, y) for y in rows] for x in rows]
        means = [oracles.mean(row) for row in kernel]
        return [
            [kernel[i][j] - means[i] - means[j] + oracles.mean(means) for j in range(count)]
            for i in range(count)
        ]

    return sum(oracles.inner(x, y) for x, y in zip(centred(left), centred(right), strict=True))


def test_cka_is_the_normalised_hsic_of_the_loop() -> None:
    """Without centring, the mean state that all examples share is all that is compared."""
    student, teacher = torch.randn(5, 3).double() + 4, torch.randn(5, 7).double()
    mine, theirs = student[REAL], teacher[REAL]
    expected = 1 - hsic(mine, theirs) / math.sqrt(hsic(mine, mine) * hsic(theirs, theirs))
    assert cka(student, teacher, REAL).item() == pytest.approx(expected)


def test_cka_by_hand() -> None:
    """Four corners of a square against their first coordinate alone: 1 - sqrt(1/2)."""
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    everyone = torch.ones(4).bool()
    assert cka(square[:, :1], square, everyone).item() == pytest.approx(1 - math.sqrt(0.5))
    assert cka(square[:, :1], square[:, 1:], everyone).item() == pytest.approx(1)


def test_cka_is_blind_to_rotation_scale_and_place() -> None:
    """A student may hold the teacher's representation in coordinates of its own."""
    teacher = torch.randn(6, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    found = cka(1e3 * teacher @ rotation + 50, teacher, torch.ones(6).bool())
    assert found.item() == pytest.approx(0, abs=1e-12)


def test_cka_is_never_below_zero() -> None:
    """Rounding takes the alignment above 1: a perfect student has a loss below 0."""
    for _ in range(50):
        teacher = torch.randn(6, 4)
        student = teacher @ torch.linalg.qr(torch.randn(4, 4))[0]
        assert 0 <= cka(student, teacher, torch.ones(6).bool()) < 1e-5


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_examples_give_zero_with_finite_gradient(count: int) -> None:
    """The last batch may hold one sentence: 0 / 0 there makes every weight NaN."""
    student = torch.randn(3, 4, requires_grad=True)
    value = cka(student, torch.randn(3, 4), torch.arange(3) < count)
    value.backward()
    assert value.item() == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_a_collapsed_student_has_a_finite_gradient() -> None:
    """States that are all the same have no direction to be scaled."""
    student = torch.ones(5, 4, requires_grad=True)
    value = cka(student, torch.randn(5, 4), REAL)
    value.backward()
    assert value.item() == 1
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("pooling", ["tokens", "mean", "first"])
def test_examples_are_what_the_pooling_says(pooling: str) -> None:
    """Tokens of padding are examples of nothing; pooled sentences are fewer, and another value."""
    student, teacher = (collate(batch((4, 2, 3), seed, {"hidden"}), "left") for seed in (0, 9))
    states, real = pooled(student.hidden[1], student.mask, pooling)  # type: ignore[arg-type]
    targets, _ = pooled(teacher.hidden[2], student.mask, pooling)  # type: ignore[arg-type]
    found = CKA(pooling=pooling).forward(student, teacher, ((1, 2),))  # type: ignore[arg-type]
    expected = cka(states[real], targets[real], torch.ones(int(real.sum())).bool())
    torch.testing.assert_close(found, expected.expand(3))
    assert real.sum() == (9 if pooling == "tokens" else 3)


def test_says_that_it_compares_the_batch() -> None:
    """Accumulated micro-batches are then not one big batch, and the trainer must know."""
    assert CKA().compares_batch
    assert not CKA().equal_width
