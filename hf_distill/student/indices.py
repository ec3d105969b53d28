"""Which parts of the teacher a student is cut from: index sets, kept beside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hf_distill.architectures.parts import (
    CHANNEL,
    CONTEXT,
    FFN,
    HEADS,
    KEY,
    QUERY,
    VALUE,
    cross,
)
from hf_distill.student.size import Size

EXTRACTION_FILE = "extraction.json"

Indices = tuple[int, ...]


@dataclass(frozen=True)
class AttentionSets:
    """What is kept of one attention.

    Query and key share channels, as they meet in a dot product; so do the value's rows and the
    output's columns.
    """

    heads: Indices
    """Query heads."""
    query_key: Indices
    """Channels of keys, head after head; queries keep the same channels of their heads."""
    value: Indices
    """Channels of values, from the same heads; the output reads the same channels."""

    def axes(self, teacher: Size) -> dict[str, Indices]:
        """Axis -> what is kept of it.

        Args:
            teacher: Its heads say where each channel lies.
        """
        each, size = teacher.heads // teacher.groups, teacher.head_size

        def of_queries(channels: Indices) -> Indices:
            """The channels of the query heads that a choice of key or value channels means."""
            return tuple(
                head * size + channel % size
                for head in self.heads
                for channel in channels
                if channel // size == head // each
            )

        return {
            QUERY: of_queries(self.query_key),
            KEY: self.query_key,
            VALUE: self.value,
            CONTEXT: of_queries(self.value),
            HEADS: self.heads,
            CHANNEL: tuple(
                channel % size
                for channel in self.query_key
                if channel // size == self.query_key[0] // size
            ),
        }


@dataclass(frozen=True)
class LayerSets:
    """What is kept of one layer."""

    source: int
    """The teacher's layer, from 1."""
    ffn: Indices
    """Feed-forward neurons."""
    attention: AttentionSets
    cross: AttentionSets | None = None
    """Of a decoder's attention to the encoder."""

    def axes(self, teacher: Size) -> dict[str, Indices]:
        """Axis -> what is kept of it."""
        found = {FFN: self.ffn, **self.attention.axes(teacher)}
        if self.cross is not None:
            found |= {cross(axis): kept for axis, kept in self.cross.axes(teacher).items()}
        return found


@dataclass(frozen=True)
class IndexSets:
    """What is kept of a teacher. Layers are counted from 1, channels from 0; every set ascends.

    The hidden set is one for the whole model, since the residual stream adds layers coordinate by
    coordinate; the others belong to one kept layer each (ETD, Chen et al. 2021).
    """

    hidden: Indices
    """Units of the residual stream."""
    embedding: Indices
    """Units of the embeddings: the same where no projection lies between."""
    layers: tuple[LayerSets, ...]
    """The m-th becomes student layer m; of layers that are one and the same (ALBERT), one."""
    decoder: tuple[LayerSets, ...] = ()

    @property
    def sources(self) -> Indices:
        """The teacher layers copied, of the encoder where there is a decoder."""
        return tuple(layer.source for layer in self.layers)

    def to_json(self) -> str:
        """The sets as JSON, one layer to a line."""
        parts = {
            "hidden": json.dumps(self.hidden),
            "embedding": json.dumps(self.embedding),
            "layers": _lines(self.layers),
            "decoder": _lines(self.decoder),
        }
        return "{\n" + ",\n".join(f'  "{name}": {text}' for name, text in parts.items()) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> IndexSets:
        """The sets that `to_json` wrote.

        Raises:
            ValueError: The text holds no index sets.
        """
        try:
            found: IndexSets = TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise ValueError(
                f"{EXTRACTION_FILE} must hold index sets, got a fault in {place}: {first['msg']}. "
                "Extract the student again."
            ) from error
        return found

    def save(self, directory: str | Path) -> Path:
        """Write extraction.json into a checkpoint's directory; returns its path."""
        path = Path(directory) / EXTRACTION_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, directory: str | Path) -> IndexSets:
        """Read extraction.json from a checkpoint's directory.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It does not hold index sets.
        """
        return cls.from_json((Path(directory) / EXTRACTION_FILE).read_text(encoding="utf-8"))


def _lines(layers: Sequence[LayerSets]) -> str:
    if not layers:
        return "[]"
    return "[\n" + ",\n".join(f"    {json.dumps(asdict(layer))}" for layer in layers) + "\n  ]"
