"""Slicing a state dict: what is cut, what is dropped, what is refused."""

from __future__ import annotations

import pytest
import torch

from hf_distill.architectures import ARCHITECTURES
from hf_distill.student import IndexSets
from hf_distill.student.slicing import rescale_queries, slice_state

FAMILY = ARCHITECTURES["bert"]
SETS = IndexSets(layers=(2,), hidden=(1, 3), ffn=((0, 2),), query_key=((0, 1),), value=((2, 3),))
BIAS = "bert.encoder.layer.{}.intermediate.dense.bias"


def test_layers_are_renumbered_and_dropped() -> None:
    """A layer under its old number is not loaded, and the student's stays random."""
    state = {BIAS.format(number): torch.arange(4.0) + 10 * number for number in range(3)}
    sliced = slice_state(state, "bert", FAMILY, SETS)
    assert list(sliced) == [BIAS.format(0)]
    assert sliced[BIAS.format(0)].tolist() == [10.0, 12.0]


def test_both_axes_are_cut_by_their_own_sets() -> None:
    """Two axes of equal length hide a swap of their sets."""
    weight = torch.arange(16.0).view(4, 4)
    name = "encoder.layer.1.attention.{}.weight"
    state = {name.format("self.value"): weight, name.format("output.dense"): weight}
    sliced = slice_state(state, "bert", FAMILY, SETS)
    assert sliced["encoder.layer.0.attention.self.value.weight"].tolist() == [[9, 11], [13, 15]]
    assert sliced["encoder.layer.0.attention.output.dense.weight"].tolist() == [[6, 7], [14, 15]]


def test_a_tensor_kept_whole_is_a_copy() -> None:
    """A student that shares its label biases with the teacher trains the teacher."""
    state = {"classifier.bias": torch.zeros(3)}
    slice_state(state, "bert", FAMILY, SETS)["classifier.bias"].fill_(7.0)
    assert state["classifier.bias"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.1.attention.self.distance_embedding.weight",
        "bert.embeddings.position_ids",
        "crf.transitions",
        "bert.bert.pooler.dense.weight",
    ],
)
def test_a_tensor_without_an_entry_is_refused(name: str) -> None:
    """Left out, it would stay at random in the student."""
    with pytest.raises(ValueError, match=f"knows how to cut, got .*{name}"):
        slice_state({name: torch.zeros(4, 4)}, "bert", FAMILY, SETS)


def test_a_tensor_of_other_dimensions_is_refused() -> None:
    """A classifier of one's own under a known name, cut along the wrong axes."""
    with pytest.raises(ValueError, match=r"got \['classifier\.weight'\]"):
        slice_state({"classifier.weight": torch.zeros(2, 4, 4)}, "bert", FAMILY, SETS)


@pytest.mark.parametrize(
    ("tensor", "held"),
    [
        (torch.zeros(4, dtype=torch.int8), r"torch\.int8"),
        (torch.zeros(4, device="meta"), r"no data \(device meta\)"),
    ],
)
def test_quantised_and_offloaded_weights_are_refused(tensor: torch.Tensor, held: str) -> None:
    """Copied into floats, quantised integers are weights of a wrong scale."""
    with pytest.raises(ValueError, match=f"floating point, got {held} in 'pooler.dense.bias'"):
        slice_state({"pooler.dense.bias": tensor}, "bert", FAMILY, SETS)


def test_rescaling_touches_queries_only() -> None:
    """Keys scaled as well would square the factor."""
    names = [f"encoder.layer.0.attention.self.{part}.bias" for part in ("query", "key", "value")]
    state = {name: torch.ones(2) for name in names}
    rescale_queries(state, FAMILY, 0.5)
    assert [state[name][0].item() for name in names] == [0.5, 1.0, 1.0]
