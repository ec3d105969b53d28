"""The study as tables: where each start ends, and how soon it is where the random start ends."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from extraction_study.conditions import RANDOM, RESCALED, STARTS, SWEPT, Cell, Results, tried
from extraction_study.saving import (
    Measure,
    Setting,
    fractions,
    gaps,
    measures,
    of_setting,
    settings,
)


def report(results: Results, wanted: Sequence[Cell], machines: Sequence[str]) -> str:
    """All tables, and what is not in them."""
    compared = settings([cell for cell in wanted if cell.seed != SWEPT])
    parts = [_savings(results, compared)]
    for setting in compared:
        parts += [_of_setting(results, setting), _of_fewer_steps(results, wanted, setting)]
    parts += [_sweeps(results), _left_out(results, wanted)]
    parts.append(f"Machine: {'; '.join(sorted(set(machines))) or 'none yet'}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _savings(results: Results, compared: Sequence[Setting]) -> str:
    """One row for each measure of a setting, one column for each cut."""
    rows = []
    for setting in compared:
        controls = of_setting(results, setting, RANDOM)
        for measure in measures(setting.task) if controls else ():
            ends = _ends(controls.values(), measure)
            found = [_saved(fractions(results, setting, each, measure)) for each in STARTS[1:]]
            rows.append(f"| {setting} | {measure.title} {ends} | {' | '.join(found)} |")
    columns = " | ".join(STARTS[1:])
    head = f"| % of the random start's steps | where it ends | {columns} |"
    return "\n".join([head, f"| --- | --- |{' ---: |' * len(STARTS[1:])}", *rows]) if rows else ""


def _of_setting(results: Results, setting: Setting) -> str:
    """One row for each start that has run."""
    asked = measures(setting.task)
    rows = []
    for start in (*STARTS, RESCALED):
        runs = of_setting(results, setting, start).values()
        if runs:
            ends = " | ".join(_ends(runs, each) for each in asked)
            seconds = statistics.median(run["seconds"] for run in runs)
            begins = _ends(runs, asked[-1], at=0)
            rows.append(f"| {start} | {begins} | {ends} | {len(runs)} | {seconds:.0f} |")
    titles = " | ".join([f"{asked[-1].title} at step 0", *(each.title for each in asked)])
    head = f"| {setting}{_teacher(results, setting)} | {titles} | seeds | CPU s |"
    return "\n".join([head, f"| --- |{' ---: |' * (len(asked) + 3)}", *rows]) if rows else ""


def _teacher(results: Results, setting: Setting) -> str:
    for cell, result in results.items():
        if Setting.of(cell) == setting:
            shown = measures(setting.task)[-1]
            return f"; teacher {result['teacher'][shown.name]:.3f} ({shown.title})"
    return ""


def _ends(runs: Collection[Mapping[str, Any]], measure: Measure, at: int = -1) -> str:
    """Of a measured point, the last without."""
    values = [run["curve"][measure.name][at] for run in runs]
    return f"{statistics.mean(values):.3f}{_spread(values, 3)}"


def _saved(found: dict[int, float | None]) -> str:
    """In per cent; a start that did not get there is counted, and not averaged."""
    reached = [100 * part for part in found.values() if part is not None]
    missed = (
        f"{len(found) - len(reached)} of {len(found)} did not" if None in found.values() else ""
    )
    if not reached:
        return missed
    shown = f"{statistics.mean(reached):.1f}{_spread(reached, 1)}"
    return f"{shown}; {missed}" if missed else shown


def _spread(values: Sequence[float], digits: int) -> str:
    return f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""


def _of_fewer_steps(results: Results, wanted: Sequence[Cell], setting: Setting) -> str:
    """Runs that were given fewer steps, with a schedule of their own."""
    fewer = {
        (cell.steps, cell.start): cell
        for cell in wanted
        if cell.start != RANDOM
        and cell.steps < setting.steps
        and (cell.task, cell.size, cell.objective)
        == (setting.task, setting.size, setting.objective)
    }
    asked = measures(setting.task)
    rows = []
    for (steps, start), cell in sorted(
        fewer.items(), key=lambda each: (each[0][0], STARTS.index(each[0][1]))
    ):
        found = [gaps(results, cell, setting, each) for each in asked]
        if found[0]:
            shown = " | ".join(_gap(each) for each in found)
            part = f"{100 * steps / setting.steps:.0f}"
            rows.append(f"| {start} | {steps:,} | {part} | {shown} | {len(found[0])} |")
    titles = " | ".join(f"{each.title}, better by" for each in asked)
    head = f"| against random, {setting} | steps | % | {titles} | seeds |"
    return "\n".join([head, f"| --- |{' ---: |' * (len(asked) + 3)}", *rows]) if rows else ""


def _gap(found: Sequence[float]) -> str:
    return f"{statistics.mean(found):+.3f}{_spread(found, 3)}"


def _sweeps(results: Results) -> str:
    """Where the rates come from."""
    rows = []
    for cell in tried():
        if cell in results:
            curve = results[cell]["curve"]
            ends = ", ".join(
                f"{each.title} {curve[each.name][-1]:.3f}" for each in measures(cell.task)
            )
            named = f"{cell.start}: {Setting.of(cell)}, seed {cell.seed}"
            rows.append(f"| {named} | {cell.rate:g} | {ends} |")
    head = ["| rates that were tried | rate | at the end |", "| --- | ---: | --- |"]
    return "\n".join([*head, *rows]) if rows else ""


def _left_out(results: Results, wanted: Sequence[Cell]) -> str:
    left = [cell for cell in wanted if cell not in results]
    if not left:
        return f"All {len(wanted)} runs of the grid are finished."
    named: dict[Setting, dict[str, list[str]]] = {}
    for cell in left:
        starts = named.setdefault(Setting.of(cell), {})
        seeds = starts.setdefault(cell.start, [])
        seeds += [str(cell.seed)] if str(cell.seed) not in seeds else []
    listed = [
        f"- {setting}: "
        + "; ".join(f"{start}, seed {', '.join(seeds)}" for start, seeds in starts.items())
        for setting, starts in named.items()
    ]
    return "\n".join([f"Left out: {len(left)} of {len(wanted)} runs.", "", *listed])
