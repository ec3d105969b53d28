"""Shards: files of many examples each, whose names are the digests of what they hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hf_distill.cache.encoding import Error, Parts
from hf_distill.cache.folder import Folder
from hf_distill.cache.rows import RowUnit

ENDING = ".safetensors"
_STARTS = "starts"
"""Of the tensors, one for each unit, that say where each example's rows begin."""
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
            tensors[_name(_STARTS, unit)] = torch.cat(
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
            self._parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
            for name in held.keys():  # noqa: SIM118  It is no mapping.
                signal, _, part = name.partition("/")
                self._parts[signal][part] = held.get_tensor(name)
        self.keys = self._parts["keys"][""]
        # Read again and again, one number at a time: quicker so than out of a tensor.
        self._starts: dict[str, Any] = {
            unit: starts.numpy() for unit, starts in self._parts[_STARTS].items()
        }

    def parts(self, signal: str, unit: RowUnit, index: int) -> dict[str, Tensor]:
        """What is stored of one example's rows of a signal."""
        first, last = self._starts[unit][index : index + 2]
        return {part: values[first:last] for part, values in self._parts[signal].items()}


def open_shard(folder: Folder, name: str) -> Shard | None:
    """A shard, once every byte of it is checked; None where it is missing or damaged."""
    for anew in (False, True):  # A copy may be damaged where the file is not.
        if name in folder and _is_whole(path := folder.local(name, anew=anew)):
            return Shard(path)
    return None


def _is_whole(path: Path) -> bool:
    """Whether a file holds what its name says."""
    return path.is_file() and path.name == f"{file_digest(path)}{ENDING}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, which is never in memory whole."""
    digest = sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _name(signal: str, part: str) -> str:
    return f"{signal}/{part}" if part else signal
