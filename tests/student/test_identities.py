"""What a cut preserves: the student against its teacher with everything else masked."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hf_distill.student import CHOICES, Size, extract
from hf_distill.student.slicing import Slicer
from tests.student.teachers import FAMILIES, HEADS, close, inputs, masked, outputs, teacher

WHOLE = "L2-H32-A4-F48"


@pytest.mark.parametrize("how", CHOICES)
def test_cut_neurons_equal_masked_neurons(how: str) -> None:
    """Rows of one and columns of the other matrix from different neurons: outputs of full size."""
    model = teacher()
    student, indices, _ = extract(model, "L2-F20", how=how)
    batch = inputs()
    assert student.config.intermediate_size == 20
    with masked(model, indices):
        expected = outputs(model, batch)
    assert close(outputs(student, batch), expected)
    assert not close(outputs(model, batch), expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS[1:])
@pytest.mark.parametrize("size", ["L2-H16-A2-F20", "L2-H8-A1-F48"])
def test_whole_heads_equal_masked_heads(family: str, head: str, size: str) -> None:
    """A task head or norm cut by another set than the residual stream: logits of the right shape.

    Hidden units are masked with a LayerNorm over the kept ones alone.
    """
    model = teacher(family, head)
    student, indices, _ = extract(model, size, how="random", seed=3)
    batch = inputs(head)
    with masked(model, indices):
        expected = outputs(model, batch)
    assert close(outputs(student, batch), expected)


@pytest.mark.parametrize("size", ["L2-H16-A4-F48", "L2-H8-A2-F20", "L2-H20-A4-F48"])
def test_channels_inside_heads_equal_masked_channels_only_when_rescaled(size: str) -> None:
    """Attention divides by the root of the smaller head: sharper rows than were asked for."""
    model = teacher("Bert", "ForTokenClassification")
    batch = inputs()
    plain, indices, _ = extract(model, size, how="random")
    rescaled, same, _ = extract(model, size, how="random", rescale_qk=True)
    assert indices == same
    with masked(model, indices):
        expected = outputs(model, batch)
    assert close(outputs(rescaled, batch), expected)
    assert not close(outputs(plain, batch), expected, tolerance=1e-3)


def test_rescaling_leaves_whole_heads_as_they_are() -> None:
    """A factor from widths instead of head sizes would scale heads that were not cut."""
    model = teacher()
    plain, *_ = extract(model, "L2-H16-A2-F48")
    rescaled, *_ = extract(model, "L2-H16-A2-F48", rescale_qk=True)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, rescaled.state_dict()[name]), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("how", CHOICES)
def test_full_size_is_the_identity_bit_for_bit(family: str, head: str, how: str) -> None:
    """An index set out of order, or a parameter forgotten, at any size."""
    model = teacher(family, head)
    student, *_ = extract(model, WHOLE, how=how, rescale_qk=True)
    batch = inputs(head)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name
    for ours, theirs in zip(outputs(student, batch), outputs(model, batch), strict=True):
        assert torch.equal(ours, theirs)


def test_permuted_hidden_units_give_permuted_outputs() -> None:
    """A tensor that the tables miss or turn round would mix the residual stream's coordinates."""
    model = teacher()
    student, indices, _ = extract(model, WHOLE)
    order = torch.randperm(32).tolist()
    permuted = dataclasses.replace(indices, hidden=tuple(order))
    Slicer(model.state_dict(), Size.of(model.config), permuted).fill(student)
    batch = inputs()
    expected = [tensor[..., order] for tensor in outputs(model, batch)]
    assert close(outputs(student, batch), expected)
    assert not close(outputs(model, batch), expected, tolerance=1e-3)


def test_kept_layers_equal_the_teacher_without_the_others() -> None:
    """A student layer that holds its neighbour's weights looks like any other."""
    model = teacher(num_hidden_layers=5)
    student, *_ = extract(model, "L3", layers=(1, 3, 4))
    batch = inputs()
    stack = model.encoder.layer
    model.encoder.layer = torch.nn.ModuleList([stack[0], stack[2], stack[3]])
    assert close(outputs(student, batch), outputs(model, batch))
