"""What a cut preserves: the student against its teacher with everything else masked."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
import torch

from hf_distill.student import CHOICES, Importance, IndexSets, Size, extract
from hf_distill.student.slicing import Slicer, inner_name
from tests.student.teachers import (
    CASES,
    PLAIN,
    case,
    close,
    expected,
    inputs,
    narrow,
    outputs,
    teacher,
)

HALF = "L2-H16-F20"
"""Half the heads, and half the residual stream with them."""
INSIDE = "L2-H16-A4-F48"
"""Half the channels of each head."""


def equal(model: Any, batch: Any, size: str, **options: Any) -> bool:
    """Whether a student answers as its masked teacher."""
    student, indices, _ = extract(model, narrow(model, size), **options)
    return close(outputs(student, batch), expected(model, indices, batch))


@pytest.mark.parametrize("name", CASES)
def test_cut_units_and_whole_heads_equal_masked_ones(name: str) -> None:
    """A tensor cut by another set than its neighbours: outputs of the right shape, all wrong.

    Hidden units are masked with norms over the kept ones alone.
    """
    model, batch = case(name)
    assert equal(model, batch, HALF, how="random", seed=3)
    student, indices, _ = extract(model, "L2-F20", how="random", seed=3)
    answers = expected(model, indices, batch)
    assert close(outputs(student, batch), answers)
    assert not close(outputs(model, batch), answers, 1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_channels_inside_heads_equal_masked_ones_when_rescaled(name: str) -> None:
    """Attention divides by the root of the smaller head: sharper rows than were asked for."""
    model, batch = case(name)
    assert equal(model, batch, INSIDE, how="random", rescale_qk=True)
    unscaled = model.config.model_type == "t5"
    assert equal(model, batch, INSIDE, how="random") == unscaled


@pytest.mark.parametrize("how", CHOICES)
@pytest.mark.parametrize("name", PLAIN)
def test_every_way_of_choosing_keeps_the_identities(name: str, how: str) -> None:
    """Heads of a group chosen apart from it, or sets that do not ascend, under one choice only."""
    model, batch = case(name)
    assert equal(model, batch, HALF, how=how)
    assert equal(model, batch, "L2-H8-A2-F20", how=how, rescale_qk=True)


@pytest.mark.parametrize("size", ["L2-A4-G2", "L2-A2-G2", "L2-A2-G1", "L2-A3-G1", "L2-A1-G1"])
@pytest.mark.parametrize("how", ["magnitude", "random"])
def test_groups_keep_their_own_queries(size: str, how: str) -> None:
    """A query head that reads another group's keys: every shape is right."""
    model = teacher("Llama", num_attention_heads=8, num_key_value_heads=2)
    batch = inputs()
    student, indices, _ = extract(model, size, how=how)
    whole = Size.of(model.config)
    groups = sorted({channel // whole.head_size for channel in indices.layers[0].attention.value})
    assert len(groups) == Size.of(student.config).groups
    assert {head // 4 for head in indices.layers[0].attention.heads} == set(groups)
    assert close(outputs(student, batch), expected(model, indices, batch))


@pytest.mark.parametrize(("size", "exact"), [("L2-K8", True), ("L2-K4", True), ("L2-K6", False)])
@pytest.mark.parametrize("family", ["Llama", "Qwen3"])
def test_rotary_pairs_turn_as_they_did_where_they_are_evenly_spaced(
    family: str, size: str, exact: bool
) -> None:
    """Channel i of a pair without i + d/2, or a pair that turns at another's speed."""
    model, batch = teacher(family, head_dim=16), inputs()
    assert equal(model, batch, size, rescale_qk=True) == exact


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, "magnitude") for name in CASES]
    + [(name, how) for name in PLAIN for how in ("stride", "random")],
)
def test_full_size_is_the_identity_bit_for_bit(name: str, how: str) -> None:
    """An index set out of order, or a parameter forgotten, at any size."""
    model, batch = case(name)
    student, *_ = extract(model, "L2", how=how, rescale_qk=True)
    ours, theirs = student.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())
    assert all(map(torch.equal, outputs(student, batch), outputs(model, batch)))


def shuffled(indices: IndexSets, size: Size) -> IndexSets:
    """The same units in another order: hidden ones, neurons, and channels inside values' heads."""
    draw, one_set = random.Random(0), indices.embedding == indices.hidden

    def order(units: tuple[int, ...], run: int = 0) -> tuple[int, ...]:
        run = run or len(units)
        blocks = [units[at : at + run] for at in range(0, len(units), run)]
        return tuple(unit for block in blocks for unit in draw.sample(block, len(block)))

    def layers(stack: Any) -> Any:
        for layer in stack:
            value = order(layer.attention.value, size.head_size)
            own = dataclasses.replace(layer.attention, value=value)
            yield dataclasses.replace(layer, ffn=order(layer.ffn), attention=own)

    hidden = order(indices.hidden)
    embedding = hidden if one_set else order(indices.embedding)
    return IndexSets(
        hidden, embedding, tuple(layers(indices.layers)), tuple(layers(indices.decoder))
    )


@pytest.mark.parametrize("name", CASES)
def test_units_in_another_order_leave_the_outputs_as_they_are(name: str) -> None:
    """A tensor that the tables miss or turn round would mix the residual stream's coordinates."""
    model, batch = case(name)
    student, indices, _ = extract(model, "L2")
    size, order = Size.of(model.config), shuffled(indices, Size.of(model.config))
    held = model.state_dict().items()
    weights = {inner_name(key, model.base_model_prefix): tensor for key, tensor in held}
    Slicer(weights, size, order).fill(student)
    answers = [
        each[..., list(order.hidden)] if each.shape[-1] == size.width else each
        for each in outputs(model, batch)
    ]
    assert close(outputs(student, batch), answers)
    assert any(not torch.equal(ours, theirs) for ours, theirs in zip(
        student.parameters(), model.parameters(), strict=True))  # fmt: skip


@pytest.mark.parametrize("layers", [(1, 3), (2, 4)])
@pytest.mark.parametrize("name", PLAIN)
def test_kept_layers_equal_the_teacher_without_the_others(
    name: str, layers: tuple[int, int]
) -> None:
    """A student's layer with its neighbour's weights, window or share of a common bias."""
    model, batch = case(name, layers=4)
    if model.config.model_type == "albert":
        model.config.num_hidden_layers = 2
        student, *_ = extract(model, "L2")
        assert close(outputs(student, batch), outputs(model, batch))
        return
    if name == "a convolution" and layers[0] > 1:
        pytest.skip("it belongs to the teacher's first layer, and in the student to its own")
    if name == "scores by layer":
        # Early versions divide them in this implementation alone.
        model.set_attn_implementation("eager")
    student, indices, _ = extract(model, "L2", layers=layers, decoder_layers=layers)
    assert close(outputs(student, batch), expected(model, indices, batch))
    assert not close(outputs(student, batch), outputs(model, batch), 1e-3)


@pytest.mark.parametrize("how", ["magnitude", "random"])
@pytest.mark.parametrize("name", PLAIN)
def test_one_go_is_width_and_then_depth(name: str, how: str) -> None:
    """A choice that looks at the kept layers alone gives another student than the two steps."""
    model, _ = case(name, layers=4)
    wide, small = narrow(model, "L4-H8-A2-F20"), narrow(model, "L2-H8-A2-F20")
    once, *_ = extract(model, small, how=how, seed=5, rescale_qk=True)
    first, *_ = extract(model, wide, how=how, seed=5, rescale_qk=True)
    twice, *_ = extract(first, "L2", how="stride")
    for key, tensor in twice.state_dict().items():
        # Up to the order of two factors.
        assert torch.allclose(tensor, once.state_dict()[key], rtol=1e-15, atol=0), key


def test_one_go_is_width_and_then_depth_for_given_scores() -> None:
    """Scores of the whole teacher, of which a layer's are read for its neighbour."""
    model, _ = case("T5 ForConditionalGeneration", layers=4)
    shapes = Importance.equal(model.config).flat()
    scores = Importance.from_flat({name: torch.rand(held.shape) for name, held in shapes.items()})
    once, *_ = extract(model, "L2-H16-A1-F20", how=scores)
    twice, *_ = extract(extract(model, "L4-H16-A1-F20", how=scores).model, "L2")
    for key, tensor in twice.state_dict().items():
        assert torch.equal(tensor, once.state_dict()[key]), key


def test_rescaling_leaves_whole_heads_as_they_are() -> None:
    """A factor from widths instead of head sizes would scale heads that were not cut."""
    model = teacher()
    plain, *_ = extract(model, "L2-H16-A2-F48")
    rescaled, *_ = extract(model, "L2-H16-A2-F48", rescale_qk=True)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, rescaled.state_dict()[name]), name
