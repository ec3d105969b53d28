"""Losses on logits against plain loops, and the traps of spans, labels and temperatures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_distill.objectives import (
    CrossEntropy,
    KLDivergence,
    LogitMSE,
    SigmoidKL,
    SoftCrossEntropy,
    SquaredError,
)
from hf_distill.objectives.class_divergence import kl_divergence, soft_cross_entropy
from hf_distill.objectives.gold import binary_cross_entropy, cross_entropy, squared_error
from hf_distill.objectives.logits import logit_mse, sigmoid_kl
from hf_distill.signals.signals import PADDING_LOGIT, Signals
from tests.objectives import oracles

ROWS, CLASSES = 4, 3


def logits() -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, CLASSES, dtype=torch.float64) * 2
    return student, teacher


def softened(row: Tensor, temperature: float) -> list[float]:
    return oracles.softmax([x / temperature for x in row.tolist()])


def padded(row: list[float], fill: float = PADDING_LOGIT) -> Tensor:
    return torch.tensor([[*row, fill, fill]], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_kl_divergence_is_teacher_relative_to_student(temperature: float) -> None:
    """KL in PyTorch's argument order is the reverse one: it drops the teacher's small classes."""
    student, teacher = logits()
    expected = [
        temperature**2 * oracles.kl(softened(t, temperature), softened(s, temperature))
        for s, t in zip(student, teacher, strict=True)
    ]
    found = kl_divergence(student, teacher, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert not torch.allclose(found, kl_divergence(teacher, student, temperature), rtol=1e-2)


def test_gradient_keeps_its_size_at_high_temperature() -> None:
    """Without T^2 the soft term fades as 1 / T^2 beside the gold term."""
    student, teacher = logits()
    student.requires_grad_()
    near, far = (
        torch.autograd.grad(kl_divergence(student, teacher, temperature).sum(), student)[0]
        for temperature in (50.0, 500.0)
    )
    torch.testing.assert_close(near, far, rtol=0.2, atol=0.01)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy(temperature: float) -> None:
    """A cross-entropy called KL never reaches 0, and runs look worse than they are."""
    student, teacher = logits()
    expected = [
        -(temperature**2)
        * sum(
            p * math.log(q)
            for p, q in zip(softened(t, temperature), softened(s, temperature), strict=True)
        )
        for s, t in zip(student, teacher, strict=True)
    ]
    found = soft_cross_entropy(student, teacher, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


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


def test_sigmoid_kl_is_finite_for_certain_classes() -> None:
    """log(sigmoid(x)) is -inf from x = -104 on in float32, and 0 * inf is NaN."""
    student = torch.tensor([[-4000.0, 4000.0]], requires_grad=True)
    loss = sigmoid_kl(student, torch.tensor([[4000.0, 4000.0]]), 1.0).sum()
    loss.backward()
    assert loss.item() == pytest.approx(2000.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_pytorchs(smoothing: float) -> None:
    """The gold term must be the loss that the head itself would have had."""
    student, _ = logits()
    labels = torch.tensor([0, 2, 1, 1])
    found = cross_entropy(student, labels, torch.ones(ROWS).bool(), smoothing)
    expected = [
        -(1 - smoothing) * math.log(softened(row, 1)[label])
        - smoothing * oracles.mean([math.log(p) for p in softened(row, 1)])
        for row, label in zip(student, labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    theirs = F.cross_entropy(student, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(found, theirs)


def test_unlabelled_rows_have_no_part() -> None:
    """-100 as an index is the last class but 99 on CPU, an abort of the process on a GPU."""
    student = torch.randn(2, 3, CLASSES, requires_grad=True)
    labels = torch.tensor([[-100, 1, 2], [-100, -100, 0]])
    labelled = labels != -100
    values = cross_entropy(student, labels, labelled, 0.1)
    values[labelled].sum().backward()
    assert values.isfinite().all()
    assert student.grad is not None
    assert (student.grad[~labelled] == 0).all()
    assert (student.grad[labelled] != 0).all()


def test_binary_cross_entropy_is_the_mean_over_classes() -> None:
    """Hugging Face heads average; a sum would change the balance against the teacher's term."""
    student, _ = logits()
    labels = torch.randint(0, 2, student.shape)
    expected = [
        -oracles.mean(
            [
                math.log(1 / (1 + math.exp(-x if gold else x)))
                for x, gold in zip(row.tolist(), golds.tolist(), strict=True)
            ]
        )
        for row, golds in zip(student, labels, strict=True)
    ]
    found = binary_cross_entropy(student, labels)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_squared_error_counts_numbers_that_look_like_padding() -> None:
    """Gold numbers may be far below zero: only logits of spans have padding."""
    student = torch.tensor([[-30000.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([[-30002.0, 4.0]])
    assert squared_error(student, labels).tolist() == [6.5]


def test_regression_labels_do_not_broadcast() -> None:
    """[B] against [B, 1] broadcasts to [B, B]: the student learns everybody's mean."""
    signals = Signals(
        mask=torch.ones(3, 2).bool(),
        logits=torch.randn(3, 1),
        rows=torch.ones(3).bool(),
        labels=torch.randn(3),
        labelled=torch.ones(3).bool(),
    )
    with pytest.raises(ValueError, match=r"target must have the student's shape \(3, 1\), got"):
        SquaredError().forward(signals, signals, ())


@pytest.mark.parametrize("compare", [kl_divergence, soft_cross_entropy, logit_mse, sigmoid_kl])
def test_different_class_counts_are_refused(compare: Any) -> None:
    """One class broadcasts against any number, without a word."""
    with pytest.raises(ValueError, match=r"target must have the student's shape"):
        compare(torch.randn(2, 3), torch.randn(2, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_span_padding_is_no_class(dtype: torch.dtype, temperature: float) -> None:
    """Softened padding gets probability back, and dilutes what is averaged over classes."""
    mine, theirs = [0.5, -1.0, 2.0], [1.0, 0.0, -1.5]
    short = [torch.tensor([row], dtype=torch.float64).to(dtype) for row in (mine, theirs)]
    # The two sides need not agree on the fill.
    long = [padded(mine).to(dtype), padded(theirs, -6e4).to(dtype)]
    losses: tuple[Any, ...] = (kl_divergence, soft_cross_entropy)
    for compare in losses:
        torch.testing.assert_close(compare(*long, temperature), compare(*short, temperature))
    torch.testing.assert_close(logit_mse(*long), logit_mse(*short))
    gold = torch.tensor([2]), torch.tensor([True]), 0.3
    torch.testing.assert_close(cross_entropy(long[0], *gold), cross_entropy(short[0], *gold))


def test_span_padding_gets_no_gradient() -> None:
    """Gradient on padding moves the head's weights by what tokens nobody reads."""
    for compare in (kl_divergence, soft_cross_entropy, logit_mse):
        student = padded([0.5, -1.0, 2.0]).requires_grad_()
        compare(student, padded([1.0, 0.0, -1.5], -2e4)).sum().backward()
        assert student.grad is not None
        assert (student.grad[0, 3:] == 0).all()
        assert (student.grad[0, :3] != 0).all()


def test_a_class_that_one_side_rules_out_is_a_class() -> None:
    """Padding is what both sides fill; dropping one side's certainty would hide a difference."""
    student, teacher = padded([0.0, 1.0]), torch.tensor([[0.0, 1.0, 2.0, 2.0]]).double()
    assert kl_divergence(student, teacher, 1.0).item() > 1000
    assert logit_mse(student, teacher).item() > 1e7


@pytest.mark.parametrize("objective", [KLDivergence, SoftCrossEntropy, SigmoidKL])
@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "2e0", True])
def test_temperature_must_be_positive(objective: Any, value: Any) -> None:
    """YAML reads 2e0 as a string, and a temperature of 0 gives NaN in the first step."""
    with pytest.raises(ValueError, match=r"temperature must be a finite number > 0, got .*\. Use"):
        objective(temperature=value)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan, "0.1"])
def test_label_smoothing_must_be_a_part(value: Any) -> None:
    """A smoothing of 1 forgets the gold label."""
    with pytest.raises(ValueError, match=r"label_smoothing must be a number >= 0 and < 1, got"):
        CrossEntropy(label_smoothing=value)


@pytest.mark.parametrize("objective", [LogitMSE(), CrossEntropy()])
def test_missing_logits_say_the_remedy(objective: Any) -> None:
    """A headless model fails in the first step; the message must say why."""
    mask = torch.ones(1, 2).bool()
    signals = Signals(mask, rows=mask, labels=mask.long(), labelled=mask)
    with pytest.raises(ValueError, match=r"signals must hold logits, got none\. Give"):
        objective.forward(signals, signals, ())


def test_missing_labels_say_the_remedy() -> None:
    """A dataset without labels fails in the first step; the message must say why."""
    mask = torch.ones(1, 2).bool()
    signals = Signals(mask, logits=torch.randn(1, 2, 3), rows=mask, labelled=mask)
    with pytest.raises(ValueError, match=r"signals must hold labels, got none\. Give"):
        CrossEntropy().forward(signals, signals, ())
