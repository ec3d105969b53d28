"""The contract of an objective: signals in, one value per unit out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import Self

from hf_distill.objectives.critic import Critic
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Problem, Signals, Unit

Pairs = Sequence[tuple[int, int]]
"""(student layer, teacher layer), counted from 1; 0 is the embedding output."""


@dataclass(frozen=True)
class Shape:
    """What an objective must know of a model before the first step."""

    layers: int
    width: int
    heads: int
    channels: int = 0
    """Of all attention heads together; 0: as many as the width."""

    @property
    def attention_width(self) -> int:
        """Of queries, keys and values, all heads side by side."""
        return self.channels or self.width


ALL_PROBLEMS: frozenset[Problem] = frozenset({"single_label", "multi_label", "regression"})


@dataclass(frozen=True)
class Objective(ABC):
    """Compares what a student shows with what a teacher shows (or with gold labels).

    An objective is a frozen dataclass of its hyper-parameters around a pure function. It holds no
    model, no mixture weight, no layer number, no device and no learnt parameter, and reads no
    signal outside `needs` (and what counts: the masks).
    """

    needs: ClassVar[frozenset[str]]
    """Names of the `Signals` fields it reads, of both sides; with "labels", the student's."""
    unit: ClassVar[Unit]
    """What one returned value belongs to; the loss is the mean over these."""
    problems: ClassVar[frozenset[Problem]] = ALL_PROBLEMS
    """The kinds of head it can serve. Only objectives that need logits or labels restrict it."""
    serves_spans: ClassVar[bool] = True
    """Whether it can serve span heads, where each row has classes of its own: its tokens."""
    equal_width: ClassVar[bool] = False
    """Whether it compares hidden states coordinate by coordinate: where widths differ it is given
    the student's projected hidden states."""
    default_mapping: ClassVar[str] = "uniform"
    """The layer mapping used when none is named. Only layered signals are mapped."""
    least_pairs: ClassVar[int] = 1
    """How many layer pairs it takes at once, where it compares layers."""
    compares_batch: ClassVar[bool] = False
    """Whether a value depends on the other sequences of the batch (then micro-batches are not one
    big batch)."""
    reads_teacher: ClassVar[bool] = True
    """Whether it compares with the teacher at all; a loss on gold labels alone does not."""
    zero_when_equal: ClassVar[bool] = True
    """Whether it is never below 0, and 0 where both show the same; a cross-entropy is not, nor is
    the negative of a bound on mutual information."""
    critic: ClassVar[Critic | None] = None
    """The critic whose scores it reads (`student.scores`). It may be a setting."""
    learns_baseline: ClassVar[bool] = False
    """Whether the critic learns a baseline too."""
    citation: ClassVar[str] = ""
    """Source of the method: authors, title, year, identifier."""

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """One value per unit, in the shape of `student.counted(self.unit)`, averaged over `pairs`.

        A value of a unit that does not count has no meaning, but is finite. Objectives that compare
        no layers ignore `pairs`.
        """

    def check(self, student: Shape, teacher: Shape) -> None:  # noqa: B027 (most can compare any)
        """Raise ValueError, with a remedy, where models of these shapes cannot be compared."""

    @property
    def reads(self) -> Pooling:
        """Which of the teacher's hidden states it reads, where it reads any."""
        return "tokens"

    def at(self, progress: float) -> Self:
        """The same objective with every scheduled setting at its number of that progress.

        Args:
            progress: Of the whole training, 0 to 1.
        """
        scheduled = {
            field.name: value.at(progress)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Schedule)
        }
        return replace(self, **scheduled) if scheduled else self

    def settings(self) -> dict[str, Any]:
        """The hyper-parameters, as plain values that survive YAML."""
        return asdict(self)
