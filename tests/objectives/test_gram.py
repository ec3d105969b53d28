"""Inner products within a sentence against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import FSP, NST, TokenGramMSE
from hf_distill.objectives.gram import fsp, nst, token_gram_mse
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

MASK = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]]).bool()


def states(width: int) -> Tensor:
    """[3, 4, D], with garbage on padding."""
    return torch.randn(3, 4, width, dtype=torch.float64).masked_fill(~MASK[..., None], 7.0)


def real_tokens(hidden: Tensor, b: int) -> list[list[float]]:
    found: list[list[float]] = hidden[b][MASK[b]].tolist()
    return found


@pytest.mark.parametrize("normalize", [True, False])
def test_token_gram_mse_is_the_loop(normalize: bool) -> None:
    """A mean over all positions shrinks with the batch's padding."""
    student, teacher = states(5), states(3)
    expected = torch.zeros(3, 4, dtype=torch.float64)

    def gram(hidden: Tensor, b: int) -> list[list[float]]:
        rows = real_tokens(hidden, b)
        if normalize:
            rows = [oracles.unit(row) for row in rows]
            return [[oracles.inner(x, y) for y in rows] for x in rows]
        return [[oracles.inner(x, y) / len(x) for y in rows] for x in rows]

    for b in range(3):
        places = MASK[b].nonzero().flatten().tolist()
        for t, mine, theirs in zip(places, gram(student, b), gram(teacher, b), strict=True):
            expected[b, t] = oracles.squared_distance(mine, theirs) / len(places)
    found = token_gram_mse(student, teacher, MASK, normalize)
    torch.testing.assert_close(found[MASK], expected[MASK])


def neurons(hidden: Tensor, b: int) -> list[list[float]]:
    return [oracles.unit(pattern) for pattern in zip(*real_tokens(hidden, b), strict=True)]


def test_nst_is_the_three_means_of_the_kernel() -> None:
    """Tokens at length 1 instead of neurons, or one mean forgotten, is another discrepancy."""
    student, teacher = states(5), states(3)

    def mean_kernel(left: list[list[float]], right: list[list[float]]) -> float:
        return oracles.mean([oracles.inner(x, y) ** 2 for x in left for y in right])

    expected = []
    for b in range(3):
        mine, theirs = neurons(student, b), neurons(teacher, b)
        expected.append(
            mean_kernel(mine, mine) + mean_kernel(theirs, theirs) - 2 * mean_kernel(mine, theirs)
        )
    found = nst(student, teacher, MASK)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_nst_by_hand() -> None:
    """Neurons that respond to token 1 only against neurons that respond to token 2 only: 2."""
    first = torch.tensor([[[3.0, 5.0], [0.0, 0.0]]])
    second = torch.tensor([[[0.0], [-2.0]]])
    both = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mask = torch.ones(1, 2).bool()
    assert nst(first, second, mask).item() == pytest.approx(2)
    assert nst(first, both, mask).item() == pytest.approx(0.5)


def test_nst_does_not_ask_which_neuron_responds() -> None:
    """Neurons have no names: the student's stand in another order, with another sign and scale."""
    teacher = states(4)
    student = -3 * teacher[..., [2, 0, 3, 1]]
    torch.testing.assert_close(nst(student, teacher, MASK), torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("normalize", [True, False])
def test_fsp_is_the_loop(normalize: bool) -> None:
    """A flow divided by the padded length, or with its layers swapped, is another."""
    student, teacher = (states(3), states(3)), (states(3), states(3))

    def flow(side: tuple[Tensor, Tensor], b: int) -> list[float]:
        lower, upper = (real_tokens(hidden, b) for hidden in side)
        if normalize:
            lower, upper = ([oracles.unit(row) for row in rows] for rows in (lower, upper))
        return [
            oracles.mean([x[i] * y[j] for x, y in zip(lower, upper, strict=True)])
            for i in range(3)
            for j in range(3)
        ]

    expected = [oracles.squared_distance(flow(student, b), flow(teacher, b)) for b in range(3)]
    found = fsp(student, teacher, MASK, normalize)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    swapped = fsp(student, (teacher[1], teacher[0]), MASK, normalize)
    assert not torch.allclose(found, swapped)


def test_fsp_by_hand() -> None:
    """Flows (1, 0; 0, 0) and (0, 1; 0, 0) of one token: 2; at twice the size, 2 * 4^2."""
    here, there = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    mask = torch.ones(1, 1).bool()
    assert fsp((here, here), (here, there), mask).item() == pytest.approx(2)
    assert fsp((here, here), (here, there), mask, normalize=False).item() == pytest.approx(32)


def test_fsp_runs_between_neighbours_of_the_mapping() -> None:
    """Flows of all pairs of layers, or of one side's layers only, are not the paper's."""
    student, teacher = (collate(batch((4, 2), seed, {"hidden"})) for seed in (0, 9))
    three = ((0, 0), (1, 2), (2, 1))
    for side in (student, teacher):
        side.hidden[0] = side.hidden[1] * 2 + side.hidden[2]  # type: ignore[index]
    expected = [
        fsp(
            (student.hidden[a], student.hidden[b]),
            (teacher.hidden[c], teacher.hidden[d]),
            student.mask,
        )
        for a, c, b, d in ((0, 0, 1, 2), (1, 2, 2, 1))
    ]
    found = FSP().forward(student, teacher, three)
    torch.testing.assert_close(found, (expected[0] + expected[1]) / 2)


def test_fsp_refuses_a_single_pair() -> None:
    """No flow is a loss of 0 that trains nothing."""
    student, teacher = (collate(batch((4, 2), seed, {"hidden"})) for seed in (0, 9))
    with pytest.raises(
        ValueError, match=r"at least two pairs of layers for FSP, got \(\(1, 2\),\)"
    ):
        FSP().forward(student, teacher, ((1, 2),))


@pytest.mark.parametrize("objective", [TokenGramMSE(), TokenGramMSE(normalize=False), NST()])
def test_any_widths_are_compared(objective: TokenGramMSE | NST) -> None:
    """A projection that nobody needs is weights to learn, and a loss that is not the paper's."""
    assert not objective.equal_width
    student = collate(batch((4, 2), 0, {"hidden"}, width=6))
    teacher = collate(batch((4, 2), 9, {"hidden"}, width=10))
    assert (
        objective.forward(student, teacher, ((1, 2),))[student.counted(objective.unit)] > 0
    ).all()


@pytest.mark.parametrize("normalize", [True, False])
def test_objectives_normalise_as_they_are_told(normalize: bool) -> None:
    """A setting that is accepted and not looked at gives the other loss under its name."""
    student, teacher = (collate(batch((4, 2), seed, {"hidden"})) for seed in (0, 9))
    one, two = student.hidden[1], student.hidden[2]
    theirs, others = teacher.hidden[2], teacher.hidden[1]
    torch.testing.assert_close(
        TokenGramMSE(normalize=normalize).forward(student, teacher, ((1, 2),)),
        token_gram_mse(one, theirs, student.mask, normalize),
    )
    torch.testing.assert_close(
        FSP(normalize=normalize).forward(student, teacher, ((1, 2), (2, 1))),
        fsp((one, two), (theirs, others), student.mask, normalize),
    )


@pytest.mark.parametrize("kind", [TokenGramMSE, FSP])
def test_normalize_must_be_a_truth_value(kind: type[TokenGramMSE] | type[FSP]) -> None:
    """The string "false" is true."""
    with pytest.raises(ValueError, match="normalize must be true or false, got 'false'"):
        kind(normalize="false")  # type: ignore[arg-type]


def test_normalised_grams_are_bounded() -> None:
    """Widths and lengths would otherwise set the size of the term."""
    student, teacher = 50 * states(7), states(7)
    assert (token_gram_mse(student, teacher, MASK) <= 4).all()
    assert (fsp((student, student), (teacher, -teacher), MASK) <= 4 + math.ulp(4)).all()
    assert (nst(student, teacher, MASK) <= 2).all()
