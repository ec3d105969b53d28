"""How much each unit of a teacher counts: what an extraction chooses by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PretrainedConfig

from hf_distill.architectures import Stack, anatomy
from hf_distill.architectures.parts import (
    CONTEXT,
    FFN,
    HIDDEN,
    KEY,
    QUERY,
    VALUE,
    Part,
    Parts,
    cross,
)
from hf_distill.student.size import Size


@dataclass(frozen=True)
class AttentionScores:
    """Of one attention: A query heads, G heads of keys and values, k channels each."""

    heads: Tensor
    """[A]"""
    query_key: Tensor
    """[G, k], of a channel of queries and keys together."""
    value: Tensor
    """[G, k], of a channel of values."""


@dataclass(frozen=True)
class LayerScores:
    """Of one layer."""

    ffn: Tensor
    """[neurons]"""
    attention: AttentionScores
    cross: AttentionScores | None = None
    """Of a decoder's attention to the encoder."""


@dataclass(frozen=True)
class Importance:
    """A score for every unit that can be cut: the larger, the sooner it is kept.

    Scores are compared within one set only: neurons of a layer, channels of a head, hidden units.
    """

    hidden: Tensor
    """[width]"""
    embedding: Tensor
    """[units of the embeddings]; `hidden` itself where they are the residual stream's."""
    layers: tuple[LayerScores, ...]
    decoder: tuple[LayerScores, ...] = ()

    @classmethod
    def equal(cls, config: PretrainedConfig) -> Importance:
        """Scores of 0 throughout, of a teacher of this config."""
        size, shared = Size.of(config), anatomy(config).shared
        attention = AttentionScores(
            torch.zeros(size.heads),
            torch.zeros(size.groups, size.head_size),
            torch.zeros(size.groups, size.head_size),
        )
        layer = LayerScores(torch.zeros(size.ffn), attention)
        behind = LayerScores(torch.zeros(size.ffn), attention, attention)
        return cls(
            torch.zeros(size.width),
            torch.zeros(size.embedding),
            (layer,) * (1 if shared else size.layers),
            (behind,) * size.decoder,
        )

    def flat(self) -> dict[str, Tensor]:
        """Name -> tensor, as a file holds them: layers.1.attention.heads; layers from 1."""
        found = {"hidden": self.hidden, "embedding": self.embedding}
        for stack in ("layers", "decoder"):
            for number, layer in enumerate(getattr(self, stack), start=1):
                found[f"{stack}.{number}.ffn"] = layer.ffn
                for name in ("attention", "cross"):
                    attention = getattr(layer, name)
                    for field in _ATTENTION if attention else ():
                        found[f"{stack}.{number}.{name}.{field}"] = getattr(attention, field)
        return found

    def save(self, path: str | Path) -> None:
        """Write the scores as safetensors."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in self.flat().items()}
        # Tensors that are one in memory are refused by the format.
        save_file({name: tensor.clone() for name, tensor in held.items()}, str(path))

    @classmethod
    def load(cls, path: str | Path) -> Importance:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It holds no scores.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"scores must be a file, got {str(path)!r}. Score again.")
        return cls.from_flat(load_file(str(path)))

    @classmethod
    def from_flat(cls, tensors: Mapping[str, Tensor]) -> Importance:
        """The scores of `flat`.

        Raises:
            ValueError: Names are missing or unknown.
        """
        try:
            found = cls(
                tensors["hidden"],
                tensors["embedding"],
                tuple(_layers("layers", tensors)),
                tuple(_layers("decoder", tensors)),
            )
        except KeyError as error:
            raise ValueError(
                f"scores must hold {error.args[0]}, got {sorted(tensors)[:4]} and more. "
                "Score the teacher again."
            ) from error
        if set(found.flat()) != set(tensors):
            foreign = sorted(set(tensors) - set(found.flat()))
            raise ValueError(f"scores must be of units, got {foreign}. Score the teacher again.")
        return found

    def check(self, config: PretrainedConfig) -> None:
        """Refuse scores of another teacher's shape.

        Raises:
            ValueError: A shape differs.
        """
        asked = {name: tuple(held.shape) for name, held in Importance.equal(config).flat().items()}
        got = {name: tuple(held.shape) for name, held in self.flat().items()}
        for name in asked.keys() | got.keys():
            if asked.get(name) != got.get(name):
                raise ValueError(
                    f"scores must be of a teacher of this shape ({name}: {asked.get(name)}), "
                    f"got {got.get(name)}. Score this teacher."
                )


def _layers(stack: str, tensors: Mapping[str, Tensor]) -> Iterator[LayerScores]:
    number = 1
    while f"{stack}.{number}.ffn" in tensors:
        here = f"{stack}.{number}"
        yield LayerScores(
            tensors[f"{here}.ffn"],
            _attention(f"{here}.attention", tensors),
            _attention(f"{here}.cross", tensors) if f"{here}.cross.heads" in tensors else None,
        )
        number += 1


def _attention(name: str, tensors: Mapping[str, Tensor]) -> AttentionScores:
    return AttentionScores(*(tensors[f"{name}.{field}"] for field in _ATTENTION))


_ATTENTION = tuple(AttentionScores.__dataclass_fields__)


def magnitudes(weights: Mapping[str, Tensor], config: PretrainedConfig) -> Importance:
    """Scores from the weights alone: no data, no seed.

    Hidden units by the variance of the word embeddings in them; all others by their squared L2
    norm over all matrices that have them: of a neuron, its row of the first and its column of the
    second.

    Args:
        weights: Name without the base model's prefix -> tensor. Each is read once.
        config: The teacher's config.
    """
    size, family = Size.of(config), anatomy(config)
    depths = (1 if family.shared else size.layers, size.decoder)
    stacks = [
        tuple(_scored(stack, number, weights, size) for number in range(depth))
        for stack, depth in zip(family.stacks, depths, strict=False)
    ]
    return Importance(*_spread(weights, family.outer), *stacks)


def _scored(stack: Stack, number: int, weights: Mapping[str, Tensor], size: Size) -> LayerScores:
    energy: dict[str, Tensor] = {}
    for leaf, part in stack.parts.items():
        name = f"{stack.path}.{number}.{leaf}"
        if len(part.axes) == 2 and name in weights:
            for axis, scores in _energies(weights[name], part, size):
                energy[axis] = energy.get(axis, torch.zeros(())) + scores
    return LayerScores(
        energy[FFN],
        _of_attention(energy, size, str),
        _of_attention(energy, size, cross) if cross(QUERY) in energy else None,
    )


def _of_attention(energy: Mapping[str, Tensor], size: Size, name: Any) -> AttentionScores:
    """The scores of heads and channels, from those of the rows and columns of the matrices."""
    per_head = {
        axis: energy[name(axis)].view(size.groups, -1, size.head_size)
        for axis in (QUERY, KEY, VALUE, CONTEXT)
    }
    query_key = per_head[QUERY].sum(dim=1) + per_head[KEY][:, 0]
    value = per_head[CONTEXT].sum(dim=1) + per_head[VALUE][:, 0]
    heads = sum(per_head.values()).sum(dim=-1)  # type: ignore[union-attr]
    return AttentionScores(heads.reshape(-1), query_key, value)


def _energies(weight: Tensor, part: Part, size: Size) -> Iterator[tuple[str, Tensor]]:
    """Each axis of a matrix that can be cut, and the squared norms along it."""
    for dimension, names in enumerate(part.runs):
        if names and HIDDEN not in names:
            lengths = [size.extent(name) for name in names]
            sums = (block.square().sum(dim=1 - dimension) for block in _blocks(weight))
            energies = _total(sums) if dimension else torch.cat(list(sums))
            yield from zip(names, energies.split(lengths), strict=True)


def _spread(weights: Mapping[str, Tensor], outer: Parts) -> tuple[Tensor, Tensor]:
    """Variance of the word embeddings, in the residual stream and in their own units."""
    names = {part.role: name for name, part in outer.items() if name in weights}
    words = weights[names["words.weight"]]
    mean = _total(block.sum(dim=0) for block in _blocks(words)) / len(words)
    centred = (block - mean for block in _blocks(words))
    if "embedding_projection.weight" not in names:
        spread = _total(block.square().sum(dim=0) for block in centred) / (len(words) - 1)
        return spread, spread
    covariance = _total(block.T @ block for block in centred) / (len(words) - 1)
    matrix = exact(weights[names["embedding_projection.weight"]])
    return ((matrix @ covariance) * matrix).sum(dim=1), covariance.diagonal().clone()


def _blocks(matrix: Tensor) -> Iterator[Tensor]:
    """A matrix in float64, some rows at a time.

    As a whole it would take twice its place. Large ones freed between small ones that stay would
    not be given back to the system, either: that cost 18 MB for each layer of a BERT-large.
    """
    return map(exact, matrix.split(max(2**16 // matrix.shape[1], 1)))


def _total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of tensors, of which one at a time is held."""
    return reduce(torch.add, parts)


def exact(weight: Tensor) -> Tensor:
    """A weight in float64 on the CPU, so that the choice is the same on every machine."""
    return weight.detach().to(device="cpu", dtype=torch.float64)
