"""What is stored of one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from hf_distill.cache.about import Shown
from hf_distill.cache.encoding import Error, Parts, encode, encode_top, error
from hf_distill.cache.rows import Layout, RowUnit
from hf_distill.signals.signals import Signals


class Stored:
    """What is stored of one batch."""

    def __init__(
        self,
        keys: Tensor,
        counts: Mapping[RowUnit, Tensor],
        rows: Mapping[str, Tensor],
        shown: Shown,
    ) -> None:
        """Encode what was shown.

        Args:
            keys: [B, 2] int64, of its examples.
            counts: How many rows each example has of each unit, [B] each.
            rows: Signal -> its rows [R, W].
            shown: How they are stored.

        Raises:
            FloatingPointError: What was shown is no number.
            ValueError: More classes are to be kept than there are.
        """
        self.keys, self.counts = keys, counts
        self._rows = {name: each.cpu() for name, each in rows.items()}
        self.parts = {name: _encoded(name, each, shown) for name, each in self._rows.items()}
        self.classes = rows["logits"].shape[-1] if "logits" in rows else 0

    def errors(self) -> dict[str, Error]:
        """Signal -> what is lost by storing it so."""
        return {name: error(rows, self.parts[name]) for name, rows in self._rows.items()}

    def bytes_per_row(self, layouts: Mapping[str, Layout]) -> dict[RowUnit, int]:
        """Of all signals together."""
        found: dict[RowUnit, int] = defaultdict(int)
        for name, parts in self.parts.items():
            for values in parts.values():
                # No row may be at hand.
                found[layouts[name].unit] += values.itemsize * values.shape[1:].numel()
        return found


def _encoded(name: str, rows: Tensor, shown: Shown) -> Parts:
    if not rows.isfinite().all():
        raise FloatingPointError(
            f"what the teacher shows must be finite numbers, got others in {name}. Run it in "
            "bfloat16 or float32: teacher_dtype."
        )
    if name == "logits" and shown.top is not None:
        classes = rows.shape[-1]
        if shown.top > classes:
            raise ValueError(
                f"top must be at most the number of classes, {classes}, got {shown.top!r}. Leave "
                "it out to keep them all."
            )
        return encode_top(rows, shown.top, shown.storage)
    return encode(rows, shown.storage)


def signal_of(shown: Signals, name: str) -> Tensor:
    """A signal by its name: "logits", "hidden.3"."""
    signal, _, layer = name.partition(".")
    found: Tensor = getattr(shown, signal)[int(layer)] if layer else getattr(shown, signal)
    return found
