"""What the head predicts against gold labels: nothing of the teacher is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.divergence import log_probabilities
from hf_distill.objectives.precision import wide_pair, widened
from hf_distill.objectives.prediction import is_padding, labels_of, logits_of
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_number
from hf_distill.signals.signals import Problem, Signals, Unit


def gold_classes(labels: Tensor, labelled: Tensor) -> Tensor:
    """[*R] twice -> [*R, 1]: class indices for `gather`; 0 for a row that has no label."""
    return labels.masked_fill(~labelled, 0).long().unsqueeze(-1)


def cross_entropy(
    logits: Tensor, labels: Tensor, labelled: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy under gold classes: logits [*R, C], labels and labelled [*R] -> [*R].

    A part `label_smoothing` of the target is spread evenly over the classes that exist. Rows that
    are not labelled may hold any label; their value has no meaning.
    """
    logits = widened(logits)
    real = ~is_padding(logits)
    log_student = log_probabilities(logits, real)
    values = -log_student.gather(-1, gold_classes(labels, labelled)).squeeze(-1)
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


@dataclass(frozen=True)
class _Gold(Objective):
    """What all losses on gold labels share."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits", "labels"})
    unit: ClassVar[Unit] = "label"
    reads_teacher: ClassVar[bool] = False


@dataclass(frozen=True)
class CrossEntropy(_Gold):
    """Cross-entropy with the gold class. Reads nothing of the teacher.

    Args:
        label_smoothing: Part of the target that is spread over all classes; 0 <= value < 1.
    """

    label_smoothing: Number = 0.0

    zero_when_equal: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"single_label"})
    citation: ClassVar[str] = (
        "Label smoothing: Szegedy et al.: Rethinking the Inception Architecture for Computer "
        "Vision. 2015. arXiv:1512.00567"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a label_smoothing out of range."""
        remedy = "Use 0 for plain cross-entropy."
        check_number("label_smoothing", self.label_smoothing, remedy, at_least=0, below=1)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        smoothing = fixed(self.label_smoothing)
        labelled = student.counted("label")
        return cross_entropy(logits_of(student), labels_of(student), labelled, smoothing)


@dataclass(frozen=True)
class BinaryCrossEntropy(_Gold):
    """Cross-entropy of each independent class with gold labels. Reads nothing of the teacher."""

    zero_when_equal: ClassVar[bool] = False
    problems: ClassVar[frozenset[Problem]] = frozenset({"multi_label"})

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return binary_cross_entropy(logits_of(student), labels_of(student))


@dataclass(frozen=True)
class SquaredError(_Gold):
    """Squared difference of predicted and gold numbers. Reads nothing of the teacher."""

    problems: ClassVar[frozenset[Problem]] = frozenset({"regression"})

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return squared_error(logits_of(student), labels_of(student))
