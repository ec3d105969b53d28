"""What objectives on hidden states share: layer by layer, all tokens or one state of a sentence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.pooling import SENTENCE, pooled
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Signals


@dataclass(frozen=True)
class PooledStates(Objective):
    """An objective on hidden states, or on what is pooled of them.

    Args:
        pooling: Which states of a sentence are compared: "mean" over its tokens, its "first" token
            or all "tokens", as far as the objective knows them.
    """

    pooling: Pooling = field(default="mean", kw_only=True)

    poolings: ClassVar[tuple[Pooling, ...]] = SENTENCE
    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})

    def __post_init__(self) -> None:
        """Raise ValueError unless `pooling` is one that the objective knows."""
        if self.pooling not in self.poolings:
            raise ValueError(
                f"pooling must be one of {', '.join(self.poolings)}, got {self.pooling!r}. "
                "Choose one."
            )

    @property
    def reads(self) -> Pooling:
        """What is pooled."""
        return self.pooling

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """One value per unit, of states [B, D] or [B, T, D] and which of them are real."""

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B], or [B, T] where tokens are compared."""
        return mean_over_pairs(self._compared(student, teacher, *pair) for pair in pairs)

    def _compared(self, student: Signals, teacher: Signals, mine: int, theirs: int) -> Tensor:
        states, real = pooled(student.hidden[mine], student.mask, self.pooling)
        targets, _ = pooled(teacher.hidden[theirs], student.mask, self.pooling)
        return self.compare(states, targets, real)
