"""What the teacher knows of the gold class, and of the others among themselves, weighed apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.divergence import gathered, kl, without
from hf_distill.objectives.gold import gold_classes
from hf_distill.objectives.prediction import labels_of, logits_of, softened
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_number, check_temperature
from hf_distill.signals.signals import Problem, Signals, Unit


def decoupled_kd(
    student: Tensor,
    teacher: Tensor,
    gold: Tensor,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """T^2 (alpha TCKD + beta NCKD), Zhao et al. 2022, section 3.

    TCKD is the KL of two outcomes, the gold class and all others together; NCKD is the KL of the
    others among themselves. Both from the teacher to the student, at one temperature.

    Args:
        student: Logits, [*R, C].
        teacher: Logits, [*R, C].
        gold: [*R, 1], indices of the gold classes.
        temperature: Divides the logits; > 0.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.

    Returns:
        [*R]. NCKD is 0 where there is one other class at most.
    """
    student, teacher = softened(student, teacher, temperature)
    target = kl(gathered(student, gold), gathered(teacher, gold))
    others = kl(without(student, gold).log_softmax(-1), without(teacher, gold).log_softmax(-1))
    return temperature**2 * (alpha * target + beta * others)


@dataclass(frozen=True)
class DecoupledKD(Objective):
    """T^2 times KL of the gold class against the rest, and KL among the rest, each with a weight.

    KLDivergence is TCKD + (1 - the teacher's probability of the gold class) * NCKD: where the
    teacher is sure, it hardly shows what the teacher knows of the other classes. Needs gold labels.

    Args:
        temperature: Divides the logits of both sides; > 0. The paper has 4 for CIFAR-100.
        alpha: Weight of the gold class against the rest (TCKD); >= 0.
        beta: Weight of the rest among themselves (NCKD); >= 0. The paper tunes it to the teacher.
    """

    temperature: Number = 4.0
    alpha: Number = 1.0
    beta: Number = 8.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    unit: ClassVar[Unit] = "label"
    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    citation: ClassVar[str] = (
        "Zhao, Cui, Song, Qiu, Liang: Decoupled Knowledge Distillation. 2022. arXiv:2203.08679"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        check_temperature(self.temperature)
        check_number("alpha", self.alpha, "Use 0 to leave TCKD out.", at_least=0)
        check_number("beta", self.beta, "Use 0 to leave NCKD out.", at_least=0)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        temperature, alpha, beta = (
            fixed(setting) for setting in (self.temperature, self.alpha, self.beta)
        )
        gold = gold_classes(labels_of(student), student.counted("label"))
        return decoupled_kd(logits_of(student), logits_of(teacher), gold, temperature, alpha, beta)
