"""What grew, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from growth_study.report import COLUMNS, OF_CACHES, Column, Costs, columns_of
from growth_study.settings import GROWTHS, Growth

ROWS: Mapping[str, Column] = {**COLUMNS, **OF_CACHES}


def plot(found: Mapping[str, Costs], path: Path) -> None:
    """A column for each thing that grows, a row for each cost; all from 0 upwards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grown = list(dict.fromkeys(GROWTHS[name].what for name in found))
    figure, panels = pyplot.subplots(
        len(ROWS),
        len(grown),
        figsize=(3.4 * len(grown), 2.3 * len(ROWS)),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for name, costs in found.items():
        growth = GROWTHS[name]
        for row, (label, of) in zip(panels, ROWS.items(), strict=True):
            if label in columns_of(growth):
                _line(row[grown.index(growth.what)], growth, costs, of)
    for row, label in zip(panels, ROWS, strict=True):
        row[0].set_ylabel(label)
    for at, what in enumerate(grown):
        panels[0][at].set_title(what, fontsize=10)
        panels[0][at].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _line(panel: Any, growth: Growth, costs: Costs, of: Column) -> None:
    panel.plot(list(costs), [of(each) for each in costs.values()], marker="o", label=growth.how)
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.set_xlabel(growth.unit)
    if growth.unit == "examples":
        panel.set_xscale("log")
