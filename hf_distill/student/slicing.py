"""Cutting a state dict along the axes that a family's tables name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hf_distill.architectures import (
    FFN,
    HIDDEN,
    OUTER_TENSORS,
    QUERY_KEY,
    VALUE,
    Architecture,
    Axes,
)
from hf_distill.student.indices import IndexSets, Indices


class _Place(NamedTuple):
    """Where a tensor stands: the layer, from 1, or 0 outside the layers; and what its axes are."""

    layer: int
    axes: Axes
    stem: str
    """The name before the layer's number."""
    leaf: str
    """The name after the layer's number."""


def slice_state(
    state: Mapping[str, Tensor], prefix: str, family: Architecture, indices: IndexSets
) -> dict[str, Tensor]:
    """The student's state dict, cut out of the teacher's tensor by tensor.

    Args:
        state: The teacher's state dict, of a model with or without a head.
        prefix: Name of the base model below a head (`base_model_prefix`), as in "bert".
        family: The tables of axes.
        indices: What is kept.

    Returns:
        Copies, under the names that they have in a student of `len(indices.layers)` layers.

    Raises:
        ValueError: A tensor is named by no table, has other axes than its table says, or is not
            held in floating point: it could only be left at random.
    """
    placed = {name: _place(name, prefix, family) for name in state}
    unknown = [
        name
        for name, place in placed.items()
        if place is None or len(place.axes) != state[name].dim()
    ]
    if unknown:
        raise ValueError(
            "teacher must consist of tensors that extraction knows how to cut, got "
            f"{unknown!r}. Extract from the model without this head, and load the head after."
        )
    students = {layer: student for student, layer in enumerate(indices.layers)}
    sliced = {}
    for name, place in placed.items():
        if place is None:
            continue
        _check_weight(name, state[name])
        if place.layer == 0:
            sliced[name] = _cut(state[name], place.axes, {HIDDEN: indices.hidden})
        elif place.layer in students:
            student = students[place.layer]
            sets: dict[str | None, Indices] = {
                HIDDEN: indices.hidden,
                FFN: indices.ffn[student],
                QUERY_KEY: indices.query_key[student],
                VALUE: indices.value[student],
            }
            renamed = f"{place.stem}{student}{place.leaf}"
            sliced[renamed] = _cut(state[name], place.axes, sets)
    return sliced


def rescale_queries(state: dict[str, Tensor], family: Architecture, factor: float) -> None:
    """Multiply every query projection of a state dict, in place.

    With sqrt(k_S / k_T), heads cut from k_T to k_S channels give the scores that the teacher's
    would with the same channels masked: attention divides by sqrt(k_S) instead of sqrt(k_T).
    """
    for name, tensor in state.items():
        if name.rpartition(".")[0].endswith(f".{family.query}"):
            tensor.mul_(factor)


def _place(name: str, prefix: str, family: Architecture) -> _Place | None:
    inner = name.removeprefix(f"{prefix}.")
    inside = re.fullmatch(rf"({re.escape(family.layers)}\.)(\d+)\.(.+)", inner)
    if inside is None:
        outer = OUTER_TENSORS.get(inner)
        return None if outer is None else _Place(0, outer, name, "")
    stem, number, leaf = inside.groups()
    axes = family.layer_tensors.get(leaf)
    if axes is None:
        return None
    before = name[: len(name) - len(inner)] + stem
    return _Place(int(number) + 1, axes, before, f".{leaf}")


def _check_weight(name: str, tensor: Tensor) -> None:
    if tensor.is_meta or not tensor.is_floating_point():
        held = "no data (device meta)" if tensor.is_meta else str(tensor.dtype)
        raise ValueError(
            f"teacher must hold its weights in floating point, got {held} in {name!r}. "
            "Load it without quantisation and without offloading."
        )


def _cut(tensor: Tensor, axes: Axes, sets: Mapping[str | None, Indices]) -> Tensor:
    """A copy of a tensor, with the chosen indices of every axis that is cut."""
    cut = tensor.detach()
    for dimension, axis in enumerate(axes):
        if axis is not None:
            chosen = torch.tensor(sets[axis], device=tensor.device)
            cut = cut.index_select(dimension, chosen)
    return cut.clone()
