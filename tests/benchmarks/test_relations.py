"""Relations by captured projections and by hand: that both compute one loss."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import relations
import torch
from torch.nn.functional import kl_div

from hf_distill.objectives import MiniLMv2
from hf_distill.signals.signals import Signals

HEADS = 4


def _options(way: str) -> argparse.Namespace:
    return argparse.Namespace(
        only=way, lengths=[6], tokens=12, rounds=1, heads=HEADS, threads=1, device="cpu"
    )


def test_the_loss_by_hand_is_ours() -> None:
    """Another loss would be timed: a sum where ours is a mean, other heads, the student first."""
    draw = torch.Generator().manual_seed(0)
    sides = [
        {part: torch.randn(2, 5, width, generator=draw) for part in relations.PARTS}
        for width in (16, 24)
    ]
    found = relations.relations_kl(*sides, HEADS)

    def shown(side: dict[str, Any], heads: int) -> Signals:
        layers = {
            part: {1: each.unflatten(-1, (heads, -1)).transpose(1, 2)}
            for part, each in side.items()
        }
        return Signals(mask=torch.ones(2, 5, dtype=torch.bool), **layers)

    # Of other numbers of attention heads: they are cut anew.
    ours = MiniLMv2(HEADS).forward(shown(sides[0], 2), shown(sides[1], 3), [(1, 1)])
    assert found.item() == pytest.approx(ours.mean().item(), rel=1e-5)
    assert found > 0


def test_maps_are_compared_as_means_over_heads() -> None:
    """Models of different numbers of heads could not be compared otherwise."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(2, heads, 3, 3, generator=draw) for heads in (2, 4))
    student, teacher = (each / each.sum(-1, keepdim=True) for each in (student, teacher))
    rows = [each.mean(1).flatten(0, 1) for each in (student, teacher)]
    expected = kl_div(rows[0].log(), rows[1], reduction="batchmean")
    assert relations.maps_kl(student, teacher).item() == pytest.approx(expected.item(), rel=1e-5)
    assert relations.maps_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("way", "eager"), [("ours", False), ("hand", False), ("maps", True)])
def test_maps_alone_take_fused_attention_away(way: str, eager: bool) -> None:
    """Where both are eager, or neither is, nothing is compared."""
    for model in relations.models(_options(way)):
        assert (model.config._attn_implementation == "eager") == eager


def test_ways_of_another_loss_are_refused() -> None:
    """Faster, because it does something else."""
    same = {name: {"losses": [2.0]} for name in relations.TITLES}
    relations.check_same({**same, "maps": {"losses": [0.1]}})
    with pytest.raises(ValueError, match="must begin with one loss"):
        relations.check_same({**same, "hand": {"losses": [2.1]}})
    with pytest.raises(ValueError, match="must run, got"):
        relations.check_same({**same, "maps": {"failed": "no memory"}})
