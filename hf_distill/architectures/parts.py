"""What the tensors of a family are: the axes along which each can be cut, and its role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HIDDEN = "hidden"
"""Units of the residual stream."""
EMBEDDING = "embedding"
"""Units of the embeddings, where a projection to the residual stream follows them."""
QUERY, KEY, VALUE, CONTEXT = "query", "key", "value", "context"
"""Channels of queries, of keys, of values, and of the values that each query head has gathered.
Where keys and values have heads of their own, query and context have more channels than they."""
FFN = "ffn"
"""Feed-forward neurons."""
HEADS = "heads"
"""Query heads."""
CHANNEL = "channel"
"""Channels of one head, the same for all of a layer."""
POSITIONS = "positions"
"""Rows of a table of positions."""
WHOLE = None
"""An axis that is never cut."""

Axis = str | tuple[str, ...] | None
"""A tuple: several axes one behind the other, as in a projection to query, key and value at once.
"""


@dataclass(frozen=True)
class Part:
    """What one tensor is."""

    role: str
    """What it does, by the same name in all families that have it."""
    axes: tuple[Axis, ...]

    @property
    def runs(self) -> tuple[tuple[str, ...], ...]:
        """For each dimension, the axes that lie along it one behind the other; () if whole."""
        return tuple((axis,) if isinstance(axis, str) else axis or () for axis in self.axes)


Parts = Mapping[str, Part]
"""Name of a tensor -> what it is."""


def cross(axis: str) -> str:
    """The axis of a decoder's attention to its encoder that answers to one of its own."""
    return f"cross_{axis}"


def linear(role: str, path: str, out: Axis, into: Axis) -> dict[str, Part]:
    """A torch Linear: weight [out, in]."""
    return {
        f"{path}.weight": Part(f"{role}.weight", (out, into)),
        f"{path}.bias": Part(f"{role}.bias", (out,)),
    }


def conv1d(role: str, path: str, out: Axis, into: Axis) -> dict[str, Part]:
    """A Conv1D of GPT-2: weight [in, out]."""
    return {
        f"{path}.weight": Part(f"{role}.weight", (into, out)),
        f"{path}.bias": Part(f"{role}.bias", (out,)),
    }


def norm(role: str, path: str, axis: str = HIDDEN) -> dict[str, Part]:
    """A LayerNorm or RMSNorm."""
    return {f"{path}.{leaf}": Part(f"{role}.{leaf}", (axis,)) for leaf in ("weight", "bias")}


def table(role: str, path: str, rows: Axis = WHOLE, columns: Axis = HIDDEN) -> dict[str, Part]:
    """An embedding: weight [rows, columns]."""
    return {f"{path}.weight": Part(f"{role}.weight", (rows, columns))}


def attention(query: str, key: str, value: str, output: str, *, of: str = "") -> dict[str, Part]:
    """The four projections of an attention; `of` is "cross_" for that to the encoder."""
    return {
        **linear(f"{of}query", query, of + QUERY, HIDDEN),
        **linear(f"{of}key", key, of + KEY, HIDDEN),
        **linear(f"{of}value", value, of + VALUE, HIDDEN),
        **linear(f"{of}output", output, HIDDEN, of + CONTEXT),
    }


@dataclass(frozen=True)
class Stack:
    """A list of layers."""

    path: str
    """Below the base model."""
    parts: Parts
    """Name below a layer -> what it is."""
    first: Parts = field(default_factory=dict)
    """The same, of what the first layer alone has and the others share."""
    takes_up: Mapping[str, str] = field(default_factory=dict)
    """Projection -> the norm before it that the first layer does without. Where another layer
    becomes the first, the projection takes up the norm's gain."""


_SIZES = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
}


@dataclass(frozen=True)
class Anatomy:
    """All that extraction knows of a family."""

    stacks: Sequence[Stack]
    """The layers, and those of a decoder beside the encoder."""
    outer: Parts
    """Tensors outside the layers, by their name without the base model's prefix."""
    sizes: Mapping[str, str] = field(default_factory=lambda: dict(_SIZES))
    """Field of `Size` -> its name in the family's config. What is not named follows from others."""
    also: Mapping[str, str] = field(default_factory=dict)
    """A further name in the config -> field of `Size`."""
    position_offset: int | str = 0
    """Row of the first position: a number, or "pad" for the row after the padding token's id."""
    rotary: bool = False
    """Whether queries and keys are rotated, channel i together with i + d/2."""
    scaled: bool = True
    """Whether attention divides by the root of the head size."""
    same_heads: bool = False
    """Whether all layers share a bias for each head, and so must keep the same heads."""
    projects: bool = False
    """Whether a projection follows embeddings of the residual stream's own width, too (ALBERT)."""
    shared: bool = False
    """Whether one layer is run several times (ALBERT)."""


def sizes(**other: str) -> dict[str, str]:
    """BERT's names of the sizes, but for those given."""
    return {**_SIZES, **other}
