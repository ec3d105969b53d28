"""The traps of logits that all losses on them share: padding, class counts, kinds of head."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill import objectives
from hf_distill.objectives import LogitMSE, SigmoidKL
from hf_distill.objectives.base import Objective
from hf_distill.objectives.class_divergence import (
    ClassDivergence,
    jensen_shannon,
    kl_divergence,
    reverse_kl,
    skewed_kl,
    soft_cross_entropy,
    symmetric_kl,
    total_variation,
)
from hf_distill.objectives.decoupled import decoupled_kd
from hf_distill.objectives.gold import CrossEntropy, cross_entropy
from hf_distill.objectives.logits import logit_mse, sigmoid_kl
from hf_distill.signals.signals import PADDING_LOGIT, Signals

GOLD = torch.tensor([[2]])
DIVERGENCES: list[Any] = [
    kl_divergence,
    soft_cross_entropy,
    reverse_kl,
    symmetric_kl,
    skewed_kl,
    jensen_shannon,
    total_variation,
]
SOFTENED = [
    *DIVERGENCES,
    *(partial(divergence, top_k=2) for divergence in DIVERGENCES),
    lambda student, teacher, temperature=2.0: decoupled_kd(student, teacher, GOLD, temperature),
]
SOFTMAX = (objectives.DecoupledKD, objectives.DIST, *ClassDivergence.__subclasses__())


def padded(row: list[float], fill: float = PADDING_LOGIT) -> Tensor:
    return torch.tensor([[*row, fill, fill]], dtype=torch.float64)


@pytest.mark.parametrize("compare", [*DIVERGENCES, logit_mse, sigmoid_kl])
def test_different_class_counts_are_refused(compare: Any) -> None:
    """One class broadcasts against any number, without a word."""
    with pytest.raises(ValueError, match=r"target must have the student's shape"):
        compare(torch.randn(2, 3), torch.randn(2, 1))


@pytest.mark.parametrize("compare", SOFTENED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_span_padding_is_no_class(compare: Any, dtype: torch.dtype, temperature: float) -> None:
    """Softened padding gets probability back, and takes it from the tokens that are there."""
    mine, theirs = [0.5, -1.0, 2.0], [1.0, 0.0, -1.5]
    short = [torch.tensor([row], dtype=torch.float64).to(dtype) for row in (mine, theirs)]
    # The two sides need not agree on the fill.
    long = [padded(mine).to(dtype), padded(theirs, -6e4).to(dtype)]
    torch.testing.assert_close(compare(*long, temperature), compare(*short, temperature))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_span_padding_is_no_part_of_a_mean(dtype: torch.dtype) -> None:
    """Padding dilutes what is averaged over classes, by the length of the longest text."""
    mine, theirs = [0.5, -1.0, 2.0], [1.0, 0.0, -1.5]
    short = [torch.tensor([row], dtype=torch.float64).to(dtype) for row in (mine, theirs)]
    long = [padded(mine).to(dtype), padded(theirs, -6e4).to(dtype)]
    torch.testing.assert_close(logit_mse(*long), logit_mse(*short))
    gold = torch.tensor([2]), torch.tensor([True]), 0.3
    torch.testing.assert_close(cross_entropy(long[0], *gold), cross_entropy(short[0], *gold))


@pytest.mark.parametrize("compare", [*SOFTENED, logit_mse])
def test_span_padding_gets_no_gradient(compare: Any) -> None:
    """Gradient on padding moves the head's weights by what tokens nobody reads."""
    student = padded([0.5, -1.0, 2.0]).requires_grad_()
    compare(student, padded([1.0, 0.0, -1.5], -2e4)).sum().backward()
    assert student.grad is not None
    assert (student.grad[0, 3:] == 0).all()
    assert (student.grad[0, :3] != 0).all()


def test_a_class_that_one_side_rules_out_is_a_class() -> None:
    """Padding is what both sides fill; dropping one side's certainty would hide a difference."""
    student, teacher = padded([0.0, 1.0]), torch.tensor([[0.0, 1.0, 2.0, 2.0]]).double()
    assert kl_divergence(student, teacher, 1.0).item() > 1000
    assert reverse_kl(teacher, student, 1.0).item() > 1000
    assert total_variation(student, teacher, 1.0).item() > 0.5
    assert logit_mse(student, teacher).item() > 1e7


def test_catalogue_of_softmaxes_is_complete() -> None:
    """A divergence that is left out here is checked by nothing below."""
    assert {kind.__name__ for kind in SOFTMAX} <= set(objectives.__all__)
    assert len(SOFTMAX) == len(DIVERGENCES) + 2


@pytest.mark.parametrize("kind", SOFTMAX)
def test_softmaxes_serve_exclusive_classes_only(kind: type[Objective]) -> None:
    """On independent classes a softmax makes them compete; on one number its gradient is 0."""
    assert kind.problems == {"single_label"}
    student = torch.randn(4, 1, requires_grad=True)
    signals = Signals(
        mask=torch.ones(4, 2).bool(),
        logits=student,
        rows=torch.ones(4).bool(),
        labels=torch.zeros(4).long(),
        labelled=torch.ones(4).bool(),
    )
    kind().forward(signals, Signals(signals.mask, logits=torch.randn(4, 1)), ()).sum().backward()
    assert student.grad is not None
    assert (student.grad == 0).all()


def test_others_serve_the_heads_whose_numbers_they_understand() -> None:
    """A sigmoid of exclusive classes, or a ranking of classes, trains without a word."""
    assert objectives.SigmoidKL.problems == {"multi_label"}
    assert objectives.BinaryCrossEntropy.problems == {"multi_label"}
    assert objectives.CrossEntropy.problems == {"single_label"}
    for kind in (objectives.SquaredError, objectives.MarginMSE, objectives.RankingKL):
        assert kind.problems == {"regression"}


@pytest.mark.parametrize("kind", [*SOFTMAX, SigmoidKL, objectives.RankingKL])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "2e0", True])
def test_temperature_must_be_positive(kind: Any, value: Any) -> None:
    """YAML reads 2e0 as a string, and a temperature of 0 gives NaN in the first step."""
    with pytest.raises(ValueError, match=r"temperature must be a finite number > 0, got .*\. Use"):
        kind(temperature=value)


@pytest.mark.parametrize("objective", [LogitMSE(), CrossEntropy()])
def test_missing_logits_say_the_remedy(objective: Any) -> None:
    """A headless model fails in the first step; the message must say why."""
    mask = torch.ones(1, 2).bool()
    signals = Signals(mask, rows=mask, labels=mask.long(), labelled=mask)
    with pytest.raises(ValueError, match=r"signals must hold logits, got none\. Give"):
        objective.forward(signals, signals, ())
