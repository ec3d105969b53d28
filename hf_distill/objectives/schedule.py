"""A number that changes while training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["linear", "cosine", "step"]


@dataclass(frozen=True)
class Schedule:
    """From one number to another, by the progress of training: 0 at its start, 1 at its end.

    A weight or a temperature may be one. In a recipe: `{kind: cosine, start: 1.0, end: 0.1}`.

    Args:
        start: The number until `begin`.
        end: The number from `finish` on.
        kind: "linear" or "cosine" (half a wave) between the two; "step" changes at `begin`.
        begin: The progress at which the change begins.
        finish: The progress at which it is complete; without effect for "step".
    """

    start: float
    end: float
    kind: Kind = "linear"
    begin: float = 0.0
    finish: float = 1.0

    def __post_init__(self) -> None:
        """Raise ValueError on a kind that is none, or times that are not in order within 0 to 1."""
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"kind of a schedule must be one of {', '.join(get_args(Kind))}, "
                f"got {self.kind!r}. Choose one."
            )
        for name in ("start", "end", "begin", "finish"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(
                    f"{name} of a schedule must be a number, got {value!r}. Write it unquoted."
                )
            if not math.isfinite(value):
                raise ValueError(
                    f"{name} of a schedule must be finite, got {value!r}. Give a finite number."
                )
        if not 0 <= self.begin < self.finish <= 1:
            raise ValueError(
                "begin and finish of a schedule must be 0 <= begin < finish <= 1, got "
                f"{self.begin!r} and {self.finish!r}. They are parts of the whole training."
            )

    def at(self, progress: float) -> float:
        """The number at a progress between 0 and 1."""
        if self.kind == "step":
            return self.start if progress < self.begin else self.end
        done = min(max((progress - self.begin) / (self.finish - self.begin), 0.0), 1.0)
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done

    def __str__(self) -> str:
        """As a card says it."""
        return f"{self.start:g} to {self.end:g} ({self.kind}, {self.begin:g} to {self.finish:g})"


Number = float | Schedule
"""A setting that may be fixed or scheduled."""


def extremes(value: Number) -> tuple[float, ...]:
    """What a number may become: both ends of a schedule, or the number itself."""
    return (value.start, value.end) if isinstance(value, Schedule) else (value,)


def number_at(value: Number, progress: float) -> float:
    """The number at a progress between 0 and 1."""
    return value.at(progress) if isinstance(value, Schedule) else value


def fixed(value: Number) -> float:
    """The number of a setting, for the mathematics: `Objective.at` has resolved its schedule.

    Raises:
        ValueError: It has not; to go on with the schedule's first number would tell nobody.
    """
    if isinstance(value, Schedule):
        raise ValueError(
            f"settings must be numbers when values are compared, got {value!r}. Take the objective "
            "at some progress first: objective.at(progress)."
        )
    return value
