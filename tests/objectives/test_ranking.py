"""Scores among each other against plain loops over pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import MarginMSE, RankingKL
from hf_distill.objectives.ranking import margin_mse, ranking_kl
from hf_distill.signals.signals import Signals
from tests.objectives import oracles

ROWS, NUMBERS = 5, 2
ALL = torch.ones(ROWS, dtype=torch.bool)


def scores(numbers: int = NUMBERS) -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, numbers, dtype=torch.float64) * 2
    return student, teacher


def pairs(student: Tensor, teacher: Tensor, of_margins: Any) -> Tensor:
    """Mean over the other rows of a function of two margins, mean over the numbers."""
    values = []
    for i in range(len(student)):
        found = [
            of_margins(
                (student[i, c] - student[j, c]).item(), (teacher[i, c] - teacher[j, c]).item()
            )
            for j in range(len(student))
            if j != i
            for c in range(student.shape[1])
        ]
        values.append(oracles.mean(found))
    return torch.tensor(values, dtype=torch.float64)


def preference_kl(temperature: float) -> Any:
    def of_margins(mine: float, theirs: float) -> float:
        s, t = (1 / (1 + math.exp(-margin / temperature)) for margin in (mine, theirs))
        return temperature**2 * oracles.kl([t, 1 - t], [s, 1 - s])

    return of_margins


def test_margin_mse_is_the_loop_over_pairs() -> None:
    """The closed form without a matrix of pairs must not lose one, or add a row itself."""
    student, teacher = scores()
    expected = pairs(student, teacher, lambda mine, theirs: (mine - theirs) ** 2)
    torch.testing.assert_close(margin_mse(student, teacher, ALL), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_ranking_kl_is_the_loop_over_pairs(temperature: float) -> None:
    """The mean over N instead of N - 1 rows shrinks the loss of small batches."""
    student, teacher = scores()
    expected = pairs(student, teacher, preference_kl(temperature))
    torch.testing.assert_close(ranking_kl(student, teacher, ALL, temperature), expected)


def test_by_hand() -> None:
    """An oracle may share the mistake of what it checks; numbers worked out by hand do not."""
    student, teacher = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [0.0], [0.0]])
    every = torch.ones(3).bool()
    # Margins 1, 3 and 2 of the student, 0 of the teacher.
    expected = torch.tensor([(1 + 9) / 2, (1 + 4) / 2, (9 + 4) / 2])
    torch.testing.assert_close(margin_mse(student, teacher, every), expected)
    two = torch.ones(2).bool()
    student, teacher = torch.tensor([[math.log(3.0)], [0.0]]), torch.tensor([[1.0], [1.0]])
    # The student prefers the first with 3/4, the teacher neither.
    expected = torch.tensor([math.log(4 / 3) / 2] * 2)
    torch.testing.assert_close(ranking_kl(student, teacher, two), expected)


def test_ranking_kl_is_ranknet_without_the_teachers_entropy() -> None:
    """RankNet's cross-entropy is not 0 when equal; its gradient is the same."""
    student, teacher = scores(1)
    student.requires_grad_()
    margins, wanted = (side - side.T for side in (student, teacher))
    ranknet = torch.nn.functional.binary_cross_entropy_with_logits(
        margins, wanted.sigmoid(), reduction="none"
    )
    others = ranknet.sum() - ranknet.diagonal().sum()
    expected = torch.autograd.grad(others / (ROWS - 1), student)[0]
    found = torch.autograd.grad(ranking_kl(student, teacher, ALL).sum(), student)[0]
    torch.testing.assert_close(found, expected)
    assert (ranking_kl(teacher, teacher, ALL) == 0).all()


def test_high_temperature_asks_for_margins() -> None:
    """With another power of T than 2 the value vanishes or grows, and so does its gradient."""
    student, teacher = scores()
    far = ranking_kl(student, teacher, ALL, 1000.0)
    torch.testing.assert_close(far, margin_mse(student, teacher, ALL) / 8, rtol=1e-4, atol=0)


def test_the_scale_may_start_elsewhere() -> None:
    """Only differences are taught: a student that sits lower by a constant is not wrong."""
    student, teacher = scores()
    for compare in (margin_mse, ranking_kl):
        found = compare(student - 40.0, teacher, ALL)
        torch.testing.assert_close(found, compare(student, teacher, ALL))
        torch.testing.assert_close(
            compare(teacher - 40.0, teacher, ALL), torch.zeros(ROWS).double(), rtol=0, atol=1e-15
        )


def test_the_reverse_order_costs_most() -> None:
    """A loss that is the same for both directions of a margin teaches no order."""
    teacher = torch.tensor([[3.0], [1.0], [-2.0], [0.0], [-1.0]])
    for compare in (margin_mse, ranking_kl):
        right, flat, wrong = (compare(f * teacher, teacher, ALL).mean() for f in (0.8, 0.0, -1.0))
        assert right < flat < wrong


@pytest.mark.parametrize("compare", [margin_mse, ranking_kl])
def test_rows_that_do_not_count_have_no_part(compare: Any) -> None:
    """Pairs with rows that are not there would be pairs with whatever stands in their place."""
    student, teacher = scores()
    counted = torch.tensor([True, False, True, True, False])
    alone = compare(student[counted], teacher[counted], torch.ones(3).bool())
    for garbage in (0.0, 300.0, math.inf):
        mine, theirs = student.clone(), teacher.clone()
        mine[~counted], theirs[~counted] = garbage, -garbage
        mine.requires_grad_()
        found = compare(mine, theirs, counted)
        assert found.isfinite().all()
        torch.testing.assert_close(found[counted], alone)
        gradient = torch.autograd.grad(found[counted].sum(), mine)[0]
        assert (gradient[~counted] == 0).all()
        assert (gradient[counted] != 0).all()


@pytest.mark.parametrize("compare", [margin_mse, ranking_kl])
@pytest.mark.parametrize("counted", [[True], [False], [True, False], []])
def test_a_row_without_others_is_worth_nothing(compare: Any, counted: list[bool]) -> None:
    """The last batch of an epoch may hold one row: 0 / 0."""
    mask = torch.tensor(counted, dtype=torch.bool)
    student = torch.randn(len(counted), 1, requires_grad=True)
    values = compare(student, torch.randn(len(counted), 1), mask)
    assert (values[mask] == 0).all()
    gradient = torch.autograd.grad(values[mask].sum(), student)[0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("compare", [margin_mse, ranking_kl])
def test_rows_keep_their_shape(compare: Any) -> None:
    """[B, 1] of one number per sequence against [B] broadcasts to a matrix of pairs."""
    student, teacher = scores(1)
    assert compare(student, teacher, ALL).shape == (ROWS,)
    with pytest.raises(ValueError, match=r"target must have the student's shape"):
        compare(student, teacher[:, 0], ALL)


def test_settings_reach_the_mathematics() -> None:
    """A setting that is accepted and not handed on is a hyper-parameter that does nothing."""
    student, teacher = scores()
    counted = torch.tensor([True, False, True, True, True])
    mine = Signals(torch.ones(ROWS, 2).bool(), logits=student, rows=counted)
    shown = Signals(mine.mask, logits=teacher)
    expected = ranking_kl(student, teacher, counted, 2.5)
    torch.testing.assert_close(RankingKL(2.5).forward(mine, shown, ()), expected)
    expected = margin_mse(student, teacher, counted)
    torch.testing.assert_close(MarginMSE().forward(mine, shown, ()), expected)
    assert MarginMSE.compares_batch
    assert RankingKL.compares_batch
