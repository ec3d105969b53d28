"""What a cache holds, and of whom: what decides whether it can serve a training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hf_distill.cache.encoding import Storage
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Demand

FORMAT: Literal[1] = 1
"""Of the files. A cache of another format is refused."""


class _Plain(BaseModel):
    # Early pydantic keeps names such as `model_class` for itself.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Taught(_Plain):
    """One teacher, without its weights."""

    name: str
    model_class: str
    config: dict[str, Any]
    weights: str
    """Digest of its tensors."""
    files: str | None = None
    """Digest of the files that it was loaded from, so that they need not be loaded to be known."""

    def digest(self) -> str:
        """Of what it is, wherever it stands."""
        return _digest(self.model_dump(exclude={"name", "files"}))

    def __str__(self) -> str:
        """Its name, and enough of its digest to tell two of one name apart."""
        return f"{self.name} of digest {self.digest()[:8]}"


class Shown(_Plain):
    """Which signals, and how each is stored."""

    logits: bool
    layers: dict[str, list[int]] = {}
    pooled: dict[int, Pooling] = {}
    storage: Storage = "bfloat16"
    top: int | None = None
    """How many of each row's logits are kept; all without."""

    @property
    def demand(self) -> Demand:
        """The same, as it is demanded of a teacher."""
        layers = {signal: frozenset(found) for signal, found in self.layers.items()}
        return Demand(self.logits, layers, self.pooled)

    @property
    def precision(self) -> str:
        """How it is stored, in words: "bfloat16"."""
        likeliest = "" if self.top is None else f", the {self.top} likeliest classes"
        return f"{self.storage}{likeliest}"

    def lacking(self, demand: Demand) -> list[str]:
        """What is demanded and not held: "logits", "hidden.3"."""
        logits = ["logits"] if demand.logits and not self.logits else []
        return logits + [
            f"{signal}.{layer}"
            for signal, layers in sorted(demand.layers.items())
            for layer in sorted(layers)
            if layer not in self.layers.get(signal, ()) or self._too_little(signal, layer, demand)
        ]

    def _too_little(self, signal: str, layer: int, demand: Demand) -> bool:
        """Whether one pooled state is held where others are demanded."""
        held = self.pooled.get(layer) if signal == "hidden" else None
        return held is not None and held != demand.pooled.get(layer)


class About(_Plain):
    """All that was decided before the first example was shown."""

    format: Literal[1] = FORMAT
    teachers: list[Taught]
    together: dict[str, Any] | None = None
    """How several teachers are combined."""
    precision: str
    """What the teachers were run in."""
    columns: list[str]
    """The inputs that were read."""
    head: str
    problem: str
    classes: list[str] | None = None
    """The names of the logits' classes, in order; None where they have none."""
    heads: int
    """Attention heads of the teacher whose layers are shown."""
    shown: Shown
    tokenizer: str | None = None
    """Digest of the vocabulary."""
    facts: dict[str, Any] = {}
    """What a model card says of the teachers."""

    def digest(self) -> str:
        """Two caches of one digest hold the same of the same examples."""
        return _digest(self._decided())

    def differences(self, other: About) -> Iterator[str]:
        """What is not the same, in words: "teacher (bert-large instead of bert-base)"."""
        ours, theirs = self._decided(), other._decided()
        for field in ours:
            if ours[field] != theirs[field]:
                held, asked = (_brief(getattr(each, field)) for each in (self, other))
                yield f"{field} ({held} instead of {asked})"

    def _decided(self) -> dict[str, Any]:
        decided = self.model_dump(exclude={"facts", "teachers"})
        return {**decided, "teachers": [one.digest() for one in self.teachers]}


class Index(_Plain):
    """Which shards make up a cache."""

    shards: list[str]
    errors: dict[str, float] = {}
    """Signal -> what storing lost."""


def _digest(plain: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=16).hexdigest()


def _brief(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else f"{value}"
