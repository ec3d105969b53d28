"""Scores as a picture: which layers have units that nobody would miss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hf_distill.student.scores import Importance

_TITLES = {
    "ffn": "feed-forward neurons",
    "attention.heads": "heads",
    "attention.query_key": "channels of queries and keys",
    "attention.value": "channels of values",
    "cross.heads": "heads, decoder to encoder",
    "cross.query_key": "channels of queries and keys, decoder to encoder",
    "cross.value": "channels of values, decoder to encoder",
    "hidden": "hidden units",
    "embedding": "embedding units",
}
"""Set of units -> title of its panel, in the order of the panels."""


class _Curve(NamedTuple):
    """The scores of one set in one layer."""

    stack: str
    """layers, decoder, or nothing for units of the whole model."""
    layer: int
    """From 1."""
    scores: Tensor
    """Highest first."""


def plot_importance(importance: Importance, path: str | Path) -> None:
    """Draw every layer's scores, highest first, one panel for each kind of unit.

    Layers differ in colour, those of a decoder are dashed. A layer whose curve lies low, or falls
    early, has units to spare. Scores are on a logarithmic scale; those of 0 are not drawn.

    Args:
        importance: What `importance` gave.
        path: Of the picture; its suffix says the format, as in importance.png.
    """
    from matplotlib.figure import Figure

    panels = _panels(importance)
    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (name, curves) in zip(axes, panels.items(), strict=False):
        _draw(panel, curves, len(importance.layers))
        panel.set(title=_TITLES[name], xlabel="share of units, highest first", ylabel="score")
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=150)


def _panels(importance: Importance) -> dict[str, list[_Curve]]:
    """Set of units -> its curves; embedding units where they are others than the hidden ones."""
    found: dict[str, list[_Curve]] = {name: [] for name in _TITLES}
    for name, curve in _curves(importance):
        found[name].append(curve)
    if torch.equal(importance.embedding, importance.hidden):
        found["embedding"] = []
    return {name: curves for name, curves in found.items() if curves}


def _curves(importance: Importance) -> Iterator[tuple[str, _Curve]]:
    for name, scores in importance.flat().items():
        ordered = scores.flatten().sort(descending=True).values
        stack, _, rest = name.partition(".")
        layer, _, units = rest.partition(".")
        yield (
            (units, _Curve(stack, int(layer), ordered)) if rest else (name, _Curve("", 0, ordered))
        )


def _draw(panel: Any, curves: list[_Curve], depth: int) -> None:
    from matplotlib import colormaps

    shades = colormaps["viridis"]
    drawn = False
    for stack, layer, scores in curves:
        count = len(scores)
        shown = scores[scores > 0]
        share = [(rank + 0.5) / count for rank in range(len(shown))]
        colour = shades(min((layer - 1) / max(depth - 1, 1), 1.0)) if layer else "black"
        line = "--" if stack == "decoder" else "-"
        label = f"{'decoder ' if stack == 'decoder' else ''}layer {layer}"
        marker = "." if count <= 32 else None
        panel.plot(share, shown.tolist(), line, color=colour, label=label, marker=marker)
        drawn = drawn or bool(share)
    if drawn:
        panel.set_yscale("log")
    panel.set_xlim(0, 1)
    panel.grid(alpha=0.3)
