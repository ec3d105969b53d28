"""What the head predicts, against the teacher or against gold labels: one value per row.

R stands for the shape of the rows and C for the classes, as in `Signals`. A class that is padding
on both sides (a span head's token filled with `PADDING_LOGIT`) does not exist for these losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.divergence import check_temperature, kl, log_probabilities
from hf_distill.objectives.precision import wide_pair, widened
from hf_distill.signals.signals import PADDING_LOGIT, Problem, Signals, Unit

_HINTON = (
    "Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. 2015. arXiv:1503.02531"
)


def _is_padding(logits: Tensor) -> Tensor:
    # Half of it: bfloat16 rounds the fill itself, upwards.
    return logits <= PADDING_LOGIT / 2


def _softened(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both sides at one temperature, over the classes that exist."""
    student, teacher = wide_pair(student, teacher)
    real = ~(_is_padding(student) & _is_padding(teacher))
    return (
        log_probabilities(student / temperature, real),
        log_probabilities(teacher / temperature, real),
    )


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 KL(teacher || student) of the softened class distributions: logits [*R, C] -> [*R].

    The factor T^2 keeps the size of the gradient when the temperature changes (Hinton et al. 2015,
    section 2.1).
    """
    return temperature**2 * kl(*_softened(student, teacher, temperature))


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 times the cross-entropy of the student under the teacher's distribution: -> [*R].

    It differs from `kl_divergence` by the teacher's entropy: same gradient, but not 0 when equal.
    """
    student, teacher = _softened(student, teacher, temperature)
    return -(temperature**2) * (teacher.exp() * student).sum(-1)


def logit_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the logits, mean over the classes that exist: [*R, C] -> [*R]."""
    student, teacher = wide_pair(student, teacher)
    padding = _is_padding(student) & _is_padding(teacher)
    squares = (student - teacher).masked_fill(padding, 0).square()
    return squares.sum(-1) / (~padding).sum(-1).clamp(min=1)


def sigmoid_kl(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """T^2 KL(teacher || student) of each class's yes and no, mean over classes: [*R, C] -> [*R].

    The mean, not the sum, so that it weighs like `binary_cross_entropy`.
    """
    student, teacher = wide_pair(student, teacher)
    divergence = student.new_zeros(())
    # 1 - sigmoid(x) = sigmoid(-x): both logarithms stay finite for any logit.
    for sign in (1, -1):
        log_student = logsigmoid(sign * student / temperature)
        log_teacher = logsigmoid(sign * teacher / temperature)
        divergence = divergence + log_teacher.exp() * (log_teacher - log_student)
    return temperature**2 * divergence.mean(-1)


def cross_entropy(
    logits: Tensor, labels: Tensor, labelled: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy under gold classes: logits [*R, C], labels and labelled [*R] -> [*R].

    A part `label_smoothing` of the target is spread evenly over the classes that exist. Rows that
    are not labelled may hold any label; their value has no meaning.
    """
    logits = widened(logits)
    real = ~_is_padding(logits)
    log_student = log_probabilities(logits, real)
    gold = labels.masked_fill(~labelled, 0).long().unsqueeze(-1)
    values = -log_student.gather(-1, gold).squeeze(-1)
    if not label_smoothing:
        return values
    spread = -log_student.masked_fill(~real, 0).sum(-1) / real.sum(-1).clamp(min=1)
    return (1 - label_smoothing) * values + label_smoothing * spread


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each class's yes and no, mean over classes: [*R, C] twice -> [*R]."""
    logits, labels = wide_pair(logits, labels)
    return binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Squared difference of predicted and gold numbers, mean over them: [*R, C] twice -> [*R]."""
    logits, labels = wide_pair(logits, labels)
    return (logits - labels).square().mean(-1)


def _logits(signals: Signals) -> Tensor:
    if signals.logits is None:
        raise ValueError("signals must hold logits, got none. Give the model a head.")
    return signals.logits


def _labels(signals: Signals) -> Tensor:
    if signals.labels is None:
        raise ValueError("signals must hold labels, got none. Give the dataset a label column.")
    return signals.labels


@dataclass(frozen=True)
class KLDivergence(Objective):
    """T^2 KL(teacher || student) of the class distributions. 0 when they are equal.

    Args:
        temperature: Divides the logits of both sides; > 0. Higher shows more of the small classes.
    """

    temperature: float = 2.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "row"
    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    citation: ClassVar[str] = _HINTON

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return kl_divergence(_logits(student), _logits(teacher), self.temperature)


@dataclass(frozen=True)
class SoftCrossEntropy(Objective):
    """T^2 times the cross-entropy of the student under the teacher's class distribution.

    Prefer KLDivergence: it trains the same and reaches 0. This is the form many papers print.

    Args:
        temperature: Divides the logits of both sides; > 0.
    """

    temperature: float = 2.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "row"
    zero_when_equal: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    citation: ClassVar[str] = _HINTON

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return soft_cross_entropy(_logits(student), _logits(teacher), self.temperature)


@dataclass(frozen=True)
class LogitMSE(Objective):
    """Mean squared difference of the logits, for every kind of head.

    Logits of both sides below half of `PADDING_LOGIT` count as padding: scale regression targets
    of that size.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "row"
    citation: ClassVar[str] = (
        "Ba, Caruana: Do Deep Nets Really Need to be Deep? 2014. arXiv:1312.6184"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return logit_mse(_logits(student), _logits(teacher))


@dataclass(frozen=True)
class SigmoidKL(Objective):
    """T^2 KL(teacher || student) of each independent class, mean over classes.

    Args:
        temperature: Divides the logits of both sides; > 0.
    """

    temperature: float = 2.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "row"
    problems: ClassVar[frozenset[Problem]] = frozenset({"multi_label"})
    citation: ClassVar[str] = (
        "Yang et al.: Multi-Label Knowledge Distillation. 2023. arXiv:2308.06453"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return sigmoid_kl(_logits(student), _logits(teacher), self.temperature)


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy with the gold class. Reads nothing of the teacher.

    Args:
        label_smoothing: Part of the target that is spread over all classes; 0 <= value < 1.
    """

    label_smoothing: float = 0.0

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    unit: ClassVar[Unit] = "label"
    reads_teacher: ClassVar[bool] = False
    zero_when_equal: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    citation: ClassVar[str] = (
        "Label smoothing: Szegedy et al.: Rethinking the Inception Architecture for Computer "
        "Vision. 2015. arXiv:1512.00567"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a label_smoothing out of range."""
        value = self.label_smoothing
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < 1:
            raise ValueError(
                f"label_smoothing must be a number >= 0 and < 1, got {value!r}. "
                "Use 0 for plain cross-entropy."
            )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        labelled = student.counted("label")
        return cross_entropy(_logits(student), _labels(student), labelled, self.label_smoothing)


@dataclass(frozen=True)
class BinaryCrossEntropy(Objective):
    """Cross-entropy of each independent class with gold labels. Reads nothing of the teacher."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    unit: ClassVar[Unit] = "label"
    reads_teacher: ClassVar[bool] = False
    zero_when_equal: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"multi_label"})

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return binary_cross_entropy(_logits(student), _labels(student))


@dataclass(frozen=True)
class SquaredError(Objective):
    """Squared difference of predicted and gold numbers. Reads nothing of the teacher."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    unit: ClassVar[Unit] = "label"
    reads_teacher: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"regression"})

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return squared_error(_logits(student), _labels(student))
