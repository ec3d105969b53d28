"""Distributions in log space: mixtures, and places gathered into one."""

from __future__ import annotations

import math

import pytest
import torch

from hf_distill.objectives.divergence import (
    bernoulli_kl,
    gathered,
    log_mixture,
    log_probabilities,
)

SMALLEST = torch.finfo(torch.float32).min


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_log_mixture_is_the_log_of_the_mixture(share: float) -> None:
    """The share on the wrong side turns a skewed KL into nearly none at all."""
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64).log_softmax(-1)
    expected = (share * teacher.exp() + (1 - share) * student.exp()).log()
    torch.testing.assert_close(log_mixture(student, teacher, share), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_mixture_of_equals_is_exactly_itself(dtype: torch.dtype) -> None:
    """log(0.1 p + 0.9 p) is not log(p) to the last bit, and equal models would differ."""
    values = torch.randn(1000, dtype=dtype) * 50
    for share in (0.1, 0.3, 1 / 3, 0.7):
        assert torch.equal(log_mixture(values, values, share), values)


def test_log_mixture_is_finite_where_one_side_rules_a_place_out() -> None:
    """exp(teacher - student) overflows from 89 on, and inf - inf is NaN in the gradient."""
    student = torch.tensor([-1e4, 0.0, SMALLEST, 0.0, SMALLEST], requires_grad=True)
    teacher = torch.tensor([0.0, -1e4, 0.0, SMALLEST, SMALLEST])
    mixture = log_mixture(student, teacher, 0.1)
    expected = [math.log(0.1), math.log(0.9), math.log(0.1), math.log(0.9), SMALLEST]
    torch.testing.assert_close(mixture, torch.tensor(expected))
    mixture.sum().backward()
    assert student.grad is not None
    # The student's part of each place.
    torch.testing.assert_close(student.grad, torch.tensor([0.0, 1.0, 0.0, 1.0, 0.9]))


def test_log_mixture_has_its_gradient_where_both_are_equal() -> None:
    """Cut in two at equality, a formula may lose the gradient of exactly that point."""
    student = torch.tensor([-1.0, -1.0, -1.0], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([-1.0 - 1e-9, -1.0, -1.0 + 1e-9], dtype=torch.float64)
    log_mixture(student, teacher, 0.3).sum().backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.full_like(student, 0.7))


def test_gathered_places_hold_all_of_the_mass() -> None:
    """Dropping the others, or normalising without them, would compare other distributions."""
    scores = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64).log()
    found = gathered(scores, torch.tensor([[2, 0]]))
    torch.testing.assert_close(found.exp(), torch.tensor([[3.0, 1.0, 6.0]]).double())
    torch.testing.assert_close(
        found.softmax(-1), gathered(scores.log_softmax(-1), torch.tensor([[2, 0]])).exp()
    )


def test_gathered_scores_may_be_of_any_size() -> None:
    """A place taken out by a number like -1e4 comes back where the scores are lower still."""
    scores = torch.full((1, 3), -3e4, dtype=torch.float64)
    found = gathered(scores, torch.tensor([[1]])).softmax(-1)
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 2 / 3]]).double())


def test_gathered_without_others_is_finite() -> None:
    """The logarithm of an empty sum is -inf, and 0 * inf is NaN."""
    scores = torch.randn(2, 3, requires_grad=True)
    found = gathered(scores, torch.tensor([[0, 1, 2], [2, 1, 0]])).log_softmax(-1)
    assert found.isfinite().all()
    assert (found[:, -1].exp() == 0).all()
    found.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


def test_places_that_do_not_exist_are_not_gathered() -> None:
    """Padding in the rest would give it mass by the number of padding tokens."""
    real = torch.tensor([[True, True, True, False, False]])
    scores = log_probabilities(torch.zeros(1, 5), real)
    found = gathered(scores, torch.tensor([[0]])).exp()
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 2 / 3]]))


def test_bernoulli_kl_by_hand() -> None:
    """The reverse direction, or the yes without the no, still trains towards something."""
    # Student 3/4, teacher 1/2: 1/2 log(2/3) + 1/2 log(2).
    student, teacher = torch.tensor([math.log(3.0)]).double(), torch.zeros(1).double()
    assert bernoulli_kl(student, teacher).item() == pytest.approx(math.log(4 / 3) / 2)
