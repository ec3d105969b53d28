"""What a few repeated measurements say: the median, and how far they spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Quartiles(NamedTuple):
    """Of some numbers."""

    low: float
    middle: float
    high: float

    def shown(self, digits: int) -> str:
        """The median and, in parentheses, the others."""
        low, middle, high = (f"{each:.{digits}f}" for each in self)
        return f"{middle} ({low} to {high})"


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of a sample of two or more; of one, itself."""
    if len(values) == 1:
        return Quartiles(*(3 * list(values)))
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))
