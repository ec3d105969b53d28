"""Losses on single logits against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hf_distill.objectives.logits import logit_mse, sigmoid_kl
from tests.objectives import oracles

ROWS, CLASSES = 4, 3


def logits() -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, CLASSES, dtype=torch.float64) * 2
    return student, teacher


def test_logit_mse_is_the_mean_over_classes() -> None:
    """A sum over classes would weigh a task by its number of labels."""
    student, teacher = logits()
    expected = [
        oracles.squared_distance(s.tolist(), t.tolist()) / CLASSES
        for s, t in zip(student, teacher, strict=True)
    ]
    found = logit_mse(student, teacher)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sigmoid_kl_is_the_mean_bernoulli_kl(temperature: float) -> None:
    """Softmax over independent classes makes them compete; a sum weighs by their number."""
    student, teacher = logits()

    def chances(logit: Tensor) -> list[float]:
        yes = 1 / (1 + math.exp(-logit.item() / temperature))
        return [yes, 1 - yes]

    expected = [
        temperature**2
        * oracles.mean([oracles.kl(chances(y), chances(x)) for x, y in zip(s, t, strict=True)])
        for s, t in zip(student, teacher, strict=True)
    ]
    found = sigmoid_kl(student, teacher, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_sigmoid_kl_keeps_the_size_of_its_gradient() -> None:
    """Without T^2 the soft term fades as 1 / T^2 beside the gold term."""
    student, teacher = logits()
    student.requires_grad_()
    near, far = (
        torch.autograd.grad(sigmoid_kl(student, teacher, temperature).sum(), student)[0]
        for temperature in (50.0, 500.0)
    )
    size = far.norm()
    torch.testing.assert_close(near / size, far / size, rtol=0.2, atol=0.02)
    assert size > 0.1


def test_sigmoid_kl_is_finite_for_certain_classes() -> None:
    """log(sigmoid(x)) is -inf from x = -104 on in float32, and 0 * inf is NaN."""
    student = torch.tensor([[-4000.0, 4000.0]], requires_grad=True)
    loss = sigmoid_kl(student, torch.tensor([[4000.0, 4000.0]]), 1.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(2000.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()
