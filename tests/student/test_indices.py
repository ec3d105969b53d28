"""Index sets: how they are chosen, and how they are kept beside a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.student import CHOICES, IndexSets, Size, extract, student_config
from hf_distill.student.choosing import choose
from tests.student.teachers import teacher


def pick(model: Any, size: str, how: str = "magnitude", **changes: Any) -> IndexSets:
    settings = {"layers": "uniform", "decoder_layers": "uniform", "seed": 0, **changes}
    config = student_config(size, model.config)
    return choose(config, model.config, model.state_dict(), how=how, **settings)


@st.composite
def pairs_of_sizes(draw: st.DrawFn) -> tuple[Size, Size]:
    """A student's size and a teacher's that it can be cut from."""

    def up_to(most: int) -> int:
        return draw(st.integers(1, most))

    layers, heads, channels, ffn = up_to(3), up_to(4), up_to(4), up_to(12)
    kept, inside = up_to(heads), up_to(channels)
    student = Size(up_to(layers), kept * inside, kept, up_to(ffn))
    return student, Size(layers, heads * channels, heads, ffn)


@settings(max_examples=25, deadline=None)
@given(pairs_of_sizes(), st.sampled_from(sorted(CHOICES)), st.integers(0, 3))
def test_sets_have_the_students_sizes_and_head_structure(
    sizes: tuple[Size, Size], how: str, seed: int
) -> None:
    """Channels of one head spread over two give attention between parts that never met."""
    student, whole = sizes
    model = teacher(
        num_hidden_layers=whole.layers,
        hidden_size=whole.width,
        num_attention_heads=whole.heads,
        intermediate_size=whole.ffn,
    )
    sets = pick(model, str(student), how, seed=seed)
    assert len(sets.layers) == student.layers
    groups = [(sets.hidden, student.width, whole.width)]
    groups += [(layer.ffn, student.ffn, whole.ffn) for layer in sets.layers]
    for layer in sets.layers:
        for chosen in (layer.attention.query_key, layer.attention.value):
            groups.append((chosen, student.width, whole.width))
    for chosen, count, total in groups:
        assert len(chosen) == count
        assert list(chosen) == sorted(set(chosen))
        assert set(chosen) <= set(range(total))
    for layer in sets.layers:
        heads = [channel // whole.head_size for channel in layer.attention.query_key]
        assert heads == [channel // whole.head_size for channel in layer.attention.value]
        assert all(heads.count(head) == student.head_size for head in heads)
        assert sorted(set(heads)) == list(layer.attention.heads)
    assert IndexSets.from_json(sets.to_json()) == sets


def test_random_sets_differ_by_seed_and_repeat_by_seed() -> None:
    """A seed that is ignored makes the spread over seeds a spread over nothing."""
    model = teacher(num_hidden_layers=4)
    first, again = pick(model, "L2-H16-A4-F20", "random"), pick(model, "L2-H16-A4-F20", "random")
    other = pick(model, "L2-H16-A4-F20", "random", seed=1)
    assert first == again
    assert first.hidden != other.hidden
    for mine, theirs in zip(first.layers, other.layers, strict=True):
        assert mine.ffn != theirs.ffn
        assert mine.attention.query_key != theirs.attention.query_key
        assert mine.attention.value != theirs.attention.value
    assert first.layers[0].ffn != first.layers[1].ffn
    assert first.layers[0].attention.query_key != first.layers[0].attention.value


def test_a_layers_draw_does_not_depend_on_the_other_layers() -> None:
    """Two layer selections with one seed would differ in width too: two changes at once."""
    model = teacher(num_hidden_layers=4)
    upper = pick(model, "L2-H16-A2-F20", "random", layers=(2, 4))
    lower = pick(model, "L2-H16-A2-F20", "random", layers=(1, 2))
    assert upper.hidden == lower.hidden
    assert upper.layers[0] == lower.layers[1]


def test_other_choices_know_no_seed() -> None:
    """A deterministic choice that moves with the seed would be reported without a spread."""
    model = teacher()
    for how in ("magnitude", "stride"):
        assert pick(model, "L1-H16-A2-F20", how) == pick(model, "L1-H16-A2-F20", how, seed=9)


def test_stride_is_evenly_spaced() -> None:
    """A prefix of the units is another method."""
    sets = pick(teacher(), "L1-H16-A4-F20", "stride")
    assert sets.hidden == tuple(range(0, 32, 2))
    assert sets.layers[0].ffn[:6] == (0, 2, 4, 7, 9, 12)
    assert sets.layers[0].attention.query_key[:8] == (0, 2, 4, 6, 8, 10, 12, 14)


@torch.no_grad()
def test_magnitude_takes_hidden_units_by_variance_of_their_embeddings() -> None:
    """By norm, a unit that is large for every word would win: it tells no words apart."""
    model = teacher()
    table = model.get_input_embeddings().weight
    table[:, :16] = table[:, :16] * 0.01 + 100.0
    assert pick(model, "L1-H16-A2-F20").hidden == tuple(range(16, 32))


@torch.no_grad()
@pytest.mark.parametrize("side", ["intermediate.dense.weight", "output.dense.weight"])
def test_magnitude_takes_neurons_by_rows_and_columns(side: str) -> None:
    """Scored by one matrix alone, a neuron that nobody reads is kept."""
    model = teacher()
    weight = model.encoder.layer[1].get_parameter(side)
    large = [3, 11, 40]
    (weight if side.startswith("inter") else weight.T)[large] *= 100.0
    assert pick(model, "L2-F3").layers[1].ffn == tuple(large)
    assert pick(model, "L2-F3").layers[0].ffn != tuple(large)


@torch.no_grad()
def test_magnitude_scores_the_layer_that_is_copied() -> None:
    """Scores of another layer choose neurons that matter there, and nothing shows it."""
    model = teacher(num_hidden_layers=4)
    for number, layer in enumerate(model.encoder.layer, start=1):
        layer.intermediate.dense.weight[[number, 20 + number]] *= 100.0
    kept = pick(model, "L2-F2", layers=(2, 3)).layers
    assert [layer.ffn for layer in kept] == [(2, 22), (3, 23)]


@torch.no_grad()
@pytest.mark.parametrize(
    ("tensor", "across", "moves"),
    [
        ("attention.self.query.weight", False, "query_key"),
        ("attention.self.key.weight", False, "query_key"),
        ("attention.self.value.weight", False, "value"),
        ("attention.output.dense.weight", True, "value"),
    ],
)
def test_magnitude_takes_attention_channels_by_both_their_matrices(
    tensor: str, across: bool, moves: str
) -> None:
    """Queries and keys cut by different sets would be multiplied channel by wrong channel."""
    model = teacher()
    weight = model.encoder.layer[0].get_parameter(tensor)
    large = [1, 5, 8, 9, 18, 23, 30, 31]
    (weight.T if across else weight)[large] *= 100.0
    sets = pick(model, "L2-H8-A4-F48").layers[0].attention
    other = {"query_key": "value", "value": "query_key"}[moves]
    assert getattr(sets, moves) == tuple(large)
    assert getattr(sets, other) != tuple(large)
    whole = pick(model, "L2-H8-A1-F48").layers[0].attention
    assert whole.query_key == whole.value


@torch.no_grad()
def test_magnitude_takes_the_largest_heads_and_then_their_channels() -> None:
    """Channels chosen over all heads at once would break heads apart."""
    model = teacher()
    value = model.encoder.layer[0].attention.self.value.weight
    value[8:16] *= 100.0
    value[24:32] *= 100.0
    value[[9, 10, 24, 31]] *= 100.0
    sets = pick(model, "L2-H4-A2-F48").layers[0].attention
    assert sets.heads == (1, 3)
    assert sets.value == (9, 10, 24, 31)
    assert [channel // 8 for channel in sets.query_key] == [1, 1, 3, 3]


@torch.no_grad()
def test_magnitude_scores_a_decoder_s_attention_to_the_encoder_by_itself() -> None:
    """Cut by the scores of the decoder's own attention, it would lose heads that it needs."""
    model = teacher("T5", "ForConditionalGeneration")
    for number, block in enumerate(model.decoder.block):
        block.layer[0].SelfAttention.v.weight[:32] *= 100.0
        block.layer[1].EncDecAttention.v.weight[16 + 16 * number : 48 + 16 * number] *= 100.0
    kept = extract(model, "L2-A2").indices.decoder
    assert [layer.attention.heads for layer in kept] == [(0, 1), (0, 1)]
    assert [layer.cross.heads for layer in kept if layer.cross] == [(1, 2), (2, 3)]


def test_equal_scores_fall_to_the_earlier() -> None:
    """A sort that is not stable picks other units on another machine."""
    chosen = CHOICES["magnitude"](3, torch.ones(50, dtype=torch.float64), None)  # type: ignore[arg-type]
    assert chosen == (0, 1, 2)


def test_an_unknown_choice_is_named_with_the_nearest() -> None:
    """A misspelt choice that fell back to a default would be published under its name."""
    with pytest.raises(
        ValueError, match=r"how must be one of magnitude, stride, random, got 'rand"
    ):
        pick(teacher(), "L1", "randm")


def test_extraction_json_survives_the_round_trip(tmp_path: Path) -> None:
    """Index sets that cannot be read back make a student that cannot be made again."""
    sets = pick(teacher(), "L2-H8-A2-F20", "random")
    path = sets.save(tmp_path / "checkpoint")
    assert path.name == "extraction.json"
    assert IndexSets.load(tmp_path / "checkpoint") == sets
    assert [layer["source"] for layer in json.loads(path.read_text())["layers"]] == [1, 2]
    hash(sets)


@pytest.mark.parametrize("text", ['{"layers": [1]}', "[]", "3"])
def test_a_foreign_extraction_json_is_refused(text: str) -> None:
    """Missing sets read as empty ones would cut everything away."""
    with pytest.raises(ValueError, match=r"extraction\.json must hold index sets"):
        IndexSets.from_json(text)
