"""Scores among each other: how far apart the teacher puts the rows of a batch, and in what order.

For heads that give numbers. Rows are compared with all others of the batch that count, and several
numbers of one row each by itself; C is their number. What the batch has in common is left free: the
student may sit elsewhere on the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.base import Pairs
from hf_distill.objectives.divergence import bernoulli_kl
from hf_distill.objectives.precision import wide_pair
from hf_distill.objectives.prediction import Prediction, logits_of
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_temperature
from hf_distill.signals.signals import Problem, Signals


def _counted_scores(
    student: Tensor, teacher: Tensor, counted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides as [N, C], 0 where a row does not count, and [N, 1] bool which rows do."""
    student, teacher = wide_pair(student, teacher)
    mask = counted.flatten().unsqueeze(-1)
    return (
        student.flatten(0, -2).masked_fill(~mask, 0),
        teacher.flatten(0, -2).masked_fill(~mask, 0),
        mask,
    )


def margin_mse(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean over the other rows j of ((s_i - s_j) - (t_i - t_j))^2 (Margin-MSE, 2010.02666).

    Args:
        student: [*R, C].
        teacher: [*R, C].
        counted: [*R] bool, the rows that count.

    Returns:
        [*R], mean over the C numbers; 0 where there is no other row.
    """
    student, teacher, mask = _counted_scores(student, teacher, counted)
    number = mask.sum()
    gap = student - teacher
    deviation = (gap - gap.sum(0) / number.clamp(min=1)).masked_fill(~mask, 0)
    # The sum over j of (d_i - d_j)^2, without [N, N]: deviations from the mean sum to 0.
    squares = deviation.square()
    summed = number * squares + squares.sum(0)
    return (summed / (number - 1).clamp(min=1)).mean(-1).reshape(counted.shape)


def ranking_kl(
    student: Tensor, teacher: Tensor, counted: Tensor, temperature: float = 1.0
) -> Tensor:
    """Mean over the other rows j of T^2 KL(P^t_ij || P^s_ij), P_ij = sigmoid((s_i - s_j) / T).

    P_ij is the probability that i ranks above j. RankNet (Burges et al. 2005, section 3) has the
    cross-entropy, which differs by the teacher's entropy: same gradient, but not 0 when equal.

    Args:
        student: [*R, C].
        teacher: [*R, C].
        counted: [*R] bool, the rows that count.
        temperature: Divides the differences; > 0. T^2 keeps the size of the gradient.

    Returns:
        [*R], mean over the C numbers; 0 where there is no other row.
    """
    student, teacher, mask = _counted_scores(student, teacher, counted)
    margins, wanted = (
        (side.unsqueeze(1) - side.unsqueeze(0)) / temperature for side in (student, teacher)
    )
    # Of a row with itself it is 0.
    summed = bernoulli_kl(margins, wanted).masked_fill(~mask, 0).sum(1)
    values = temperature**2 * summed / (mask.sum() - 1).clamp(min=1)
    return values.mean(-1).reshape(counted.shape)


@dataclass(frozen=True)
class _Ranking(Prediction):
    """What objectives on scores among each other share."""

    problems: ClassVar[frozenset[Problem]] = frozenset({"regression"})
    compares_batch: ClassVar[bool] = True


@dataclass(frozen=True)
class MarginMSE(_Ranking):
    """Squared difference of margins: how far apart two scores are, over all pairs of the batch.

    The paper compares two passages of one query; here every two rows of a batch are compared.
    """

    citation: ClassVar[str] = (
        "Hofstaetter, Althammer, Schroeder, Sertkan, Hanbury: Improving Efficient Neural Ranking "
        "Models with Cross-Architecture Knowledge Distillation. 2020. arXiv:2010.02666"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        return margin_mse(logits_of(student), logits_of(teacher), student.counted("row"))


@dataclass(frozen=True)
class RankingKL(_Ranking):
    """T^2 KL of pairwise preferences: which of two ranks higher, over all pairs of the batch.

    RankNet with the teacher's probabilities as targets. It asks for the order where the teacher is
    sure of it, and for as much doubt as the teacher's where it is not.

    Args:
        temperature: Divides the differences of scores on both sides; > 0. Higher asks for their
            size too, lower for their order only.
    """

    temperature: Number = 1.0

    citation: ClassVar[str] = (
        "Burges, Shaked, Renshaw, Lazier, Deeds, Hamilton, Hullender: Learning to Rank using "
        "Gradient Descent. 2005."
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a temperature that is none."""
        check_temperature(self.temperature)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[*R]."""
        temperature = fixed(self.temperature)
        return ranking_kl(
            logits_of(student), logits_of(teacher), student.counted("row"), temperature
        )
