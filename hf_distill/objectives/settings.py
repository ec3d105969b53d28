"""Checks of an objective's settings: each raises ValueError, with a remedy, out of its range."""

from __future__ import annotations

import math
import operator
from typing import Any

from hf_distill.objectives.schedule import extremes

_HOLDS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def check_number(
    name: str,
    value: Any,
    remedy: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise ValueError unless a setting is a number in its range, at both ends of a schedule.

    Args:
        name: The setting's.
        value: What was given.
        remedy: The sentence that says what else to do.
        above: What it must be above.
        at_least: What it must not be below.
        below: What it must be below.
        at_most: What it must not be above.
    """
    limits = {
        sign: limit
        for sign, limit in zip(_HOLDS, (above, at_least, below, at_most), strict=True)
        if limit is not None
    }
    for each in extremes(value):
        number = isinstance(each, int | float) and not isinstance(each, bool)
        fits = number and all(_HOLDS[sign](each, limit) for sign, limit in limits.items())
        if not fits or math.isinf(each):
            kind = "number" if limits.keys() & {"<", "<="} else "finite number"
            rule = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items())
            raise ValueError(f"{name} must be a {kind} {rule}, got {value!r}. {remedy}")


def check_temperature(value: Any) -> None:
    """Raise ValueError unless this can be a temperature."""
    check_number("temperature", value, "Use 1 for the models' own distributions.", above=0)


def check_count(name: str, value: Any, remedy: str) -> None:
    """Raise ValueError unless a setting is a whole number >= 1, or None."""
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError(f"{name} must be a whole number >= 1 or None, got {value!r}. {remedy}")


def check_flag(name: str, value: Any) -> None:
    """Raise ValueError unless a setting is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}. Write it without quotes.")
