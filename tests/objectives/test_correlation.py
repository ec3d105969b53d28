"""DIST against a plain loop, and rows and columns in which there is no correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import DIST
from hf_distill.objectives.correlation import correlation_distance, pearson_distance
from hf_distill.signals.signals import Signals
from tests.objectives import oracles

ROWS, CLASSES = 6, 4
ALL = torch.ones(ROWS, dtype=torch.bool)


def logits(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, CLASSES, dtype=torch.float64).to(dtype) * 2
    return student, teacher


def pearson(left: Sequence[float], right: Sequence[float]) -> float:
    mine, theirs = ([x - oracles.mean(side) for x in side] for side in (left, right))
    return oracles.inner(oracles.unit(mine), oracles.unit(theirs))


def loop(student: Tensor, teacher: Tensor, temperature: float, beta: float, gamma: float) -> Tensor:
    """All rows count."""
    s, t = (
        [oracles.softmax([x / temperature for x in row]) for row in side.tolist()]
        for side in (student, teacher)
    )
    columns = zip(zip(*s, strict=True), zip(*t, strict=True), strict=True)
    intra = oracles.mean([1 - pearson(mine, theirs) for mine, theirs in columns])
    return torch.tensor(
        [
            beta * (1 - pearson(mine, theirs)) + gamma * intra
            for mine, theirs in zip(s, t, strict=True)
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_correlation_distance_is_the_loop(temperature: float) -> None:
    """Rows taken for columns, or logits for probabilities, are correlated too."""
    student, teacher = logits()
    found = correlation_distance(student, teacher, ALL, temperature, beta=0.5, gamma=3.0)
    torch.testing.assert_close(found, loop(student, teacher, temperature, 0.5, 3.0))


def test_pearson_distance_by_hand() -> None:
    """A cosine without centring is not a correlation: of probabilities it is always near 1."""
    teacher = torch.tensor([1.0, 2.0, 3.0]).double()
    cases = {
        (10.0, 20.0, 30.0): 0.0,
        (3.0, 2.0, 1.0): 2.0,
        (1.0, 3.0, 2.0): 0.5,
        (2.0, 1.0, 2.0): 1,
    }
    for values, expected in cases.items():
        student = torch.tensor(values).double()
        found = pearson_distance(student, teacher, torch.ones(3).bool())
        assert found.item() == pytest.approx(expected, abs=1e-12)


def test_a_student_less_sure_is_no_worse() -> None:
    """It is the point of the method: the KL of the same two is far from 0."""
    teacher = torch.tensor([[0.90, 0.06, 0.04], [0.02, 0.18, 0.80]]).double()
    student = 0.3 * teacher + 0.7 / 3
    both = torch.ones(2).bool()
    values = correlation_distance(student.log(), teacher.log(), both)
    torch.testing.assert_close(values, torch.zeros(2).double(), rtol=0, atol=1e-12)


def test_temperature_needs_no_factor() -> None:
    """A correlation is free of scale: times T^2 the term would grow with the temperature."""
    student, teacher = logits()
    student.requires_grad_()
    near, far = (
        torch.autograd.grad(correlation_distance(student, teacher, ALL, t).sum(), student)[0]
        for t in (50.0, 500.0)
    )
    torch.testing.assert_close(near, far, rtol=0.2, atol=0.01)


def test_rows_that_do_not_count_have_no_part() -> None:
    """A column of the batch runs through padding and unlabelled tokens too."""
    student, teacher = logits()
    counted = torch.tensor([True, False, True, True, False, True])
    alone = correlation_distance(student[counted], teacher[counted], torch.ones(4).bool())
    for garbage in (0.0, 50.0, -300.0):
        mine, theirs = student.clone(), teacher.clone()
        mine[~counted], theirs[~counted] = garbage, -garbage
        mine.requires_grad_()
        found = correlation_distance(mine, theirs, counted)
        assert found.isfinite().all()
        torch.testing.assert_close(found[counted], alone)
        gradient = torch.autograd.grad(found[counted].sum(), mine)[0]
        assert (gradient[~counted] == 0).all()
        assert (gradient[counted] != 0).any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_row_has_no_columns(dtype: torch.dtype) -> None:
    """The last batch of an epoch may hold one row: 0 / 0 for each of its classes."""
    student, teacher = (side[:1].requires_grad_() for side in logits(dtype))
    one = torch.ones(1).bool()
    found = correlation_distance(student, teacher, one, gamma=5.0)
    torch.testing.assert_close(found, correlation_distance(student, teacher, one, gamma=0.0))
    assert found.item() > 0
    gradient = torch.autograd.grad(found.sum(), student)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("constant", ["student", "teacher", "both"])
@pytest.mark.parametrize("part", ["rows", "columns"])
def test_what_does_not_vary_is_finite(constant: str, part: str, dtype: torch.dtype) -> None:
    """A fresh head says the same of every row: normalised, its rounding would be the signal."""
    student, teacher = logits(dtype)
    for side, name in ((student, "student"), (teacher, "teacher")):
        if constant in (name, "both"):
            side[:] = torch.tensor([[0.1, 0.7, -0.4, 0.2]]) if part == "columns" else 0.7
    student.requires_grad_()
    found = correlation_distance(student, teacher, ALL)
    gradient = torch.autograd.grad(found.sum(), student)[0]
    assert found.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 100
    if constant == "both" and part == "columns":
        torch.testing.assert_close(found, torch.zeros_like(found))
    if constant == "student":
        # Nothing is learnt of it otherwise, and it would stay so.
        assert (gradient != 0).any()


def test_token_rows_and_vocabulary_rows_are_flat() -> None:
    """A column runs over the tokens of all sequences; over one sequence it is another loss."""
    student, teacher = torch.randn(2, 2, 3, CLASSES, dtype=torch.float64)
    counted = torch.tensor([[True, True, False], [True, True, True]])
    mine = Signals(torch.ones(2, 3).bool(), logits=student, rows=counted)
    found = DIST().forward(mine, Signals(mine.mask, logits=teacher), ())
    flat = Signals(mine.mask, logits=student.flatten(0, 1), rows=counted.flatten())
    shown = Signals(mine.mask, logits=teacher.flatten(0, 1))
    torch.testing.assert_close(found.flatten(), DIST().forward(flat, shown, ()))
    none = Signals(mine.mask, logits=student[:0, 0], rows=counted[:0, 0])
    assert DIST().forward(none, none, ()).shape == (0,)


def test_settings_reach_the_mathematics() -> None:
    """A setting that is accepted and not handed on is a hyper-parameter that does nothing."""
    student, teacher = logits()
    mine = Signals(torch.ones(ROWS, 2).bool(), logits=student, rows=ALL)
    found = DIST(2.0, 0.3, 5.0).forward(mine, Signals(mine.mask, logits=teacher), ())
    expected = correlation_distance(student, teacher, ALL, 2.0, 0.3, 5.0)
    torch.testing.assert_close(found, expected)
    assert DIST.compares_batch


@pytest.mark.parametrize("name", ["beta", "gamma"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "1", True])
def test_weights_are_not_negative(name: str, value: Any) -> None:
    """A negative weight drives the student away from the teacher."""
    with pytest.raises(ValueError, match=rf"{name} must be a finite number >= 0, got .*\. Use 0"):
        DIST(**{name: value})
