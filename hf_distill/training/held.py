"""A cache that is there already: what it says of its teachers, and whether it serves a training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import torch
from torch import nn

from hf_distill.cache.about import About, Shown, Taught
from hf_distill.cache.cache import Cache
from hf_distill.cache.encoding import Storage
from hf_distill.cache.folder import Folder
from hf_distill.objectives.mixture import Mixture
from hf_distill.signals.head import Head
from hf_distill.signals.signals import Demand
from hf_distill.teacher.adapters import Adapter
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.identity import files_digest, hollow, taught_by
from hf_distill.teacher.several import Ensemble
from hf_distill.teacher.weights import Dtype, check_dtype
from hf_distill.training.pairing import class_names, load_teacher
from hf_distill.training.teaching import Teaching

AUTO = "auto"
"""A cache in its own place under the Hugging Face home, written where it is missing."""


class HeldTeaching(Teaching):
    """Teachers of whom a cache is there: they need not be."""

    def __init__(
        self,
        place: str | os.PathLike[str],
        teacher: Any,
        student: Any,
        head: Head,
        dtype: Dtype | None,
    ) -> None:
        """Open the cache.

        Args:
            place: Its folder.
            teacher: The teachers as the user named them, to be compared with the cache's; None for
                whoever they were.
            student: The student.
            head: The student's.
            dtype: What the teachers must have been run in, unless it is None or "auto".

        Raises:
            ValueError: There is no such cache, or it is of other teachers.
        """
        check_dtype(dtype)
        self._cache = Cache(Folder(os.fspath(place)))
        self._about = self._cache.about
        if teacher is not None:
            _check_same(teacher, self._about, head)
        # Models without weights, which every check takes for the teachers.
        models = [hollow(one) for one in self._about.teachers]
        how = self._about.together
        super().__init__(models[0] if how is None else Ensemble(models, **how), student, head)
        self._precision = None if dtype == "auto" else dtype

    def check(self, mixture: Mixture, tokenizer: Any = None) -> None:
        """Check also that the cache serves this training.

        Raises:
            ValueError: It holds too little, or something else.
        """
        super().check(mixture, tokenizer)
        about, demand = self._about, mixture.demands()[1]
        lacking = about.shown.lacking(demand)
        pairs = {
            "head": (about.head, self._head.suffix if demand.logits else None),
            "tokenizer": (about.tokenizer, tokenizer_digest(tokenizer)),
            "precision": (about.precision, self._precision),
        }
        told = [f"it lacks {', '.join(lacking)}"] if lacking else []
        told += [
            f"its {name} is another, {held} instead of {asked}"
            for name, (held, asked) in pairs.items()
            if held is not None and asked is not None and held != asked
        ]
        if told:
            raise ValueError(
                f"teacher_cache must serve this training, got one that does not: {'; '.join(told)}."
                " Write another, or take teacher_cache='auto'."
            )

    def begin(self, demand: Demand, *args: Any, **kwargs: Any) -> CachedTeacher:
        """What shows the teachers' signals; after `check`."""
        classes = _order(self._about.classes, self._student) if demand.logits else None
        return CachedTeacher(self._cache, demand, self._head, classes=classes)

    def facts(self, device: torch.device) -> dict[str, Any]:
        """What the card of whoever wrote the cache would say, and that it was read."""
        return {**self._about.facts, "teacher_cache": self._about.shown.precision}


def teaching(
    teacher: Any,
    student: Any,
    head: Head,
    dtype: Dtype | None,
    cache: str | os.PathLike[str] | None,
) -> Teaching:
    """Who teaches: live teachers, or a cache that is there."""
    if cache is None or cache == AUTO:
        return Teaching(teacher, student, head, dtype)
    return HeldTeaching(cache, teacher, student, head, dtype)


def tokenizer_digest(tokenizer: Any) -> str | None:
    """Of a tokenizer's vocabulary; None where there is none."""
    if not hasattr(tokenizer, "get_vocab"):
        return None
    known = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return sha256(repr(known).encode()).hexdigest()


def shown(demand: Demand, storage: Storage, top: int | None) -> Shown:
    """What is demanded, and how it is stored, as a cache says it."""
    return Shown(
        logits=demand.logits,
        layers={signal: sorted(layers) for signal, layers in sorted(demand.layers.items())},
        pooled=dict(sorted(demand.pooled.items())),
        storage=storage,
        top=top,
    )


def _order(held: Sequence[str] | None, student: nn.Module) -> list[int] | None:
    """For each class of the student, the cache's index of it; None where the order is the same."""
    ours = class_names(student)
    if held is None or ours is None or list(held) == ours:
        return None
    return [list(held).index(name) for name in ours]


def _check_same(teacher: Any, about: About, head: Head) -> None:
    """Raise ValueError unless these are the teachers of the cache."""
    named = teacher.teachers if isinstance(teacher, Ensemble) else [teacher]
    # What was read from the same files need not be loaded to be the same.
    known = {held.files: held for held in about.teachers if held.files}
    found = [known.get(_files(one)) or _taught(one, head) for one in named]
    if [one.digest() for one in about.teachers] != [one.digest() for one in found]:
        raise ValueError(
            f"teacher must be the one of the cache, {_all(about.teachers)}, got {_all(found)}. "
            "Write a cache of this teacher, or leave the teacher out."
        )
    how = teacher.how if isinstance(teacher, Ensemble) else None
    if how != about.together:
        raise ValueError(
            f"teachers must be combined as those of the cache, {about.together}, got {how}. Write "
            "a cache of these, or leave the teacher out."
        )


def _files(teacher: Any) -> str:
    """The digest of a path's files; of nothing else."""
    named = isinstance(teacher, (str, os.PathLike))
    return (files_digest(os.fspath(teacher)) or "") if named else ""


def _taught(teacher: Any, head: Head) -> Taught:
    if isinstance(teacher, Adapter):
        raise ValueError(
            f"teacher must be the one of the cache, got {teacher!r}, which is never cached. Leave "
            "it out, or leave teacher_cache out."
        )
    return taught_by(teacher if isinstance(teacher, nn.Module) else load_teacher(teacher, head))


def _all(taught: Sequence[Taught]) -> str:
    return " and ".join(map(str, taught))
