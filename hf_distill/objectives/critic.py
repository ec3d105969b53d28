"""What an objective asks of a critic: a learnt function that scores which states belong together.

The critic itself is built and trained beside the student; here stands only what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hf_distill.objectives.settings import check_flag
from hf_distill.signals.pooling import Pooling

Kind = Literal["separable", "bilinear"]


@dataclass(frozen=True)
class Critic:
    """A wanted critic f(student state, teacher state), one for all layer pairs of a term.

    Args:
        kind: "separable": the inner product of two multilayer perceptrons; "bilinear": s^T W t.
        pooling: What is scored: the mean over a sentence's tokens, its first token, or every token.
        hidden: Width of the perceptrons' hidden layers; >= 1.
        width: Width in which states meet; >= 1. "bilinear" meets in the teacher's.
        normalize: Whether states are brought to length 1 before their product: scores are cosines,
            and a temperature of 0.05 to 0.1 is usual.
        queue: How many earlier teacher states are kept as further negatives; >= 0. The teacher is
            frozen, so they never age.
        gather: Whether the states of all processes are negatives, or only one's own.
        candidates: With "tokens", the most tokens of one process that are negatives, evenly spaced
            over the batch; >= 1.
    """

    kind: Kind = "separable"
    pooling: Pooling = "mean"
    hidden: int = 512
    width: int = 64
    normalize: bool = False
    queue: int = 0
    gather: bool = True
    candidates: int = 1024

    def __post_init__(self) -> None:
        """Raise ValueError on a setting out of range."""
        for name, choices in (("kind", get_args(Kind)), ("pooling", get_args(Pooling))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} of a critic must be one of {', '.join(choices)}, got "
                    f"{getattr(self, name)!r}. Choose one."
                )
        for name, least in (("hidden", 1), ("width", 1), ("queue", 0), ("candidates", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"{name} of a critic must be a whole number >= {least}, got {value!r}. "
                    "Correct it."
                )
        for name in ("normalize", "gather"):
            check_flag(f"{name} of a critic", getattr(self, name))
        if self.queue and not self.gather:
            raise ValueError(
                f"gather of a critic must be true with a queue, got False and {self.queue}. "
                "The queue is one for all processes."
            )
