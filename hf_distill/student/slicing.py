"""Cutting the teacher's tensors along the axes that a family's anatomy names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.architectures import Anatomy, Part, anatomy
from hf_distill.architectures.parts import (
    CHANNEL,
    EMBEDDING,
    HEADS,
    HIDDEN,
    POSITIONS,
    QUERY,
    cross,
)
from hf_distill.student.indices import IndexSets, Indices, LayerSets
from hf_distill.student.size import Size


@dataclass(frozen=True)
class Place:
    """Where a tensor stands, and what it is."""

    part: Part
    stack: int | None = None
    """Number of its stack in the anatomy; None outside the layers."""
    layer: int = 0
    """In its stack, from 0."""


@dataclass(frozen=True)
class Origin:
    """What a tensor of the student was made of."""

    name: str
    shape: tuple[int, ...]
    source: str
    """The teacher's tensor, by its name without the base model's prefix."""
    whole: tuple[int, ...]
    """Its shape."""
    made: str = ""
    """`neutral` (a value that changes nothing) or `new` (random) where nothing was its source."""
    note: str = ""
    """What else was done to it."""

    @property
    def kind(self) -> str:
        """What was done: copied, cut, neutral or new."""
        return self.made or ("copied" if self.shape == self.whole else "cut")

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def place(name: str, family: Anatomy) -> Place | None:
    """Where a tensor stands, by its name without the base model's prefix; None if unknown."""
    for number, stack in enumerate(family.stacks):
        inside = re.fullmatch(rf"{re.escape(stack.path)}\.(\d+)\.(.+)", name)
        if inside is not None:
            layer, leaf = int(inside[1]), inside[2]
            parts = stack.parts if layer else {**stack.first, **stack.parts}
            return Place(parts[leaf], number, layer) if leaf in parts else None
    return Place(family.outer[name]) if name in family.outer else None


def inner_name(name: str, prefix: str) -> str:
    """A tensor's name without the base model's prefix, as in "bert."."""
    return name.removeprefix(f"{prefix}.")


class Slicer:
    """Fills a student with what index sets keep of a teacher."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        teacher: Size,
        indices: IndexSets,
        *,
        query_factor: float = 1.0,
    ) -> None:
        """Of one teacher.

        Args:
            weights: Name without the base model's prefix -> tensor.
            teacher: Its size.
            indices: What is kept.
            query_factor: What queries are multiplied by. With sqrt(k_S / k_T), heads cut from k_T
                to k_S channels give the scores that the teacher's would with the same channels
                masked: attention divides by sqrt(k_S) instead of sqrt(k_T).
        """
        self.weights, self.teacher, self.indices = weights, teacher, indices
        self.query_factor, self.by_depth = query_factor, False
        self.normalised = any(".q_norm." in name for name in weights)
        self.read: set[str] = set()
        """The teacher's tensors that the student was filled with, by all the names of each."""
        self.outer: dict[str, Indices] = {
            HIDDEN: indices.hidden,
            EMBEDDING: indices.embedding,
            # Read where all layers keep the same.
            HEADS: indices.layers[0].attention.heads,
        }

    @torch.no_grad()
    def fill(self, student: PreTrainedModel) -> tuple[Origin, ...]:
        """Copy into every tensor of the student; where each came from.

        Raises:
            ValueError: A tensor is known to no table, has no source in the teacher or other axes
                than its table says, or is not held in floating point: it could only stay random.
        """
        origins = []
        # Where scores are divided by the layer's number too (GPT-2), queries make up for a new one.
        self.by_depth = getattr(student.config, "scale_attn_by_inverse_layer_idx", False)
        family = anatomy(student.config)
        for name, tensor, source, where in self._plan(student, family):
            weight = self.weights[source]
            _check_weight(source, weight, where)
            gain = self._gain(source, where, family)
            if gain:
                weight = weight * self.weights[gain]
            cut = self._cut(weight, where, tuple(tensor.shape))
            if cut.shape != tensor.shape:
                raise ValueError(
                    f"teacher must have the shapes of its config, got {tuple(weight.shape)} for "
                    f"{source!r}, which gives {tuple(cut.shape)} instead of {tuple(tensor.shape)}."
                    " Correct its config."
                )
            tensor.copy_(cut)
            note = f"times {gain}" if gain else ""
            origins.append(
                Origin(name, tuple(tensor.shape), source, tuple(weight.shape), note=note)
            )
        return tuple(origins)

    def _plan(
        self, student: PreTrainedModel, family: Anatomy
    ) -> list[tuple[str, Tensor, str, Place]]:
        """Each tensor of the student, by name, with the teacher's that it comes from."""
        found = []
        unknown: list[str] = []
        missing: list[str] = []
        for names, tensor in _tensors(student):
            sources = [each for name in names if (each := self._source(name, family))]
            if sources:
                found.append((names[0], tensor, *sources[0]))
                self.read.update(name for name, _ in sources)
            else:
                (missing if place(names[0], family) else unknown).append(names[0])
        _check_plan(unknown, missing)
        return found

    def _source(self, name: str, family: Anatomy) -> tuple[str, Place] | None:
        """The teacher's tensor that a student's comes from, and its place in the student."""
        where = place(name, family)
        if where is None:
            return None
        if where.stack is None:
            return (name, where) if name in self.weights else None
        stack = family.stacks[where.stack]
        leaf = name.removeprefix(f"{stack.path}.{where.layer}.")
        # What the first layer holds for all is the first's, whichever layers are kept.
        layer = 0 if leaf in stack.first else self._kept(where).source - 1
        source = f"{stack.path}.{layer}.{leaf}"
        return (source, where) if source in self.weights else None

    def _gain(self, source: str, where: Place, family: Anatomy) -> str | None:
        """The norm's weight that a projection takes up, as the student's first layer lacks it."""
        if where.stack is None or where.layer > 0:
            return None
        stack = family.stacks[where.stack]
        before = f"{stack.path}.{self._kept(where).source - 1}."
        gain = before + stack.takes_up.get(source.removeprefix(before), "")
        if gain not in self.weights:
            return None
        self.read.add(gain)
        return gain

    def _kept(self, where: Place) -> LayerSets:
        return (self.indices.layers, self.indices.decoder)[where.stack or 0][where.layer]

    def _cut(self, weight: Tensor, where: Place, shape: tuple[int, ...]) -> Tensor:
        """A copy of a tensor, with what is kept of every axis."""
        sets = dict(self.outer)
        if where.stack is not None:
            sets |= self._kept(where).axes(self.teacher)
        cut = weight.detach()
        for dimension, axes in enumerate(where.part.runs):
            sets[POSITIONS] = tuple(range(shape[dimension]))
            if axes:
                chosen = torch.tensor(self._joined(axes, sets), device=cut.device)
                cut = cut.index_select(dimension, chosen)
        return self._scaled(cut, where, sets)

    def _joined(self, axes: Sequence[str], sets: Mapping[str, Indices]) -> Indices:
        """What is kept of axes that lie one behind the other."""
        found = list(sets[axes[0]])
        start = 0
        for before, axis in pairwise(axes):
            start += self.teacher.extent(before)
            found += [start + index for index in sets[axis]]
        return tuple(found)

    def _scaled(self, cut: Tensor, where: Place, sets: Mapping[str, Indices]) -> Tensor:
        """Queries multiplied by their factor; where they are normalised, that norm instead."""
        factor = self.query_factor
        if self.by_depth and where.stack is not None:
            factor *= (where.layer + 1) / self._kept(where).source
        scaled = (CHANNEL,) if self.normalised else (QUERY, cross(QUERY))
        if factor == 1 or (self.normalised and not where.part.role.startswith("query_norm")):
            return cut
        for dimension, axes in enumerate(where.part.runs):
            start = 0
            for axis in axes:
                length = len(sets[axis])
                if axis in scaled:
                    cut.narrow(dimension, start, length).mul_(factor)
                start += length
        return cut


def _tensors(student: PreTrainedModel) -> list[tuple[list[str], Tensor]]:
    """Every tensor of a state dict once, with the names that share it."""
    found: dict[tuple[int, tuple[int, ...]], tuple[list[str], Tensor]] = {}
    for name, tensor in student.state_dict().items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        inner = inner_name(name, student.base_model_prefix)
        found.setdefault(key, ([], tensor))[0].append(inner)
    return list(found.values())


def _check_plan(unknown: list[str], missing: list[str]) -> None:
    if unknown:
        raise ValueError(
            f"teacher must consist of tensors that extraction knows how to cut, got {unknown!r}"
            ". Extract from the model without this head, and load the head after."
        )
    if missing:
        raise ValueError(
            f"teacher must hold all that its class has, got nothing for {missing!r} of the "
            "student. Load it in the class that it was trained in."
        )


def _check_weight(name: str, tensor: Tensor, where: Place) -> None:
    if tensor.is_meta or not tensor.is_floating_point():
        held = "no data (device meta)" if tensor.is_meta else str(tensor.dtype)
        raise ValueError(
            f"teacher must hold its weights in floating point, got {held} in {name!r}. "
            "Load it without quantisation and without offloading."
        )
    if tensor.dim() != len(where.part.axes):
        raise ValueError(
            "teacher must consist of tensors that extraction knows how to cut, got "
            f"{[name]!r} with {tensor.dim()} axes. Extract from the model without this head, and "
            "load the head after."
        )
