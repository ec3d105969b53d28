"""Logits one by one: no class competes with another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Pairs
from hf_distill.objectives.divergence import bernoulli_kl
from hf_distill.objectives.precision import wide_pair
from hf_distill.objectives.prediction import Prediction, are_classes, logits_of
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_temperature
from hf_distill.signals.signals import Problem, Signals


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the logits, mean over the classes that exist: [*R, C] -> [*R]."""
    student, teacher = wide_pair(student, teacher)
    real = are_classes(student, teacher)
    squares = (student - teacher).masked_fill(~real, 0).square()
    return squares.sum(-1) / real.sum(-1).clamp(min=1)


def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 KL(teacher || student) of each class's yes and no, mean over classes: [*R, C] -> [*R].

    The mean, not the sum, so that it weighs like `binary_cross_entropy`.
    """
    student, teacher = wide_pair(student, teacher)
    return temperature**2 * bernoulli_kl(student / temperature, teacher / temperature).mean(-1)


@dataclass(frozen=True)
class LogitMSE(Prediction):
    """Mean squared difference of the logits, for every kind of head.

    Logits of both sides below half of `PADDING_LOGIT` count as padding: scale regression targets
    of that size.
    """

    citation: ClassVar[str] = (
        "Ba, Caruana: Do Deep Nets Really Need to be Deep? 2014. arXiv:1312.6184"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return logit_mse(logits_of(student), logits_of(teacher))


@dataclass(frozen=True)
class SigmoidKL(Prediction):
    """T^2 KL(teacher || student) of each independent class, mean over classes.

    Args:
        temperature: Divides the logits of both sides; > 0.
    """

    temperature: Number = 2.0

    problems: ClassVar[frozenset[Problem]] = frozenset({"multi_label"})
    citation: ClassVar[str] = (
        "Yang et al.: Multi-Label Knowledge Distillation. 2023. arXiv:2308.06453"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        temperature = fixed(self.temperature)
        return sigmoid_kl(logits_of(student), logits_of(teacher), temperature)
