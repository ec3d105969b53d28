"""How many steps a start saves: read off the curves, and off runs that were given fewer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from extraction_study.conditions import RANDOM, SWEPT, TEXT, Cell, Results, chosen_rate


@dataclass(frozen=True)
class Measure:
    """One column of a curve."""

    name: str
    title: str
    lower: bool = False
    """Whether less is better."""

    def better(self, value: float) -> float:
        """The value, with a sign that makes more better."""
        return -value if self.lower else value


_LOSS = Measure("loss", "held-out loss", lower=True)
FIDELITY = Measure("fidelity", "fidelity")
STSB = Measure("stsb", "STS-B Spearman")
ACCURACY = Measure("accuracy", "accuracy")


def measures(task: str) -> tuple[Measure, ...]:
    """What is measured in a task."""
    return (_LOSS, FIDELITY, STSB) if task == TEXT else (_LOSS, ACCURACY)


@dataclass(frozen=True)
class Setting:
    """What runs have in common that may be compared step by step."""

    task: str
    size: str
    objective: str
    steps: int

    @classmethod
    def of(cls, cell: Cell) -> Setting:
        """The setting of a run."""
        return cls(cell.task, cell.size, cell.objective, cell.steps)

    def __str__(self) -> str:
        """As in a table's head."""
        return f"{self.task}, {self.size}, {self.objective}, {self.steps:,} steps"


def chosen(results: Results, cell: Cell) -> bool:
    """Whether a run has the rate of its start: those by which it was chosen may not."""
    rate = chosen_rate(results, cell.task, cell.objective, cell.start, cell.steps)
    return cell.seed != SWEPT and cell.rate == rate


def settings(cells: Sequence[Cell]) -> list[Setting]:
    """Those that hold a random start, in the order of their first run: others have no control."""
    return list(dict.fromkeys(Setting.of(cell) for cell in cells if cell.start == RANDOM))


def of_setting(results: Results, setting: Setting, start: str) -> dict[int, Mapping[str, Any]]:
    """Seed -> result, of a start."""
    found = {
        cell.seed: result
        for cell, result in results.items()
        if cell.start == start and Setting.of(cell) == setting and chosen(results, cell)
    }
    return dict(sorted(found.items()))


def reached_at(steps: Sequence[float], values: Sequence[float], target: float) -> float | None:
    """The step after which a curve is never below a target again; None where it ends below.

    Between two measured points a straight line is drawn; nothing is smoothed.

    Args:
        steps: Ascending.
        values: At these steps, more is better.
        target: What is to be reached.
    """
    below = [at for at, value in enumerate(values) if value < target]
    if not below:
        return float(steps[0])
    last = below[-1]
    if last == len(values) - 1:
        return None
    part = (target - values[last]) / (values[last + 1] - values[last])
    return steps[last] + part * (steps[last + 1] - steps[last])


def fractions(
    results: Results, setting: Setting, start: str, measure: Measure
) -> dict[int, float | None]:
    """Seed -> the part of all steps at which a start reaches the random start's last value.

    None where it does not. Seeds without a random start are left out.
    """
    controls = of_setting(results, setting, RANDOM)
    found: dict[int, float | None] = {}
    for seed, result in of_setting(results, setting, start).items():
        if seed in controls:
            target = measure.better(controls[seed]["curve"][measure.name][-1])
            curve = result["curve"]
            values = [measure.better(value) for value in curve[measure.name]]
            at = reached_at(curve["step"], values, target)
            found[seed] = None if at is None else at / setting.steps
    return found


def gaps(results: Results, cell: Cell, control: Setting, measure: Measure) -> list[float]:
    """What a start reaches in its own steps, above a random start's of another budget, by seed.

    Args:
        results: All.
        cell: Any run of the start with the smaller budget.
        control: The setting of the random start.
        measure: More is better in what is returned, always.
    """
    controls = of_setting(results, control, RANDOM)
    found = of_setting(results, replace(control, steps=cell.steps), cell.start)
    return [
        measure.better(result["curve"][measure.name][-1])
        - measure.better(controls[seed]["curve"][measure.name][-1])
        for seed, result in found.items()
        if seed in controls
    ]
