"""The study as tables: scores, and what a condition adds to another one, seed by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from scipy.stats import t as student_t
from studies.tasks import TASKS

from objective_study.conditions import CONDITIONS, CONTROL, LOGITS, SETTINGS, Cell

Results = Mapping[Cell, Mapping[str, Any]]
"""Cell -> score, teacher, seconds, weights: of the finished ones."""
Setting = tuple[str, str]


class Difference(NamedTuple):
    """A mean of paired differences, and the half-width of its 95 % confidence interval."""

    mean: float
    half: float
    pairs: int

    def __str__(self) -> str:
        """As in a table: the interval needs two pairs."""
        return f"{self.mean:+.1f} ± {self.half:.1f}" if self.pairs > 1 else f"{self.mean:+.1f}"


def difference(found: Sequence[float]) -> Difference:
    """Mean and interval (Student's t) of paired differences, at least one."""
    count, middle = len(found), statistics.mean(found)
    if count < 2:
        return Difference(middle, math.nan, count)
    error = statistics.stdev(found) / math.sqrt(count)
    return Difference(middle, float(student_t.ppf(0.975, count - 1)) * error, count)


def paired(results: Results, condition: str, other: str) -> list[float]:
    """Condition minus other, for each task, student and seed that both have finished."""
    gaps = []
    for cell, result in results.items():
        rival = results.get(replace(cell, condition=other))
        if cell.condition == condition != other and rival is not None:
            gaps.append(result["score"] - rival["score"])
    return gaps


def report(results: Results, wanted: Sequence[Cell], machines: Sequence[str]) -> str:
    """All tables, and what is not in them."""
    parts = [_over_all(results)]
    parts += [_of_setting(results, setting) for setting in SETTINGS]
    left = [cell for cell in wanted if cell not in results]
    parts.append(_left_out(left, len(wanted)))
    parts.append(f"Machine: {'; '.join(sorted(set(machines))) or 'none yet'}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _over_all(results: Results) -> str:
    """What ran in every setting that has been begun, taken together: differences can be averaged.

    A condition that was spared the hard tasks would stand above the others.
    """
    begun = {(cell.task, cell.student) for cell in results}
    rows = []
    for name in CONDITIONS:
        mine = {(cell.task, cell.student) for cell in results if cell.condition == name}
        against = [paired(results, name, other) for other in (CONTROL, LOGITS)]
        if mine == begun and any(against):
            shown = [_shown(gaps) for gaps in against]
            pairs = ", ".join(str(len(gaps)) for gaps in against)
            rows.append(f"| {name} | {shown[0]} | {shown[1]} | {pairs} |")
    head = [
        f"| all {len(begun)} settings | minus labels | minus labels + logits | pairs |",
        "| --- | ---: | ---: | ---: |",
    ]
    return "\n".join([*head, *rows]) if rows else ""


def _of_setting(results: Results, setting: Setting) -> str:
    task, student = setting
    here = {cell: each for cell, each in results.items() if (cell.task, cell.student) == setting}
    if not here:
        return ""
    reached = next(iter(here.values()))["teacher"]
    metric = {"accuracy": "accuracy", "spearmanr": "Spearman"}[TASKS[task].metric]
    title = f"{task}, {student}; teacher {reached:.1f}"
    rows = [_row(here, name) for name in CONDITIONS]
    return "\n".join(
        [
            f"| {title} | {metric}, % | minus labels | minus labels + logits | seeds "
            "| weight | CPU s |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
            *filter(None, rows),
        ]
    )


def _row(here: Results, name: str) -> str:
    runs = [each for cell, each in here.items() if cell.condition == name]
    if not runs:
        return ""
    scores = [run["score"] for run in runs]
    spread = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    gaps = [_shown(paired(here, name, other)) for other in (CONTROL, LOGITS)]
    weights = ", ".join(f"{weight:.3g}" for weight in runs[0]["weights"].values())
    seconds = statistics.median(run["seconds"] for run in runs)
    return (
        f"| {name} | {statistics.mean(scores):.1f}{spread} | {gaps[0]} | {gaps[1]} "
        f"| {len(runs)} | {weights} | {seconds:.0f} |"
    )


def _shown(gaps: Sequence[float]) -> str:
    """Empty where there is no pair."""
    return str(difference(gaps)) if gaps else ""


def _left_out(left: Sequence[Cell], wanted: int) -> str:
    if not left:
        return f"All {wanted} runs of the grid are finished."
    seeds: dict[tuple[str, str], list[int]] = {}
    for cell in left:
        seeds.setdefault((f"{cell.task} {cell.student}", cell.condition), []).append(cell.seed)
    named: dict[str, list[str]] = {}
    for (setting, condition), missing in seeds.items():
        named.setdefault(f"{setting}, seed {', '.join(map(str, missing))}", []).append(condition)
    listed = [f"- {setting}: {'; '.join(each)}" for setting, each in named.items()]
    first = f"Left out: {len(left)} of {wanted} runs."
    return "\n".join([first, "", *listed])
