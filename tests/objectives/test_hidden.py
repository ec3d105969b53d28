"""Hidden-state losses against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import PKD, HiddenCosine, HiddenMSE
from hf_distill.objectives.hidden import hidden_cosine, hidden_mse, pkd
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


def test_pkd_compares_the_first_real_token() -> None:
    """Position 0 of a left-padded batch is padding: the loss would compare nothing."""
    student, teacher = states()
    mask = torch.tensor([[True, True, False], [False, True, True]])
    expected = [
        oracles.squared_distance(
            oracles.unit(student[b, first].tolist()), oracles.unit(teacher[b, first].tolist())
        )
        for b, first in ((0, 0), (1, 1))
    ]
    torch.testing.assert_close(
        pkd(student, teacher, mask), torch.tensor(expected, dtype=torch.float64)
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


@pytest.mark.parametrize("objective", [HiddenMSE(), HiddenMSE(True), HiddenCosine(), PKD()])
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
