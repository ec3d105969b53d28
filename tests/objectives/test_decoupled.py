"""Decoupled distillation against a plain loop, and what makes it differ from a KL."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import DecoupledKD
from hf_distill.objectives.class_divergence import kl_divergence
from hf_distill.objectives.decoupled import decoupled_kd
from hf_distill.signals.signals import PADDING_LOGIT, Signals
from tests.objectives import oracles

ROWS, CLASSES = 4, 5
GOLD = torch.tensor([0, 4, 2, 2])


def logits() -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, CLASSES, dtype=torch.float64) * 2
    return student, teacher


def loop(student: Tensor, teacher: Tensor, gold: int, temperature: float) -> tuple[float, float]:
    """TCKD and NCKD of one row."""
    s, t = (oracles.softmax([x / temperature for x in row.tolist()]) for row in (student, teacher))
    target = oracles.kl([t[gold], 1 - t[gold]], [s[gold], 1 - s[gold]])
    others = [[p / (1 - side[gold]) for at, p in enumerate(side) if at != gold] for side in (t, s)]
    return target, oracles.kl(*others)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_kd_is_the_loop(temperature: float) -> None:
    """Weights exchanged, or no T^2: both train, towards something else."""
    student, teacher = logits()
    expected = []
    for row, gold in enumerate(GOLD.tolist()):
        target, others = loop(student[row], teacher[row], gold, temperature)
        expected.append(temperature**2 * (0.5 * target + 3 * others))
    found = decoupled_kd(student, teacher, GOLD[:, None], temperature, alpha=0.5, beta=3.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_decoupled_kd_by_hand() -> None:
    """An oracle may share the mistake of what it checks; numbers worked out by hand do not."""
    student = torch.tensor([[1 / 4, 1 / 2, 1 / 4]], dtype=torch.float64).log()
    teacher = torch.tensor([[1 / 2, 1 / 4, 1 / 4]], dtype=torch.float64).log()
    gold = torch.tensor([[0]])
    target = math.log(4 / 3) / 2
    others = math.log(3 / 4) / 2 + math.log(3 / 2) / 2
    alone = [decoupled_kd(student, teacher, gold, 1.0, *pair).item() for pair in ((1, 0), (0, 1))]
    assert alone == pytest.approx([target, others], rel=1e-12)
    both = decoupled_kd(student, teacher, gold, 1.0, 1.0, 8.0).item()
    assert both == pytest.approx(target + 8 * others, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_parts_make_up_the_kl(temperature: float) -> None:
    """KL = TCKD + (1 - p) NCKD: whatever else the parts are, they must sum up to it."""
    student, teacher = logits()
    target, others = (
        decoupled_kd(student, teacher, GOLD[:, None], temperature, *pair)
        for pair in ((1, 0), (0, 1))
    )
    sure = (teacher / temperature).softmax(-1).gather(-1, GOLD[:, None]).squeeze(-1)
    expected = kl_divergence(student, teacher, temperature)
    torch.testing.assert_close(target + (1 - sure) * others, expected)


def test_gradient_keeps_its_size_at_high_temperature() -> None:
    """Without T^2 the term fades as 1 / T^2 beside the gold term."""
    student, teacher = logits()
    student.requires_grad_()
    near, far = (
        torch.autograd.grad(
            decoupled_kd(student, teacher, GOLD[:, None], temperature).sum(), student
        )[0]
        for temperature in (50.0, 500.0)
    )
    size = far.norm()
    torch.testing.assert_close(near / size, far / size, rtol=0.2, atol=0.02)
    assert size > 0.1


def test_others_are_compared_where_the_teacher_is_sure() -> None:
    """Subtracting a thousand from the gold logit is not enough where it is above a thousand."""
    student = torch.tensor([[4000.0, 1.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[3000.0, 2.0, 1.0]])
    value = decoupled_kd(student, teacher, torch.tensor([[0]]), 1.0, 1.0, 1.0)
    high, low = oracles.softmax([2.0, 1.0])
    assert value.item() == pytest.approx(oracles.kl([high, low], [low, high]), rel=1e-3)
    assert torch.autograd.grad(value.sum(), student)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_others_of_two_classes_say_nothing(dtype: torch.dtype) -> None:
    """The KL of one class with itself is 0, also where padding stands beside it."""
    student = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=dtype)
    teacher = torch.tensor([[0.0, 1.0], [2.0, 1.0]], dtype=dtype)
    gold = torch.tensor([[1], [0]])
    fill = torch.full_like(student, PADDING_LOGIT)
    for width in ([], [fill]):
        sides = [torch.cat([side, *width], -1) for side in (student, teacher)]
        found = decoupled_kd(*sides, gold, 2.0, 0.0, 1.0)
        assert (found == 0).all()
        whole = decoupled_kd(*sides, gold, 2.0, 1.0, 1.0)
        torch.testing.assert_close(whole, kl_divergence(student, teacher, 2.0))


def test_unlabelled_rows_have_no_part() -> None:
    """-100 as an index is another class on CPU and an abort on a GPU; NaN spreads by 0 * NaN."""
    student, teacher = torch.randn(2, 2, 3, CLASSES)
    student.requires_grad_()
    labels = torch.tensor([[-100, 1, 2], [-100, -100, 0]])
    labelled = labels != -100
    mask = torch.ones(2, 3).bool()
    mine = Signals(mask, logits=student, rows=labelled, labels=labels, labelled=labelled)
    values = DecoupledKD().forward(mine, Signals(mask, logits=teacher), ())
    assert values.isfinite().all()
    values[labelled].sum().backward()
    assert student.grad is not None
    assert (student.grad[~labelled] == 0).all()
    assert (student.grad[labelled] != 0).all()
    expected = decoupled_kd(student[0, 1], teacher[0, 1], torch.tensor([1]))
    torch.testing.assert_close(values[0, 1], expected)


def test_settings_reach_the_mathematics() -> None:
    """A setting that is accepted and not handed on is a hyper-parameter that does nothing."""
    student, teacher = logits()
    rows = torch.ones(ROWS).bool()
    mask = torch.ones(ROWS, 2).bool()
    mine = Signals(mask, logits=student, rows=rows, labels=GOLD, labelled=rows)
    found = DecoupledKD(2.0, 0.3, 5.0).forward(mine, Signals(mask, logits=teacher), ())
    expected = decoupled_kd(student, teacher, GOLD[:, None], 2.0, 0.3, 5.0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["alpha", "beta"])
@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan, "1", True])
def test_weights_are_not_negative(name: str, value: Any) -> None:
    """A negative weight drives the student away from the teacher."""
    with pytest.raises(ValueError, match=rf"{name} must be a finite number >= 0, got .*\. Use 0"):
        DecoupledKD(**{name: value})
