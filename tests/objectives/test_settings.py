"""Checks of settings."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from hf_distill.objectives.schedule import Schedule
from hf_distill.objectives.settings import check_count, check_flag, check_number


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        ({"above": 0}, 0, "finite number > 0"),
        ({"above": 0}, math.inf, "finite number > 0"),
        ({"above": 0}, True, "finite number > 0"),
        ({"at_least": 0}, -0.1, "finite number >= 0"),
        ({"at_least": 0}, math.nan, "finite number >= 0"),
        ({"above": 0, "below": 1}, 1, "number > 0 and < 1"),
        ({"above": 0, "at_most": 1}, 1.1, "number > 0 and <= 1"),
        ({"above": 0, "at_most": 1}, "1e-1", "number > 0 and <= 1"),
        ({"above": 0}, Schedule(1.0, 0.0), "finite number > 0"),
        ({"below": 1, "at_least": 0}, Schedule(2.0, 0.5), "number >= 0 and < 1"),
    ],
)
def test_numbers_out_of_range_are_refused(limits: Any, value: Any, rule: str) -> None:
    """YAML reads 1e-1 as a string, and a schedule may leave the range only in the last epoch."""
    message = f"skew must be a {rule}, got {value!r}. Do that."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_number("skew", value, "Do that.", **limits)


@pytest.mark.parametrize("value", [0, 0.5, Schedule(0.0, 0.9)])
def test_numbers_in_range_pass(value: Any) -> None:
    """A check that is too narrow refuses what a paper recommends."""
    check_number("skew", value, "Do that.", at_least=0, below=1)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", Schedule(1.0, 3.0)])
def test_counts_are_whole_numbers(value: Any) -> None:
    """A count of 0 keeps no class, and then the loss is 0 for every student."""
    with pytest.raises(ValueError, match=r"top_k must be a whole number >= 1 or None, got .*\. Do"):
        check_count("top_k", value, "Do that.")
    check_count("top_k", None, "Do that.")
    check_count("top_k", 1, "Do that.")


@pytest.mark.parametrize("value", ["no", 0, None])
def test_flags_are_true_or_false(value: Any) -> None:
    """A quoted "no" is true to Python."""
    with pytest.raises(ValueError, match="normalize must be true or false, got"):
        check_flag("normalize", value)
