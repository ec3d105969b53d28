"""Shards: files of many examples each, whose names are the digests of what they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hf_distill.cache.encoding import Error, Parts
from hf_distill.cache.rows import RowUnit

ENDING = ".safetensors"
_CHUNK = 1 << 24


class ShardFacts(BaseModel):
    """What stands in a shard beside its examples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    """The digest of what the cache holds."""
    classes: int = 0
    """How many logits a row has."""
    errors: dict[str, Error] = {}
    """Of what is stored of each signal, measured on a part of it."""


class ShardBuilder:
    """Gathers examples until there are enough of them for a file."""

    def __init__(self) -> None:
        """Begin with none."""
        self._keys: list[Tensor] = []
        self._counts: dict[RowUnit, list[Tensor]] = defaultdict(list)
        self._parts: dict[str, list[Tensor]] = defaultdict(list)

    def add(
        self, keys: Tensor, counts: Mapping[RowUnit, Tensor], signals: Mapping[str, Parts]
    ) -> None:
        """Add the examples of one batch.

        Args:
            keys: [B, 2] int64.
            counts: How many rows each example has of each unit, [B] each.
            signals: What is stored of each signal's rows, one example after the other.
        """
        self._keys.append(keys)
        for unit, numbers in counts.items():
            self._counts[unit].append(numbers)
        for signal, parts in signals.items():
            for part, values in parts.items():
                self._parts[_name(signal, part)].append(values.cpu())

    def finish(self, facts: ShardFacts) -> tuple[str, bytes]:
        """The file's name and its content."""
        tensors = {name: torch.cat(values) for name, values in self._parts.items()}
        tensors["keys"] = torch.cat(self._keys)
        for unit, numbers in self._counts.items():
            tensors[_starts(unit)] = torch.cat(
                [torch.zeros(1, dtype=torch.int64), *numbers]
            ).cumsum(0)
        content = save(tensors, {"facts": facts.model_dump_json()})
        return f"{sha256(content).hexdigest()}{ENDING}", content


class Shard:
    """A file, mapped into memory: what is not read is not loaded."""

    def __init__(self, path: Path) -> None:
        """Open it."""
        with safe_open(path, "pt") as held:
            self.facts = ShardFacts.model_validate_json(held.metadata()["facts"])
            self._tensors: dict[str, Tensor] = {
                name: held.get_tensor(name)
                for name in held.keys()  # noqa: SIM118  It is no mapping.
            }
        self.keys = self._tensors["keys"]
        # Read again and again, one number at a time.
        self._starts: dict[str, list[int]] = {
            name: tensor.tolist()
            for name, tensor in self._tensors.items()
            if name.startswith(_starts(""))
        }

    def parts(self, signal: str, unit: RowUnit, index: int) -> dict[str, Tensor]:
        """What is stored of one example's rows of a signal."""
        starts = self._starts[_starts(unit)]
        first, last = starts[index], starts[index + 1]
        return {part: self._tensors[name][first:last] for part, name in self._named(signal)}

    def _named(self, signal: str) -> Sequence[tuple[str, str]]:
        return [
            (name.partition("/")[2], name)
            for name in self._tensors
            if name.partition("/")[0] == signal
        ]


def is_whole(path: Path) -> bool:
    """Whether a file holds what its name says."""
    if not path.is_file():
        return False
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return path.name == f"{digest.hexdigest()}{ENDING}"


def _name(signal: str, part: str) -> str:
    return f"{signal}/{part}" if part else signal


def _starts(unit: str) -> str:
    """The tensor that says where each example's rows begin."""
    return f"starts/{unit}"
