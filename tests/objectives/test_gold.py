"""Losses on gold labels against plain loops, and the traps of labels that are not there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hf_distill.objectives import CrossEntropy, SquaredError
from hf_distill.objectives.gold import binary_cross_entropy, cross_entropy, squared_error
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals.signals import Signals
from tests.objectives import oracles

ROWS, CLASSES = 4, 3


def logits() -> torch.Tensor:
    return torch.randn(ROWS, CLASSES, dtype=torch.float64) * 2


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_pytorchs(smoothing: float) -> None:
    """The gold term must be the loss that the head itself would have had."""
    student = logits()
    labels = torch.tensor([0, 2, 1, 1])
    found = cross_entropy(student, labels, torch.ones(ROWS).bool(), smoothing)
    softmaxes = [oracles.softmax(row.tolist()) for row in student]
    expected = [
        -(1 - smoothing) * math.log(row[label])
        - smoothing * oracles.mean([math.log(p) for p in row])
        for row, label in zip(softmaxes, labels.tolist(), strict=True)
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
    student = logits()
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


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan, "0.1", Schedule(0.0, 1.0)])
def test_label_smoothing_must_be_a_part(value: Any) -> None:
    """A smoothing of 1 forgets the gold label."""
    with pytest.raises(ValueError, match=r"label_smoothing must be a number >= 0 and < 1, got"):
        CrossEntropy(label_smoothing=value)


def test_missing_labels_say_the_remedy() -> None:
    """A dataset without labels fails in the first step; the message must say why."""
    mask = torch.ones(1, 2).bool()
    signals = Signals(mask, logits=torch.randn(1, 2, 3), rows=mask, labelled=mask)
    with pytest.raises(ValueError, match=r"signals must hold labels, got none\. Give"):
        CrossEntropy().forward(signals, signals, ())
