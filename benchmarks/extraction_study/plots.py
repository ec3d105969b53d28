"""The curves: one picture for each task and size, one row for each objective and budget."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from extraction_study.conditions import RANDOM, STARTS, Results
from extraction_study.saving import Measure, Setting, measures, of_setting

_COLOURS = ("black", "tab:green", "tab:orange", "tab:blue", "tab:red")


def plot(results: Results, asked: Sequence[Setting], folder: Path) -> list[Path]:
    """Write the pictures of all settings that have been begun; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures: dict[tuple[str, str], list[Setting]] = {}
    for setting in asked:
        if of_setting(results, setting, RANDOM):
            pictures.setdefault((setting.task, setting.size), []).append(setting)
    written = []
    for (task, size), rows in pictures.items():
        columns = measures(task)
        figure, axes = pyplot.subplots(
            len(rows),
            len(columns),
            figsize=(4 * len(columns), 3 * len(rows)),
            layout="constrained",
            squeeze=False,
        )
        for row, setting in zip(axes, rows, strict=True):
            for axis, measure in zip(row, columns, strict=True):
                _draw(axis, results, setting, measure)
        axes[0][0].legend(fontsize="small")
        written.append(folder / f"extraction-{task}-{size}.png".lower())
        figure.savefig(written[-1], dpi=100)
        pyplot.close(figure)
    return written


def _draw(axis: Any, results: Results, setting: Setting, measure: Measure) -> None:
    """Mean over seeds, from the lowest to the highest; dotted, where the random start ends."""
    for start, colour in zip(STARTS, _COLOURS, strict=False):
        runs = list(of_setting(results, setting, start).values())
        if not runs:
            continue
        steps = runs[0]["curve"]["step"]
        values = list(zip(*(run["curve"][measure.name] for run in runs), strict=True))
        means = [statistics.mean(each) for each in values]
        axis.plot(steps, means, color=colour, label=start, linewidth=1.2)
        lowest, highest = [min(each) for each in values], [max(each) for each in values]
        axis.fill_between(steps, lowest, highest, color=colour, alpha=0.15, linewidth=0)
        if start == RANDOM:
            axis.axhline(means[-1], color=colour, linestyle=":", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=5)
    ticks = [step for step in (0, 5, 10, 30, 100, 300, 1000) if step < 0.7 * setting.steps]
    axis.set_xticks([*ticks, setting.steps], [f"{step}" for step in (*ticks, setting.steps)])
    axis.minorticks_off()
    axis.set_xlim(0, setting.steps)
    axis.set_xlabel("steps")
    axis.set_ylabel(measure.title)
    axis.set_title(f"{setting.objective}, {setting.steps:,} steps", fontsize="medium")
