"""Numbers that change with progress."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hf_distill.objectives import KLDivergence
from hf_distill.objectives.schedule import Schedule, extremes, fixed, number_at


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule(1.0, 3.0), [1.0, 1.5, 2.0, 2.5, 3.0]),
        (Schedule(1.0, 3.0, begin=0.5), [1.0, 1.0, 1.0, 2.0, 3.0]),
        (Schedule(1.0, 3.0, finish=0.5), [1.0, 2.0, 3.0, 3.0, 3.0]),
        (Schedule(1.0, 3.0, "step", begin=0.5), [1.0, 1.0, 3.0, 3.0, 3.0]),
        (Schedule(2.0, 0.0, "cosine"), [2.0, 1.7071068, 1.0, 0.2928932, 0.0]),
    ],
    ids=str,
)
def test_numbers_at_quarters(schedule: Schedule, expected: list[float]) -> None:
    """A schedule upside down starts where it should end; both are plausible runs."""
    found = [schedule.at(quarter / 4) for quarter in range(5)]
    assert found == pytest.approx(expected)


def test_plain_numbers_stay() -> None:
    """Everything that takes a schedule takes a number."""
    assert number_at(0.5, 0.3) == 0.5
    assert extremes(0.5) == (0.5,)


def test_objective_without_schedules_is_itself() -> None:
    """A copy at every step would cost, and compare unequal nowhere: nobody would see it."""
    objective = KLDivergence(2.0)
    assert objective.at(0.5) is objective


def test_survives_yaml() -> None:
    """A card's settings must rebuild what was trained."""
    settings = KLDivergence(Schedule(4.0, 1.0, "cosine")).settings()
    written = yaml.safe_load(yaml.safe_dump(settings))
    assert Schedule(**written["temperature"]) == Schedule(4.0, 1.0, "cosine")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "exponential"}, "kind of a schedule must be one of linear, cosine, step"),
        ({"start": "1"}, "start of a schedule must be a number, got '1'"),
        ({"end": float("nan")}, "end of a schedule must be finite, got nan"),
        ({"begin": 0.5, "finish": 0.5}, "must be 0 <= begin < finish <= 1, got 0.5 and 0.5"),
        ({"finish": 100}, "must be 0 <= begin < finish <= 1, got 0.0 and 100"),
    ],
)
def test_wrong_schedules(given: dict[str, Any], told: str) -> None:
    """`finish: 100` steps instead of a part of the training would never be reached."""
    with pytest.raises(ValueError, match=told):
        Schedule(**{"start": 1.0, "end": 0.0, **given})


@pytest.mark.parametrize("end", [0.0, -1.0])
def test_both_ends_are_checked(end: float) -> None:
    """A temperature that falls to 0 divides by it in the last step of a long training."""
    with pytest.raises(ValueError, match="temperature must be a finite number > 0"):
        KLDivergence(Schedule(2.0, end))


def test_a_schedule_that_nobody_resolved_is_refused() -> None:
    """Taken at its first number, a schedule is a constant with a fine name."""
    assert fixed(KLDivergence(Schedule(2.0, 1.0)).at(1.0).temperature) == 1.0
    with pytest.raises(ValueError, match=r"settings must be numbers .* objective\.at\(progress\)"):
        fixed(KLDivergence(Schedule(2.0, 1.0)).temperature)
