"""Divergences between the class distributions that the heads of student and teacher predict.

All take `temperature` and `top_k` as `softened` does, and all but total variation are multiplied by
T^2. Logits enter as z / T, and a smooth divergence is quadratic in their small differences: its
gradient fades as 1 / T^2, and T^2 keeps its size when the temperature changes (Hinton et al. 2015,
section 2.1). With `top_k` a divergence is the exact one of k + 1 outcomes: 0 when equal, and never
above the one of all classes, since merging outcomes only loses differences.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Pairs
from hf_distill.objectives.divergence import kl, log_mixture
from hf_distill.objectives.prediction import Prediction, logits_of, softened
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_count, check_number, check_temperature
from hf_distill.signals.signals import Problem, Signals

_HINTON = (
    "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015. arXiv:1503.02531"
)


def kl_divergence(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, top_k: int | None = None
) -> Tensor:
    """T^2 KL(teacher || student) of the softened class distributions: logits [*R, C] -> [*R]."""
    return temperature**2 * kl(*softened(student, teacher, temperature, top_k))


def soft_cross_entropy(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, top_k: int | None = None
) -> Tensor:
    """T^2 times the cross-entropy of the student under the teacher's distribution: -> [*R].

    It differs from `kl_divergence` by the teacher's entropy: same gradient, but not 0 when equal.
    """
    student, teacher = softened(student, teacher, temperature, top_k)
    return -(temperature**2) * (teacher.exp() * student).sum(-1)


def reverse_kl(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, top_k: int | None = None
) -> Tensor:
    """T^2 KL(student || teacher): logits [*R, C] -> [*R]. MiniLLM, 2306.08543."""
    student, teacher = softened(student, teacher, temperature, top_k)
    return temperature**2 * kl(student=teacher, teacher=student)


def symmetric_kl(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, top_k: int | None = None
) -> Tensor:
    """T^2 (KL(teacher || student) + KL(student || teacher)), Jeffreys: logits [*R, C] -> [*R]."""
    student, teacher = softened(student, teacher, temperature, top_k)
    # Both sums in one, of which no part is below 0.
    return temperature**2 * ((teacher.exp() - student.exp()) * (teacher - student)).sum(-1)


def skewed_kl(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 2.0,
    top_k: int | None = None,
    skew: float = 0.1,
) -> Tensor:
    """T^2 KL(teacher || skew * teacher + (1 - skew) * student): logits [*R, C] -> [*R].

    Never above -T^2 log(skew). DistiLLM, 2402.03898, skew KL.
    """
    student, teacher = softened(student, teacher, temperature, top_k)
    return temperature**2 * kl(log_mixture(student, teacher, skew), teacher)


def jensen_shannon(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 2.0,
    top_k: int | None = None,
    beta: float = 0.5,
) -> Tensor:
    """T^2 (beta KL(teacher || m) + (1 - beta) KL(student || m)): logits [*R, C] -> [*R].

    m = beta * teacher + (1 - beta) * student. GKD, 2306.13649, generalised Jensen-Shannon.
    """
    student, teacher = softened(student, teacher, temperature, top_k)
    mixture = log_mixture(student, teacher, beta)
    return temperature**2 * (beta * kl(mixture, teacher) + (1 - beta) * kl(mixture, student))


def total_variation(
    student: Tensor, teacher: Tensor, temperature: float = 2.0, top_k: int | None = None
) -> Tensor:
    """T / 2 times the sum of |teacher - student| over classes: logits [*R, C] -> [*R].

    T, not T^2: it is linear in small differences of the logits, and fades as 1 / T.
    """
    student, teacher = softened(student, teacher, temperature, top_k)
    return temperature / 2 * (teacher.exp() - student.exp()).abs().sum(-1)


@dataclass(frozen=True)
class ClassDivergence(Prediction):
    """What all divergences of class distributions share: these two settings.

    Args:
        temperature: Divides the logits of both sides; > 0. Higher shows more of the small classes.
        top_k: Only the teacher's likeliest k classes are compared one by one, the others together
            as one; >= 1. For vocabularies. None compares every class.
    """

    temperature: Number = 2.0
    top_k: int | None = None

    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        check_temperature(self.temperature)
        check_count("top_k", self.top_k, "None compares every class.")

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        temperature = fixed(self.temperature)
        return self.compare(logits_of(student), logits_of(teacher), temperature)

    @abstractmethod
    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""


@dataclass(frozen=True)
class KLDivergence(ClassDivergence):
    """T^2 KL(teacher || student) of the class distributions. 0 when they are equal.

    The student must give probability wherever the teacher does: it covers all its classes.
    """

    citation: ClassVar[str] = _HINTON

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return kl_divergence(student, teacher, temperature, self.top_k)


@dataclass(frozen=True)
class SoftCrossEntropy(ClassDivergence):
    """T^2 times the cross-entropy of the student under the teacher's class distribution.

    Prefer KLDivergence: it trains the same and reaches 0. This is the form many papers print.
    """

    zero_when_equal: ClassVar[bool] = False
    citation: ClassVar[str] = _HINTON

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return soft_cross_entropy(student, teacher, temperature, self.top_k)


@dataclass(frozen=True)
class ReverseKL(ClassDivergence):
    """T^2 KL(student || teacher): the student keeps to classes that the teacher finds likely.

    A small student may drop what it has no room for, where KLDivergence makes it spread. MiniLLM
    has temperature 1.
    """

    citation: ClassVar[str] = (
        "Gu, Dong, Wei, Huang: MiniLLM: Knowledge Distillation of Large Language Models. 2023. "
        "arXiv:2306.08543"
    )

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return reverse_kl(student, teacher, temperature, self.top_k)


@dataclass(frozen=True)
class SymmetricKL(ClassDivergence):
    """T^2 times Jeffreys' divergence: KL both ways, their sum."""

    citation: ClassVar[str] = (
        "Jeffreys: An Invariant Form for the Prior Probability in Estimation Problems. 1946."
    )

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return symmetric_kl(student, teacher, temperature, self.top_k)


@dataclass(frozen=True)
class SkewedKL(ClassDivergence):
    """T^2 KL(teacher || skew * teacher + (1 - skew) * student), as DistiLLM has it.

    A class that the student rules out costs a bounded amount, and its gradient is bounded too.

    Args:
        skew: The teacher's share of the mixture; 0 < value < 1.
    """

    skew: Number = 0.1

    citation: ClassVar[str] = (
        "Ko, Kim, Chen, Yun: DistiLLM: Towards Streamlined Distillation for Large Language Models. "
        "2024. arXiv:2402.03898"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        super().__post_init__()
        check_number("skew", self.skew, "Take KLDivergence for 0.", above=0, below=1)

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return skewed_kl(student, teacher, temperature, self.top_k, fixed(self.skew))


@dataclass(frozen=True)
class JensenShannon(ClassDivergence):
    """T^2 times the generalised Jensen-Shannon divergence of the class distributions, as in GKD.

    Small beta is like beta * KLDivergence, large beta like (1 - beta) * ReverseKL.

    Args:
        beta: The teacher's share of the mixture; 0 < value < 1.
    """

    beta: Number = 0.5

    citation: ClassVar[str] = (
        "Agarwal et al.: On-Policy Distillation of Language Models: Learning from Self-Generated "
        "Mistakes. 2023. arXiv:2306.13649"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        super().__post_init__()
        remedy = "Take KLDivergence for 0 and ReverseKL for 1."
        check_number("beta", self.beta, remedy, above=0, below=1)

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return jensen_shannon(student, teacher, temperature, self.top_k, fixed(self.beta))


@dataclass(frozen=True)
class TotalVariation(ClassDivergence):
    """T times the total variation of the class distributions: half their summed differences.

    Never above T: no single row can rule the gradient. T, not T^2, keeps its size.
    """

    citation: ClassVar[str] = (
        "Wen, Li, Du, Mou: f-Divergence Minimization for Sequence-Level Knowledge Distillation. "
        "2023. arXiv:2307.15190"
    )

    def compare(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Logits [*R, C] twice -> [*R]."""
        return total_variation(student, teacher, temperature, self.top_k)
