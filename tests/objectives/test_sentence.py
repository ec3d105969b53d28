"""Similarities within the batch against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import HiddenInfoNCE, RKDAngle, RKDDistance, SimilarityKL, SimilarityMSE
from hf_distill.objectives.contrast import hidden_info_nce
from hf_distill.objectives.distances import rkd_angle, rkd_distance
from hf_distill.objectives.pooling import pooled
from hf_distill.objectives.sentence import (
    AmongSentences,
    row_similarity_mse,
    similarities,
    similarity_kl,
    similarity_mse,
)
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

every_function = pytest.mark.parametrize(
    "compare",
    [
        similarity_mse,
        row_similarity_mse,
        similarity_kl,
        rkd_distance,
        rkd_angle,
        hidden_info_nce,
    ],
)


def states(width: int, seed: int, lengths: tuple[int, ...] = (4, 2, 3)) -> tuple[Tensor, Tensor]:
    signals = collate(batch(lengths, seed, {"hidden"}, width=width), garbage=5.0)
    return pooled(signals.hidden[1], signals.mask, "mean")


def loop_similarities(states: Tensor) -> list[list[float]]:
    directions = [oracles.unit(state) for state in states.tolist()]
    return [[oracles.inner(x, y) for y in directions] for x in directions]


def others(row: list[float], itself: int) -> list[float]:
    return [x for at, x in enumerate(row) if at != itself]


def test_similarities_are_cosines() -> None:
    """Inner products would let the long states of a batch rule."""
    student, _ = states(6, 0)
    expected = torch.tensor(loop_similarities(student), dtype=torch.float64)
    torch.testing.assert_close(similarities(student), expected)


def test_similarity_mse_leaves_the_diagonal_out() -> None:
    """A sentence's likeness to itself is always 1: it dilutes the loss, more in small batches."""
    (student, real), (teacher, _) = states(6, 0), states(8, 9)
    pairs = zip(loop_similarities(student), loop_similarities(teacher), strict=True)
    expected = [
        oracles.squared_distance(others(s, at), others(t, at)) / 2
        for at, (s, t) in enumerate(pairs)
    ]
    found = similarity_mse(student, teacher, real)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_row_similarity_mse_is_the_papers_sum_over_the_matrix() -> None:
    """Cosines are another matrix than rows of length 1, and without a diagonal another loss."""
    (student, real), (teacher, _) = states(6, 0), states(8, 9)

    def rows(side: Tensor) -> list[list[float]]:
        vectors = side.tolist()
        return [oracles.unit([oracles.inner(x, y) for y in vectors]) for x in vectors]

    pairs = zip(rows(student), rows(teacher), strict=True)
    expected = torch.tensor([oracles.squared_distance(s, t) for s, t in pairs]).double()
    found = row_similarity_mse(student, teacher, real)
    torch.testing.assert_close(found, expected / 3, rtol=1e-6, atol=0)
    assert found.mean().item() == pytest.approx(expected.sum().item() / 3**2)


def test_row_similarity_mse_by_hand() -> None:
    """Student: two equal sentences, rows (1, 1) / sqrt 2. Teacher: two unlike ones, rows of 1."""
    student, teacher = torch.tensor([[2.0], [2.0]]), 3 * torch.eye(2)
    root = math.sqrt(0.5)
    expected = ((1 - root) ** 2 + root**2) / 2
    found = row_similarity_mse(student, teacher, torch.ones(2).bool())
    torch.testing.assert_close(found, torch.tensor([expected, expected]))


def test_similarity_mse_offers_both_normalisations() -> None:
    """A setting that is accepted and not looked at gives the other loss under its name."""
    student, teacher = (collate(batch((3, 2, 4), seed, {"hidden"})) for seed in (0, 9))
    mine, real = pooled(student.hidden[1], student.mask, "mean")
    theirs, _ = pooled(teacher.hidden[2], student.mask, "mean")
    for normalize, measure in (("sentences", similarity_mse), ("rows", row_similarity_mse)):
        objective = SimilarityMSE(normalize=normalize)  # type: ignore[arg-type]
        found = objective.forward(student, teacher, ((1, 2),))
        torch.testing.assert_close(found, measure(mine, theirs, real))
    with pytest.raises(ValueError, match="normalize must be one of sentences, rows, got True"):
        SimilarityMSE(normalize=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_similarity_kl_is_over_the_other_sentences(temperature: float) -> None:
    """With itself in the softmax, nearly all probability is there and nothing is learnt."""
    (student, real), (teacher, _) = states(6, 0), states(8, 9)
    pairs = zip(loop_similarities(student), loop_similarities(teacher), strict=True)
    expected = []
    for at, rows in enumerate(pairs):
        mine, theirs = (oracles.softmax([x / temperature for x in others(row, at)]) for row in rows)
        expected.append(oracles.kl(theirs, mine))
    found = similarity_kl(student, teacher, real, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_similarity_kl_is_at_its_temperature() -> None:
    """A temperature that is accepted and not looked at leaves the default's nearest neighbours."""
    student, teacher = (collate(batch((3, 2, 4), seed, {"hidden"})) for seed in (0, 9))
    mine, real = pooled(student.hidden[1], student.mask, "mean")
    theirs, _ = pooled(teacher.hidden[1], student.mask, "mean")
    found = SimilarityKL(temperature=0.7).forward(student, teacher, ((1, 1),))
    torch.testing.assert_close(found, similarity_kl(mine, theirs, real, 0.7))


@every_function
def test_batch_of_one_gives_zero_with_finite_gradient(compare: Any) -> None:
    """The last batch of an epoch may hold one sentence: 0 / 0 there makes every weight NaN."""
    (student, real), (teacher, _) = states(6, 0, (3,)), states(6, 9, (3,))
    student.requires_grad_()
    values = compare(student, teacher, real)
    values.sum().backward()
    assert values.tolist() == [0.0]
    assert student.grad is not None
    assert (student.grad == 0).all()


@every_function
def test_an_empty_sentence_is_nobodys_neighbour(compare: Any) -> None:
    """A dummy sentence that fills up a batch would be learnt as a neighbour of everyone."""
    (student, real), (teacher, _) = states(6, 0), states(6, 9)
    expected = compare(student, teacher, real)
    longer = [torch.cat([x, torch.zeros_like(x[:1])]) for x in (student, teacher)]
    found = compare(*longer, torch.cat([real, torch.zeros_like(real[:1])]))
    torch.testing.assert_close(found, torch.cat([expected, torch.zeros(1)]))


@pytest.mark.parametrize("value", [0, -0.05, "0.05"])
def test_temperature_must_be_positive(value: Any) -> None:
    """A temperature of 0 gives NaN in the first step."""
    with pytest.raises(ValueError, match="temperature must be a finite number > 0, got"):
        SimilarityKL(temperature=value)


@pytest.mark.parametrize(
    "objective",
    [
        SimilarityMSE(),
        SimilarityMSE(normalize="rows"),
        SimilarityKL(),
        RKDDistance(),
        RKDAngle(),
        HiddenInfoNCE(),
    ],
)
def test_says_that_it_compares_the_batch(objective: AmongSentences) -> None:
    """Accumulated micro-batches are then not one big batch, and the trainer must know."""
    assert objective.compares_batch
    one, two = (collate(batch(lengths, 0, {"hidden"})) for lengths in ((3, 2, 2), (3, 2, 2, 4)))
    teacher = [collate(batch(lengths, 9, {"hidden"})) for lengths in ((3, 2, 2), (3, 2, 2, 4))]
    small = objective.forward(one, teacher[0], ((1, 1),))
    big = objective.forward(two, teacher[1], ((1, 1),))
    assert not torch.allclose(small, big[:3])


def test_sentences_may_be_their_first_tokens() -> None:
    """A student that is to be used by its first token is taught another vector's likeness."""
    student, teacher = (collate(batch((3, 2, 4), seed, {"hidden"}), "left") for seed in (0, 9))
    states = [pooled(side.hidden[1], student.mask, "first")[0] for side in (student, teacher)]
    found = SimilarityMSE(pooling="first").forward(student, teacher, ((1, 1),))
    torch.testing.assert_close(found, similarity_mse(*states, torch.ones(3).bool()))
    with pytest.raises(ValueError, match="pooling must be one of mean, first, got 'tokens'"):
        SimilarityKL(pooling="tokens")
