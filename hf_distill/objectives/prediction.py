"""What the head predicts: its logits, and which of their classes exist.

R stands for the shape of the rows and C for the classes, as in `Signals`. A class that is padding
on both sides (a span head's token filled with `PADDING_LOGIT`) does not exist for any loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Objective
from hf_distill.objectives.divergence import existing, gathered
from hf_distill.objectives.precision import wide_pair
from hf_distill.signals.signals import PADDING_LOGIT, Signals, Unit


@dataclass(frozen=True)
class Prediction(Objective):
    """Compares logits, row by row."""

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "row"


def logits_of(signals: Signals) -> Tensor:
    """[*R, C]; raises ValueError where the model showed none."""
    if signals.logits is None:
        raise ValueError("signals must hold logits, got none. Give the model a head.")
    return signals.logits


def labels_of(signals: Signals) -> Tensor:
    """[*R] or [*R, C]; raises ValueError where the batch has none."""
    if signals.labels is None:
        raise ValueError("signals must hold labels, got none. Give the dataset a label column.")
    return signals.labels


def is_padding(logits: Tensor) -> Tensor:
    """[*R, C] -> [*R, C] bool: what is filled, since that token is not there."""
    # Half of it: bfloat16 rounds the fill itself, upwards.
    return logits <= PADDING_LOGIT / 2


def are_classes(student: Tensor, teacher: Tensor) -> Tensor:
    """[*R, C] twice -> [*R, C] bool: the classes that exist, on one side at least."""
    return ~(is_padding(student) & is_padding(teacher))


def softened(
    student: Tensor, teacher: Tensor, temperature: float, top_k: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both sides at one temperature, over the classes that exist.

    Args:
        student: Logits, [*R, C].
        teacher: Logits, [*R, C].
        temperature: Divides the logits.
        top_k: Only the teacher's likeliest k classes stand by themselves; all others of a row are
            one class, the rest. None, or k >= C: every class by itself.

    Returns:
        [*R, C] twice, or [*R, k + 1] twice with the rest last, float32 or wider and finite. A class
        that does not exist has probability 0, and is not in the rest; neither is there a rest where
        no class is left for it.
    """
    student, teacher = wide_pair(student, teacher)
    real = are_classes(student, teacher)
    student, teacher = existing(student / temperature, real), existing(teacher / temperature, real)
    if top_k is not None and top_k < student.shape[-1]:
        kept = teacher.topk(top_k, -1).indices
        student, teacher = gathered(student, kept), gathered(teacher, kept)
    return student.log_softmax(-1), teacher.log_softmax(-1)
