"""The contrast of sentences' states against plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from hf_distill.objectives import HiddenInfoNCE
from hf_distill.objectives.contrast import hidden_info_nce
from hf_distill.objectives.pooling import pooled
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

REAL = torch.tensor([True, True, False, True])


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_hidden_info_nce_is_the_loop(temperature: float) -> None:
    """The softmax over the wrong axis, or over empty sentences, is another contrast."""
    student, teacher = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = [0.0] * 4
    there = REAL.nonzero().flatten().tolist()
    for i in there:
        scores = [
            oracles.inner(oracles.unit(student[i].tolist()), oracles.unit(teacher[j].tolist()))
            / temperature
            for j in there
        ]
        expected[i] = -math.log(oracles.softmax(scores)[there.index(i)])
    found = hidden_info_nce(student, teacher, REAL, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_hidden_info_nce_by_hand() -> None:
    """Nothing told apart: the log of the number of candidates. Cosines 1 and 0: ln(1 + 1 / e)."""
    alike = hidden_info_nce(torch.ones(4, 2), torch.ones(4, 2), REAL, 0.1)
    torch.testing.assert_close(alike, math.log(3) * REAL.float())
    two = torch.eye(2)
    apart = hidden_info_nce(3 * two, 5 * two, torch.ones(2).bool(), 1.0)
    torch.testing.assert_close(apart, torch.full((2,), math.log(1 + math.exp(-1))))


def test_the_objective_compares_mapped_layers_at_its_temperature() -> None:
    """A temperature that is accepted and not looked at, or one layer where the paper takes all."""
    student, teacher = (collate(batch((3, 2, 4), seed, {"hidden"})) for seed in (0, 9))
    mine, real = pooled(student.hidden[1], student.mask, "mean")
    theirs, _ = pooled(teacher.hidden[2], student.mask, "mean")
    objective = HiddenInfoNCE(temperature=0.7)
    found = objective.forward(student, teacher, ((1, 2),))
    torch.testing.assert_close(found, hidden_info_nce(mine, theirs, real, 0.7))
    assert objective.equal_width
    assert objective.default_mapping == "uniform"


def test_temperature_must_be_positive() -> None:
    """A temperature of 0 gives NaN in the first step."""
    with pytest.raises(ValueError, match="temperature must be a finite number > 0, got 0"):
        HiddenInfoNCE(temperature=0)
