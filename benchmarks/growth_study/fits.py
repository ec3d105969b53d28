"""How fast something grows: exponents, slopes, and a quadratic part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Line(NamedTuple):
    """y = base + slope * x, by least squares."""

    base: float
    slope: float
    explained: float
    """Of the variance of y; 1 where all points lie on the line."""


class Parabola(NamedTuple):
    """y = base + slope * x + bend * x^2, by least squares; none of the three is below 0."""

    base: float
    slope: float
    bend: float

    def quadratic_share(self, x: float) -> float:
        """The part of y at x that grows with the square."""
        return self.bend * x**2 / (self.base + self.slope * x + self.bend * x**2)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The p of y ~ x^p: 0 where y does not grow, 1 where it grows in proportion."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through points of at least two different x."""
    slope, base = np.polyfit(x, y, 1)
    left, spread = np.asarray(y) - (base + slope * np.asarray(x)), np.var(y)
    explained = 1.0 if spread == 0 else 1 - np.mean(left**2) / spread
    return Line(float(base), float(slope), float(explained))


def parabola(x: Sequence[float], y: Sequence[float]) -> Parabola:
    """The parabola through points of at least three different x.

    Every point counts alike, however large: gaps are measured as parts of y.
    """
    from scipy.optimize import nnls

    powers, heights = np.vander(x, 3, increasing=True), np.asarray(y, dtype=float)
    # Of one order, so that none is lost beside the others.
    scale = powers.max(axis=0)
    found, _ = nnls(powers / scale / heights[:, None], np.ones(len(heights)))
    return Parabola(*(float(each) for each in found / scale))
