"""Scores as a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib.figure
import pytest
import torch

from hf_distill.student import Importance
from hf_distill.student.importance_plot import plot_importance
from tests import tiny


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved, each to a file without its content: drawing takes seconds."""
    figures: list[matplotlib.figure.Figure] = []

    def save(figure: matplotlib.figure.Figure, path: Path, **settings: object) -> None:
        figures.append(figure)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
    return figures


def scores(family: str = "Bert") -> Importance:
    """Random ones, of which a layer has twice as high ones as that before."""
    held = Importance.equal(tiny.config(family)).flat()
    filled = {
        name: torch.rand(tensor.shape) * (2 if ".2." in name else 1)
        for name, tensor in held.items()
    }
    return Importance.from_flat(filled)


def test_every_layer_has_its_curve(drawn: list[matplotlib.figure.Figure], tmp_path: Path) -> None:
    """Layers under each other's names would send a reader to cut the wrong one."""
    made = scores("Electra")
    plot_importance(made, tmp_path / "scores.png")
    panels = {panel.get_title(): panel for panel in drawn[0].axes if panel.get_visible()}
    assert len(panels) == 6
    neurons = panels["feed-forward neurons"]
    labels = [line.get_label() for line in neurons.lines]
    assert labels == ["layer 1", "layer 2"]
    for line, layer in zip(neurons.lines, made.layers, strict=True):
        wanted = layer.ffn.sort(descending=True).values
        assert torch.equal(torch.tensor(line.get_ydata()), wanted)
        assert 0 < min(line.get_xdata()) < max(line.get_xdata()) < 1
    assert {panel.get_yscale() for panel in panels.values()} == {"log"}


def test_a_decoder_has_panels_of_its_attention_to_the_encoder(
    drawn: list[matplotlib.figure.Figure], tmp_path: Path
) -> None:
    """Both stacks in one colour and line could not be told apart."""
    config = tiny.model("Bart").config
    made = {name: torch.rand(each.shape) for name, each in Importance.equal(config).flat().items()}
    made["embedding"] = made["hidden"]
    plot_importance(Importance.from_flat(made), tmp_path / "scores.png")
    panels = {panel.get_title(): panel for panel in drawn[0].axes if panel.get_visible()}
    assert len(panels) == 8
    assert [line.get_linestyle() for line in panels["heads"].lines] == ["-", "-", "--", "--"]
    across = panels["heads, decoder to encoder"].lines
    assert [line.get_label() for line in across] == ["decoder layer 1", "decoder layer 2"]


def test_scores_of_nothing_are_drawn_too(tmp_path: Path) -> None:
    """A logarithmic scale has no 0: a warning, and a figure without its axes."""
    made = scores()
    layer = dataclasses.replace(made.layers[0], ffn=torch.zeros(48))
    plot_importance(dataclasses.replace(made, layers=(layer, layer)), tmp_path / "scores.svg")
    assert (tmp_path / "scores.svg").stat().st_size > 10_000
