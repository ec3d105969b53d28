"""Cutting tensors: what is cut, what is renumbered, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_distill.student import IndexSets, Size, extract
from hf_distill.student.indices import AttentionSets, LayerSets
from hf_distill.student.slicing import Slicer
from tests.student.teachers import teacher

LAYER = LayerSets(2, ffn=(0, 2), attention=AttentionSets((0,), query_key=(0, 1), value=(2, 3)))
SETS = IndexSets(hidden=(1, 3), embedding=(1, 3), layers=(LAYER,))
WHOLE = {"hidden_size": 4, "num_attention_heads": 1, "intermediate_size": 4}


def pair(head: str = "Model") -> tuple[Any, Any]:
    """A teacher of two layers, and a student of the sizes of `SETS`."""
    small = {"num_hidden_layers": 1, "hidden_size": 2, "intermediate_size": 2}
    return teacher("Bert", head, **WHOLE), teacher("Bert", head, **{**WHOLE, **small})


def slicer(model: Any, **options: Any) -> Slicer:
    weights = {name.removeprefix("bert."): each for name, each in model.state_dict().items()}
    return Slicer(weights, Size.of(model.config), SETS, **options)


def test_layers_are_renumbered_and_dropped() -> None:
    """A layer under its old number is not loaded, and the student's stays random."""
    model, student = pair()
    origins = {origin.name: origin for origin in slicer(model).fill(student)}
    bias = origins["encoder.layer.0.intermediate.dense.bias"]
    assert bias.source == "encoder.layer.1.intermediate.dense.bias"
    assert (bias.shape, bias.whole, bias.kind) == ((2,), (4,), "cut")
    expected = model.encoder.layer[1].intermediate.dense.bias[[0, 2]]
    assert torch.equal(student.encoder.layer[0].intermediate.dense.bias, expected)
    assert set(origins) == set(student.state_dict())


def test_both_axes_are_cut_by_their_own_sets() -> None:
    """Two axes of equal length hide a swap of their sets."""
    model, student = pair()
    slicer(model).fill(student)
    ours, theirs = student.encoder.layer[0].attention, model.encoder.layer[1].attention
    assert torch.equal(ours.self.value.weight, theirs.self.value.weight[[2, 3]][:, [1, 3]])
    assert torch.equal(ours.output.dense.weight, theirs.output.dense.weight[[1, 3]][:, [2, 3]])


def test_a_tensor_kept_whole_is_a_copy() -> None:
    """A student that shares its label biases with the teacher trains the teacher."""
    model, student = pair("ForSequenceClassification")
    origins = {origin.name: origin for origin in slicer(model).fill(student)}
    assert origins["classifier.bias"].kind == "copied"
    before = model.classifier.bias.clone()
    with torch.no_grad():
        student.classifier.bias.fill_(7.0)
    assert torch.equal(model.classifier.bias, before)


def test_a_tensor_that_is_missing_is_refused_before_any_is_written() -> None:
    """Left out, it would stay at random in the student."""
    model, student = pair()
    cutter = slicer(model)
    before = student.embeddings.word_embeddings.weight.clone()
    del cutter.weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(
        ValueError, match=r"nothing for \['encoder\.layer\.0\.output\.dense\.bias'\]"
    ):
        cutter.fill(student)
    assert torch.equal(student.embeddings.word_embeddings.weight, before)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(4, 4, 4), "tensors that extraction knows how to cut, got .* with 3 axes"),
        (torch.zeros(4, dtype=torch.int8), r"floating point, got torch\.int8"),
        (torch.zeros(4, device="meta"), r"floating point, got no data \(device meta\)"),
    ],
)
def test_a_weight_that_cannot_be_cut_is_refused(tensor: torch.Tensor, message: str) -> None:
    """Copied into floats, quantised integers are weights of a wrong scale."""
    model, student = pair()
    cutter = slicer(model)
    cutter.weights["pooler.dense.bias"] = tensor
    with pytest.raises(ValueError, match=message):
        cutter.fill(student)


def test_rescaling_touches_queries_only() -> None:
    """Keys scaled as well would square the factor."""
    model = teacher()
    size = "L2-H16-A4-F48"
    plain = extract(model, size).model.state_dict()
    for name, tensor in extract(model, size, rescale_qk=True).model.state_dict().items():
        factor = 0.5**0.5 if ".query." in name else 1.0
        assert torch.allclose(tensor, plain[name] * factor, rtol=1e-14, atol=0), name
