"""What grew, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from growth_study.report import STEP, Costs, columns_of
from growth_study.settings import GROWTHS

ROWS = ("first step, s", STEP, "peak, MB", "on disk, MB")


def plot(found: Mapping[str, Costs], path: Path) -> None:
    """A column for each thing that grows, a row for each cost; all from 0 upwards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    grown = list(dict.fromkeys(GROWTHS[name].what for name in found))
    ways = list(dict.fromkeys(GROWTHS[name].how for name in found))
    size = (3.2 * len(grown), 2.2 * len(ROWS))
    figure, panels = pyplot.subplots(
        len(ROWS), len(grown), figsize=size, squeeze=False, layout="constrained"
    )
    for name, costs in found.items():
        growth = GROWTHS[name]
        told, color = columns_of(growth), f"C{ways.index(growth.how)}"
        for row, label in zip(panels, ROWS, strict=True):
            if label in told:
                heights = [told[label](each) for each in costs.values()]
                panel = row[grown.index(growth.what)]
                panel.plot(list(costs), heights, marker="o", color=color, label=growth.how)
                panel.set_xlabel(growth.unit, fontsize=8)
        panels[0][grown.index(growth.what)].set_title(growth.what, fontsize=10)
    for row, label in zip(panels, ROWS, strict=True):
        row[0].set_ylabel(label)
        for panel in row:
            panel.set_visible(bool(panel.lines))
            panel.set_ylim(0, 1.1 * panel.get_ylim()[1])
            panel.locator_params(axis="x", nbins=4)
            panel.grid(alpha=0.3)
    lines = {line.get_label(): line for panel in panels.flat for line in panel.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
