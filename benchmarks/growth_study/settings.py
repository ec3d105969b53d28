"""What is made larger, while everything else stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """Of a BERT."""

    layers: int
    width: int
    heads: int


@dataclass(frozen=True)
class Setting:
    """A training to be measured."""

    student: Shape
    teacher: Shape
    batch: int
    length: int
    examples: int
    pairs: tuple[tuple[int, int], ...]
    """Layers whose hidden states are compared."""
    logits: bool = True
    """Whether logits are compared too."""
    grouped: bool = False
    """Whether examples of like length share a batch."""
    steps: int = 10
    """Measured ones."""
    cached: bool = False
    """Whether the teacher is read from a cache, which is written before."""


@dataclass(frozen=True)
class Growth:
    """One thing that grows."""

    what: str
    how: str
    unit: str
    """What is counted, as the head of a column."""
    settings: Mapping[int, Setting]
    """By how many there are."""
    quadratic: bool = False
    """Whether a part of the time is expected to grow with the square."""


_TINY = Setting(
    Shape(2, 64, 2), Shape(2, 64, 2), batch=32, length=16, examples=0, pairs=((2, 2),), steps=30
)
_USUAL = Setting(
    Shape(6, 256, 8),
    Shape(12, 384, 12),
    batch=2,
    length=0,
    examples=20,
    steps=8,
    pairs=tuple((layer, 2 * layer) for layer in range(7)),
)
_DEEP = Setting(
    Shape(12, 128, 4), Shape(12, 384, 12), batch=8, length=64, examples=80, pairs=(), steps=8
)


def _last(count: int) -> tuple[tuple[int, int], ...]:
    """So many pairs of layers, the deepest of both."""
    return tuple((layer, layer) for layer in range(13 - count, 13))


_EXAMPLES: Sequence[int] = (1_000, 10_000, 100_000)
_LENGTHS: Sequence[int] = (32, 64, 128, 256, 512)
_LAYERS: Sequence[int] = (1, 4, 8, 12)
_DEPTHS: Sequence[int] = (1, 4, 8, 12)

LIVE, CACHED = "live teacher", "cached teacher"
GROWTHS: Mapping[str, Growth] = {
    "examples": Growth(
        "Number of examples",
        LIVE,
        "examples",
        {count: replace(_TINY, examples=count) for count in _EXAMPLES},
    ),
    "examples-grouped": Growth(
        "Number of examples",
        "live, examples grouped by length",
        "examples",
        {count: replace(_TINY, examples=count, grouped=True) for count in _EXAMPLES},
    ),
    "length": Growth(
        "Sequence length",
        LIVE,
        "tokens",
        {length: replace(_USUAL, length=length) for length in _LENGTHS},
        quadratic=True,
    ),
    "layers": Growth(
        "Layers compared",
        LIVE,
        "layers",
        {count: replace(_DEEP, pairs=_last(count)) for count in _LAYERS},
    ),
    "depth": Growth(
        "Deepest layer compared",
        "live, without logits",
        "layer",
        {depth: replace(_DEEP, pairs=((6, depth),), logits=False) for depth in _DEPTHS},
    ),
    "cached-examples": Growth(
        "Number of examples",
        CACHED,
        "examples",
        {count: replace(_TINY, examples=count, cached=True) for count in _EXAMPLES},
    ),
    "cached-length": Growth(
        "Sequence length",
        CACHED,
        "tokens",
        {length: replace(_USUAL, length=length, cached=True) for length in _LENGTHS},
        quadratic=True,
    ),
    "cached-layers": Growth(
        "Layers compared",
        CACHED,
        "layers",
        {count: replace(_DEEP, pairs=_last(count), cached=True) for count in _LAYERS},
    ),
}
