"""Seconds per step as bars, one panel for each work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.quartiles import quartiles

from speed_study.tools import ALL
from speed_study.work import WORKS


def plot(measured: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the picture of what `speed.py --json` writes; returns its path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    works = measured["works"]
    size = {"figsize": (4 * len(works) + 2, 4), "layout": "constrained", "squeeze": False}
    figure, axes = pyplot.subplots(1, len(works), sharey=True, **size)
    for axis, (name, found) in zip(axes[0], works.items(), strict=True):
        _draw(axis, found["tools"])
        axis.set_title(WORKS[name].title, fontsize="medium")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "speed.png"
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    return [path]


def _draw(axis: Any, times: Mapping[str, Any]) -> None:
    """Medians, and whiskers from quartile to quartile; the first tool on top."""
    ran = {ALL[name].title: each["wall"] for name, each in times.items() if "wall" in each}
    found = [quartiles(walls) for walls in ran.values()]
    middles = [each.middle for each in found]
    ends = [[each.middle - each.low for each in found], [each.high - each.middle for each in found]]
    ours = ["tab:green" if title.startswith("ours") else "tab:gray" for title in ran]
    axis.barh(list(ran), middles, xerr=ends, color=ours, error_kw={"linewidth": 1})
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel("seconds per step")
