"""A finished cache: examples found by their keys, rows read out of mapped files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from hf_distill.cache.about import About, Index
from hf_distill.cache.encoding import decode, decode_top
from hf_distill.cache.folder import Folder
from hf_distill.cache.keys import Places
from hf_distill.cache.rows import RowUnit
from hf_distill.cache.shards import open_shard

ABOUT, INDEX = "about.json", "index.json"
"""What is held; which shards make it up, written last: with it, a cache is finished."""


class Cache:
    """What teachers showed of many examples."""

    def __init__(self, folder: Folder) -> None:
        """Open a cache, and check every byte of it.

        Raises:
            ValueError: There is none, it is not finished, or a file is damaged.
        """
        self.about = read_about(folder)
        if INDEX not in folder:
            raise ValueError(
                f"teacher_cache must be finished, got {folder.url!r}, whose writing was stopped. "
                "Go on with the command that began it: what is there is kept."
            )
        names = _parsed(folder, INDEX, Index).shards
        opened = {name: open_shard(folder, name) for name in names}
        ours = self.about.digest()
        self._shards = [each for each in opened.values() if each and each.facts.about == ours]
        if len(self._shards) < len(names):
            damaged = [name for name, each in opened.items() if each not in self._shards]
            raise ValueError(
                f"shards of {folder.url!r} must be what was written, got {len(damaged)} of "
                f"{len(names)} damaged: {', '.join(damaged[:3])}. Write the cache again with its "
                "command: these alone are computed anew."
            )
        keys = torch.cat([shard.keys for shard in self._shards] or [torch.empty(0, 2).long()])
        self._classes = max((shard.facts.classes for shard in self._shards), default=0)
        self._places = Places(keys)
        self._firsts = [0]
        for shard in self._shards:
            self._firsts.append(self._firsts[-1] + len(shard.keys))

    def __len__(self) -> int:
        """How many examples there are."""
        return self._firsts[-1]

    def find(self, keys: Tensor) -> Tensor:
        """Where examples stand: [B, 2] int64 -> [B] int64, -1 for those that are not there."""
        return self._places.find(keys)

    def rows(self, signal: str, unit: RowUnit, places: Sequence[int]) -> Tensor:
        """The rows [R, W] of one signal, one example after the other.

        Args:
            signal: "logits", "hidden.3".
            unit: What its rows belong to.
            places: Of the examples, as `find` gives them.
        """
        each = [self._parts(signal, unit, place) for place in places]
        parts = {part: torch.cat([one[part] for one in each]) for part in each[0]}
        return decode_top(parts, self._classes) if "class" in parts else decode(parts)

    def _parts(self, signal: str, unit: RowUnit, place: int) -> dict[str, Tensor]:
        number = bisect_right(self._firsts, place) - 1
        return self._shards[number].parts(signal, unit, place - self._firsts[number])


def read_about(folder: Folder) -> About:
    """What a cache holds, finished or not.

    Raises:
        ValueError: There is no cache, or it is of another format.
    """
    if ABOUT not in folder:
        raise ValueError(
            f"teacher_cache must be the folder of a cache, got {folder.url!r}, which has no "
            f"{ABOUT}. Write one with `hf-distill cache`, or take teacher_cache='auto'."
        )
    return _parsed(folder, ABOUT, About)


_Kind = TypeVar("_Kind", bound=BaseModel)


def _parsed(folder: Folder, name: str, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate_json(folder.read(name))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "no JSON"
        raise ValueError(
            f"{name} of {folder.url!r} must be as this version of hf-distill writes it, got "
            f"{where}: {first['msg']}. Write the cache again; where that is refused, into another "
            "folder."
        ) from error


def check_place(folder: Folder) -> None:
    """Check that a folder is empty, or holds a cache.

    Raises:
        ValueError: Something else stands there, or a cache of another format.
    """
    # In this order: another machine may begin it meanwhile, and writes ABOUT first.
    if folder.is_empty():
        return
    if ABOUT not in folder:
        raise ValueError(
            f"the folder of a cache must be new, empty or a cache, got {folder.url!r}, which "
            "holds something else. Name another."
        )
    read_about(folder)


def check_folder(folder: Folder, about: About) -> None:
    """Check that a folder is empty, or holds what is to be written.

    Raises:
        ValueError: Something else stands there.
    """
    check_place(folder)
    other = list(read_about(folder).differences(about)) if ABOUT in folder else []
    if other:
        raise ValueError(
            f"the cache in {folder.url!r} must be of the same teacher and needs, got another "
            f"{'; '.join(other)}. Name another folder, or remove this one."
        )
