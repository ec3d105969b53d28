"""A cached teacher shows what the live one showed, of any batch, and holds its files alone."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_distill.architectures import architecture, base_model
from hf_distill.cache.about import About, Shown
from hf_distill.cache.cache import Cache
from hf_distill.cache.folder import Folder
from hf_distill.cache.rows import Layout, layouts
from hf_distill.cache.stored import signal_of
from hf_distill.signals import Demand, Signals
from hf_distill.signals.head import Head, Targets, head_of
from hf_distill.signals.signals import LAYERED
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.identity import taught_by
from hf_distill.teacher.live import LiveTeacher
from tests.teacher.counting import write
from tests.training.runs import HEADLESS, OFFERED, SEQUENCE, TOKEN, collate, examples, teacher

COUNT, BATCH = 9, 3


def wanted(model: nn.Module, head: str) -> Demand:
    """Everything that a family shows, of some layers; hidden states whole and pooled."""
    shows = architecture(base_model(model).config).shows.intersection(LAYERED)
    layers: dict[str, frozenset[int]] = {name: frozenset({1, 4}) for name in shows}
    layers["hidden"] = frozenset({0, 1, 2, 4})
    return Demand(head != HEADLESS, layers, {1: "mean", 2: "first"})


def kept(
    folder: Path, model: nn.Module, head: Head, demand: Demand, data: Sequence[Any], **shown: Any
) -> tuple[LiveTeacher, Cache]:
    """A live teacher, and what is kept of it."""
    live = LiveTeacher(model, demand, head)
    about = About(
        teachers=[taught_by(model)],
        precision="as loaded",
        columns=live.columns,
        head=head.suffix,
        problem=head.problem,
        heads=base_model(model).config.num_attention_heads,
        shown=Shown(
            logits=demand.logits,
            layers={signal: sorted(found) for signal, found in demand.layers.items()},
            pooled=dict(demand.pooled),
            **{"storage": "float32", **shown},
        ),
    )
    write(folder, data, live, about=about, batch_size=BATCH, head=head)
    return live, Cache(Folder(folder))


def by_length(data: Sequence[Any]) -> list[Any]:
    return sorted(data, key=lambda one: len(one["input_ids"]))


def batch_of(head: Head, data: Sequence[Any]) -> tuple[dict[str, Tensor], Targets]:
    inputs = head.complete(collate(data))
    return inputs, head.targets(inputs)


def assert_same(
    found: Signals,
    expected: Signals,
    lain: dict[str, Layout],
    targets: Targets,
    **tolerance: float,
) -> None:
    """On every token that counts; what is pooled, once it is."""
    for name, layout in lain.items():
        mine, theirs = (layout.rows(signal_of(side, name), targets) for side in (found, expected))
        torch.testing.assert_close(
            mine, theirs, msg=lambda text, n=name: f"{n}: {text}", **tolerance
        )


@pytest.mark.parametrize(("family", "kind"), OFFERED)
def test_cached_signals_are_the_live_ones(family: str, kind: str, tmp_path: Path) -> None:
    """Each family and head has signals of its own shapes: one that is laid out wrongly is noise."""
    model = teacher(kind, family)
    head, demand, data = head_of(model), wanted(model, kind), by_length(examples(COUNT, kind))
    live, cache = kept(tmp_path / "c", model, head, demand, data)
    cached = CachedTeacher(cache, demand, head)
    assert cached.columns == live.columns
    lain = layouts(demand, head, base_model(model).config.num_attention_heads)
    for at in range(0, COUNT, BATCH):
        # What was run together when the cache was written: the same numbers, bit for bit.
        inputs, targets = batch_of(head, data[at : at + BATCH])
        shown = cached.show(inputs, targets)
        assert_same(shown, live.show(inputs, targets), lain, targets, rtol=0, atol=0)
    for order in ([7, 0, 4, 1], [8], [2, 2], list(range(COUNT))):
        inputs, targets = batch_of(head, [data[index] for index in order])
        shown, expected = cached.show(inputs, targets), live.show(inputs, targets)
        assert_same(shown, expected, lain, targets, rtol=1e-4, atol=1e-5)
        assert shown.mask is targets.mask
        for signal, layers in demand.layers.items():
            assert getattr(shown, signal).keys() == layers
            for layer in layers:
                assert (
                    signal_of(shown, f"{signal}.{layer}").shape
                    == signal_of(expected, f"{signal}.{layer}").shape
                )


@pytest.fixture
def tagging(tmp_path: Path) -> tuple[LiveTeacher, Cache, Head, Demand]:
    """A cache of a tagger."""
    model = teacher(TOKEN)
    head, demand = head_of(model), wanted(model, TOKEN)
    return *kept(tmp_path / "c", model, head, demand, examples(COUNT, TOKEN)), head, demand


def test_less_is_read_than_is_kept(tagging: Any) -> None:
    """A cache of many layers serves the search for the best ones, or has to be written for each."""
    live, cache, head, _ = tagging
    few = Demand(layers={"hidden": frozenset({0, 1})}, pooled={0: "mean", 1: "mean"})
    inputs, targets = batch_of(head, examples(COUNT, TOKEN)[:4])
    found, expected = CachedTeacher(cache, few, head).show(inputs, targets), None
    expected = live.show(inputs, targets)
    assert found.logits is None
    assert found.query == {}
    assert found.hidden.keys() == {0, 1}
    real = targets.mask
    torch.testing.assert_close(found.hidden[0][real], expected.hidden[0][real])
    sums = (expected.hidden[1] * real.unsqueeze(-1)).sum(1)
    torch.testing.assert_close(found.hidden[1].sum(1), sums)


def test_classes_come_in_the_students_order(tagging: Any) -> None:
    """Logits of another class are as good as random, and the loss falls all the same."""
    _, cache, head, demand = tagging
    inputs, targets = batch_of(head, examples(COUNT, TOKEN))
    plain = CachedTeacher(cache, demand, head).show(inputs, targets).logits
    turned = CachedTeacher(cache, demand, head, classes=[2, 0, 1]).show(inputs, targets).logits
    assert plain is not None
    assert turned is not None
    assert torch.equal(turned, plain[..., [2, 0, 1]])


def test_strangers_are_told_of(tagging: Any) -> None:
    """The nearest example's rows are of the right shape."""
    _, cache, head, demand = tagging
    cached = CachedTeacher(cache, demand, head)
    data = examples(COUNT, TOKEN)
    other = {**data[0], "input_ids": data[0]["input_ids"].flip(0)}
    inputs, targets = batch_of(head, [*data[1:4], other])
    with pytest.raises(
        ValueError, match=r"must hold every example, got 1 of 4 that it lacks: their text"
    ):
        cached.show(inputs, targets)


@pytest.mark.parametrize(("storage", "bound"), [("bfloat16", 2**-8), ("int8", 0.5 / 127)])
def test_stored_states_are_as_close_as_they_say(storage: str, bound: float, tmp_path: Path) -> None:
    """A rounding that is larger than it must be is paid for in every step."""
    model = teacher(SEQUENCE)
    head, demand = head_of(model), Demand(True, {"hidden": frozenset({2})})
    data = examples(COUNT)
    live, cache = kept(tmp_path / "c", model, head, demand, data, storage=storage)
    inputs, targets = batch_of(head, data)
    found = CachedTeacher(cache, demand, head).show(inputs, targets)
    expected = live.show(inputs, targets).hidden[2]
    lost = (found.hidden[2].float() - expected)[targets.mask].abs()
    largest = expected[targets.mask].abs().amax(-1, keepdim=True)
    assert (lost <= largest * bound * 1.001 + 1e-5).all()
    assert lost.max() > 0


def test_nothing_is_held_from_step_to_step(tagging: Any) -> None:
    """A teacher that keeps what it read fills the memory in the time of an epoch."""
    _, cache, head, demand = tagging
    cached = CachedTeacher(cache, demand, head)
    inputs, targets = batch_of(head, examples(COUNT, TOKEN))

    def alive() -> int:
        gc.collect()
        return sum(isinstance(each, Tensor) for each in gc.get_objects())

    cached.show(inputs, targets)
    before = alive()
    for _ in range(5):
        cached.show(inputs, targets)
    assert alive() == before


def test_only_what_is_demanded_is_touched(tagging: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that reads whole files is as slow as the disk, whatever the batch."""
    _, cache, head, _ = tagging
    cached = CachedTeacher(cache, Demand(layers={"hidden": frozenset({4})}), head)
    inputs, targets = batch_of(head, examples(COUNT, TOKEN)[:2])
    read: list[tuple[str, int]] = []
    real = cache._parts

    def counted(signal: str, *given: Any) -> dict[str, Tensor]:
        parts = real(signal, *given)
        read.extend((signal, each.nbytes) for each in parts.values())
        return parts

    monkeypatch.setattr(cache, "_parts", counted)
    cached.show(inputs, targets)
    assert {signal for signal, _ in read} == {"hidden.4"}
    assert sum(size for _, size in read) == int(targets.mask.sum()) * 48 * 4
