"""Similarities within the batch against plain loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import SimilarityKL, SimilarityMSE
from hf_distill.objectives.sentence import similarities, similarity_kl, similarity_mse
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

every_function = pytest.mark.parametrize("compare", [similarity_mse, similarity_kl])


def states(width: int, seed: int, lengths: tuple[int, ...] = (4, 2, 3)) -> tuple[Tensor, Tensor]:
    signals = collate(batch(lengths, seed, {"hidden"}, width=width), garbage=5.0)
    return signals.hidden[1], signals.mask


def loop_similarities(hidden: Tensor, mask: Tensor) -> list[list[float]]:
    means = []
    for states_of_one, real in zip(hidden, mask, strict=True):
        tokens = states_of_one[real].tolist()
        means.append([oracles.mean(channel) for channel in zip(*tokens, strict=True)])
    return [[oracles.inner(oracles.unit(x), oracles.unit(y)) for y in means] for x in means]


def others(row: list[float], itself: int) -> list[float]:
    return [x for at, x in enumerate(row) if at != itself]


def test_similarities_are_cosines_of_mean_pooled_tokens() -> None:
    """Padding in the mean pulls short sentences towards each other."""
    hidden, mask = states(6, 0)
    expected = torch.tensor(loop_similarities(hidden, mask), dtype=torch.float64)
    torch.testing.assert_close(similarities(hidden, mask), expected)


def test_similarity_mse_leaves_the_diagonal_out() -> None:
    """A sentence's likeness to itself is always 1: it dilutes the loss, more in small batches."""
    (student, mask), (teacher, _) = states(6, 0), states(8, 9)
    pairs = zip(loop_similarities(student, mask), loop_similarities(teacher, mask), strict=True)
    expected = [
        oracles.squared_distance(others(s, at), others(t, at)) / 2
        for at, (s, t) in enumerate(pairs)
    ]
    found = similarity_mse(student, teacher, mask)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_similarity_kl_is_over_the_other_sentences(temperature: float) -> None:
    """With itself in the softmax, nearly all probability is there and nothing is learnt."""
    (student, mask), (teacher, _) = states(6, 0), states(8, 9)
    pairs = zip(loop_similarities(student, mask), loop_similarities(teacher, mask), strict=True)
    expected = []
    for at, rows in enumerate(pairs):
        mine, theirs = (oracles.softmax([x / temperature for x in others(row, at)]) for row in rows)
        expected.append(oracles.kl(theirs, mine))
    found = similarity_kl(student, teacher, mask, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@every_function
def test_batch_of_one_gives_zero_with_finite_gradient(compare: Any) -> None:
    """The last batch of an epoch may hold one sentence: 0 / 0 there makes every weight NaN."""
    (student, mask), (teacher, _) = states(6, 0, (3,)), states(8, 9, (3,))
    student.requires_grad_()
    values = compare(student, teacher, mask)
    values.sum().backward()
    assert values.tolist() == [0.0]
    assert student.grad is not None
    assert (student.grad == 0).all()


@every_function
def test_an_empty_sentence_is_nobodys_neighbour(compare: Any) -> None:
    """A dummy sentence that fills up a batch would be learnt as a neighbour of everyone."""
    (student, mask), (teacher, _) = states(6, 0), states(8, 9)
    expected = compare(student, teacher, mask)
    longer = [torch.cat([x, torch.ones_like(x[:1])]) for x in (student, teacher)]
    found = compare(*longer, torch.cat([mask, torch.zeros_like(mask[:1])]))
    torch.testing.assert_close(found, torch.cat([expected, torch.zeros(1)]))


@pytest.mark.parametrize("value", [0, -0.05, "0.05"])
def test_temperature_must_be_positive(value: Any) -> None:
    """A temperature of 0 gives NaN in the first step."""
    with pytest.raises(ValueError, match="temperature must be a finite number > 0, got"):
        SimilarityKL(temperature=value)


@pytest.mark.parametrize("objective", [SimilarityMSE(), SimilarityKL()])
def test_says_that_it_compares_the_batch(objective: Any) -> None:
    """Accumulated micro-batches are then not one big batch, and the trainer must know."""
    assert objective.compares_batch
    assert not objective.equal_width
    one, two = (collate(batch(lengths, 0, {"hidden"})) for lengths in ((3, 2), (3, 2, 4)))
    teacher = [collate(batch(lengths, 9, {"hidden"})) for lengths in ((3, 2), (3, 2, 4))]
    small = objective.forward(one, teacher[0], ((1, 1),))
    big = objective.forward(two, teacher[1], ((1, 1),))
    assert not torch.allclose(small, big[:2])
