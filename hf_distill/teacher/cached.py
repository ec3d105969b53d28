"""A teacher that was run before: what it showed is read from disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hf_distill.cache.cache import Cache
from hf_distill.cache.keys import example_keys
from hf_distill.cache.rows import layouts
from hf_distill.signals.head import Head, Targets
from hf_distill.signals.signals import LAYERED, Demand, Signals


class CachedTeacher:
    """Shows what is kept of a live teacher; nobody downstream can tell them apart."""

    def __init__(
        self, cache: Cache, demand: Demand, head: Head, *, classes: Sequence[int] | None = None
    ) -> None:
        """Of a cache that serves the demand.

        Args:
            cache: What the teacher showed.
            demand: What the objectives need of it.
            head: The student's head.
            classes: For each class of the student, the cache's index of it; None where the order
                is the same.
        """
        about = cache.about
        self.columns: list[str] = about.columns
        """The inputs that the teacher was given."""
        self._cache = cache
        self._classes = None if classes is None else torch.tensor(classes)
        self.reads_rows = about.shown.logits
        """Whether logits are kept, so that it matters which tokens predict."""
        held = layouts(about.shown.demand, head, about.heads)
        wanted = layouts(demand, head, about.heads)
        self._layouts = {name: held[name] for name in wanted}

    def missing(self, keys: Tensor) -> int:
        """How many of these examples are not kept."""
        return int((self._cache.find(keys) < 0).sum())

    @torch.no_grad()
    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """The signals of one batch, on its device.

        Args:
            inputs: The batch.
            targets: Which rows count.

        Raises:
            ValueError: An example is not kept.
        """
        keys = example_keys(inputs, targets, self.columns, rows=self.reads_rows)
        places = self._cache.find(keys)
        if (places < 0).any():
            raise ValueError(absent(int((places < 0).sum()), len(places)))
        shown = {name: self._shown(name, places.tolist(), targets) for name in self._layouts}
        logits = shown.pop("logits", None)
        if logits is not None and self._classes is not None:
            logits = logits.index_select(-1, self._classes.to(logits.device))
        layered: dict[str, Any] = {signal: {} for signal in LAYERED}
        for name, tensor in shown.items():
            signal, _, layer = name.partition(".")
            layered[signal][int(layer)] = tensor
        return Signals(mask=targets.mask, logits=logits, rows=targets.rows, **layered)

    def _shown(self, name: str, places: Sequence[int], targets: Targets) -> Tensor:
        layout = self._layouts[name]
        rows = self._cache.rows(name, layout.unit, places)
        return layout.signal(rows.to(targets.mask.device), targets)


def absent(missing: int, count: int) -> str:
    """The error of examples that a cache does not hold."""
    return (
        f"teacher_cache must hold every example, got {missing} of {count} that it lacks: their "
        "texts, their length at most or their padding to the left changed since it was written, or "
        "they are masked or augmented anew each time. Write the cache for these examples, or take "
        "teacher_cache='auto'."
    )
