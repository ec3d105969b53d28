"""Hidden-state losses against plain loops."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import PKD, HiddenCosine, HiddenKL, HiddenMSE
from hf_distill.objectives.hidden import hidden_cosine, hidden_kl, hidden_mse
from hf_distill.objectives.pooling import pooled
from hf_distill.signals.signals import Signals
from tests.objectives import oracles
from tests.objectives.examples import PAIRS, batch, collate

B, T, D = 2, 3, 4


def states() -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, B, T, D, dtype=torch.float64)
    return student, teacher


def per_token(compare: Any, student: Tensor, teacher: Tensor) -> Tensor:
    rows = [
        [compare(student[b, t].tolist(), teacher[b, t].tolist()) for t in range(T)]
        for b in range(B)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def test_hidden_mse_is_the_mean_over_the_width() -> None:
    """A sum over the width makes the same weight mean something else at every size."""
    student, teacher = states()
    expected = per_token(lambda s, t: oracles.squared_distance(s, t) / D, student, teacher)
    torch.testing.assert_close(hidden_mse(student, teacher), expected)


def test_normalized_hidden_mse_sees_directions_only() -> None:
    """A few huge channels own the plain loss; normalised, length must not matter."""
    student, teacher = states()
    expected = per_token(
        lambda s, t: oracles.squared_distance(oracles.unit(s), oracles.unit(t)) / D,
        student,
        teacher,
    )
    torch.testing.assert_close(hidden_mse(student, teacher, normalize=True), expected)
    torch.testing.assert_close(hidden_mse(9 * student, teacher, normalize=True), expected)


def test_hidden_cosine_is_one_minus_cosine() -> None:
    """A cosine embedding loss with a margin or a wrong target sign falls as well."""
    student, teacher = states()
    expected = per_token(
        lambda s, t: 1 - oracles.inner(oracles.unit(s), oracles.unit(t)), student, teacher
    )
    torch.testing.assert_close(hidden_cosine(student, teacher), expected)
    torch.testing.assert_close(hidden_cosine(student, -student), torch.full((B, T), 2.0).double())


def test_hidden_cosine_of_equal_states_is_exactly_zero() -> None:
    """1 - cosine rounds to +-6e-8 in float32: a perfect student has a loss below 0."""
    student = torch.randn(50, 7, 33)
    assert (hidden_cosine(student, student) == 0).all()


def test_hidden_kl_is_teacher_relative_to_student_over_the_width() -> None:
    """A softmax over tokens, or the divergence turned round, trains towards something else."""
    student, teacher = states()
    expected = per_token(
        lambda s, t: oracles.kl(oracles.softmax(t), oracles.softmax(s)), student, teacher
    )
    torch.testing.assert_close(hidden_kl(student, teacher), expected)


def test_hidden_kl_by_hand() -> None:
    """Teacher 3 to 1 and student 1 to 1: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    found = hidden_kl(torch.tensor([[7.0, 7.0]]), teacher)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))


MASK = torch.tensor([[True, True, False], [False, True, True], [False, False, False]])


def test_pooled_first_is_the_first_real_token() -> None:
    """Position 0 of a left-padded batch is padding: the loss would compare nothing."""
    hidden = torch.randn(3, T, D)
    found, real = pooled(hidden, MASK, "first")
    assert torch.equal(found, torch.stack([hidden[0, 0], hidden[1, 1], torch.zeros(D)]))
    assert real.tolist() == [True, True, False]


def test_pooled_mean_is_over_the_real_tokens() -> None:
    """A mean over padding pulls short sentences towards each other."""
    hidden = torch.randn(3, T, D)
    found, real = pooled(hidden, MASK, "mean")
    expected = [hidden[0, :2].mean(0), hidden[1, 1:].mean(0), torch.zeros(D)]
    torch.testing.assert_close(found, torch.stack(expected))
    assert real.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("objective", "compare"),
    [
        (HiddenMSE(pooling="mean"), hidden_mse),
        (HiddenMSE(normalize=True, pooling="first"), partial(hidden_mse, normalize=True)),
        (HiddenCosine(pooling="mean"), hidden_cosine),
        (HiddenKL(pooling="first"), hidden_kl),
    ],
)
def test_pooled_losses_compare_one_state_of_each_sentence(objective: Any, compare: Any) -> None:
    """Losses of tokens that are averaged later are not the loss of the averaged state."""
    student, teacher = torch.randn(2, 3, T, D, dtype=torch.float64)
    shown = Signals(MASK, hidden={1: student}), Signals(MASK, hidden={1: teacher})
    expected = compare(*(pooled(side, MASK, objective.pooling)[0] for side in (student, teacher)))
    torch.testing.assert_close(objective.forward(*shown, ((1, 1),)), expected)
    assert expected[2] == 0


def test_what_is_counted_follows_the_pooling() -> None:
    """A sentence's value that is counted by tokens would not fit the mask, or weigh by length."""
    for kind in (HiddenMSE, HiddenCosine, HiddenKL):
        assert kind().unit == kind.unit == "token"
        assert kind(pooling="mean").unit == kind(pooling="first").unit == "sequence"


def test_pooling_must_be_known() -> None:
    """An unknown pooling that falls back to another compares something else than was asked."""
    with pytest.raises(ValueError, match="pooling must be one of tokens, mean, first, got 'cls'"):
        HiddenMSE(pooling="cls")  # type: ignore[arg-type]


def test_pkd_is_the_papers() -> None:
    """The mean over the width is 768 times smaller than the squared distance of the paper."""
    student, teacher = torch.randn(2, 3, T, D, dtype=torch.float64)
    expected = [
        oracles.squared_distance(
            oracles.unit(student[b, first].tolist()), oracles.unit(teacher[b, first].tolist())
        )
        for b, first in ((0, 0), (1, 1))
    ]
    shown = Signals(MASK, hidden={1: student}), Signals(MASK, hidden={1: teacher})
    torch.testing.assert_close(
        PKD().forward(*shown, ((1, 1),)), torch.tensor([*expected, 0], dtype=torch.float64)
    )


def test_zero_states_have_finite_gradients() -> None:
    """The length of a zero vector has no derivative; one dead token would make weights NaN."""
    student = torch.zeros(1, 1, D, requires_grad=True)
    teacher = torch.randn(1, 1, D)
    (hidden_cosine(student, teacher) + hidden_mse(student, teacher, True)).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_width_of_one_does_not_broadcast() -> None:
    """A width of 1 would be compared with every channel of the teacher."""
    with pytest.raises(ValueError, match="target must have the student's shape"):
        hidden_mse(torch.randn(B, T, 1), torch.randn(B, T, D))


@pytest.mark.parametrize(
    "objective", [HiddenMSE(), HiddenMSE(True), HiddenCosine(), HiddenKL(), PKD()]
)
def test_pairs_are_averaged_and_student_first(objective: Any) -> None:
    """Layers swapped between the sides still train, towards the wrong layer."""
    student = collate(batch((3, 2), 0, {"hidden"}))
    teacher = collate(batch((3, 2), 9, {"hidden"}))
    each = [objective.forward(student, teacher, (pair,)) for pair in PAIRS]
    torch.testing.assert_close(
        objective.forward(student, teacher, PAIRS), torch.stack(each).mean(0)
    )
    swapped = [objective.forward(student, teacher, (pair[::-1],)) for pair in PAIRS]
    assert not torch.allclose(each[0], swapped[0])


def test_normalize_must_be_a_truth_value() -> None:
    """The string "false" is true."""
    with pytest.raises(ValueError, match="normalize must be true or false, got 'false'"):
        HiddenMSE(normalize="false")  # type: ignore[arg-type]
