"""Several teachers that teach as one: what they say is combined, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.special import entr

from hf_distill.signals.head import Targets
from hf_distill.signals.signals import Problem, Signals
from hf_distill.teacher.live import LiveTeacher

Combination = Literal["mean", "confidence"]


@dataclass(frozen=True)
class Ensemble:
    """A teacher that is made of several.

    Probabilities are averaged, not logits: the logits shown are the logarithm of the mean
    distribution (Hinton et al. 2015, arXiv:1503.02531, section 1: the predictions of an ensemble),
    so that objectives with any temperature read them like those of one teacher. Of independent
    classes the mean of the sigmoids is shown as a logit, of a regression the mean of the numbers.

    With w_k the weight of teacher k and p_k its distribution in a row (temperature 1):

    - "mean": p = sum_k w_k p_k / sum_k w_k.
    - "confidence": the same with w_k exp(-H(p_k)) in place of w_k, in each row by itself; H is the
      entropy in nats (of independent classes the mean of their binary entropies). exp(-H) is 1 for
      a teacher that is certain, and 1/C for one that spreads evenly over C classes. That teachers
      of lower entropy weigh more is from Kwon et al.: Adaptive Knowledge Distillation Based on
      Entropy. ICASSP 2020; this form of it is our choice. A teacher that is wrong and certain is
      believed: confidence is not correctness. Not for regression.

    Args:
        teachers: Two or more: models, paths or Hub ids, or adapters of the student's (`Adapter`).
            Their classes are matched by name, each teacher's by itself.
        weights: One number above 0 for each teacher; equal ones without.
        combine: "mean" or "confidence".
        lead: The index (from 0) of the one teacher whose layers are compared. Without, objectives
            on hidden states, attention or relations are refused: layers of several teachers have no
            mean.

    Raises:
        ValueError: An argument does not fit.
    """

    teachers: Sequence[Any]
    weights: Sequence[float] | None = None
    combine: Combination = "mean"
    lead: int | None = None

    def __post_init__(self) -> None:
        """Check what can be known without the teachers."""
        count = len(self.teachers)
        check_count(count)
        if self.weights is not None:
            check_weights(self.weights, count)
        if self.lead is not None:
            check_lead(self.lead, count)
        if self.combine not in get_args(Combination):
            raise ValueError(
                f"combine must be one of {', '.join(get_args(Combination))}, got "
                f"{self.combine!r}. `mean` takes weights too."
            )
        if any(one == other for one, other in combinations(self.teachers, 2)):
            raise ValueError(
                "teachers must be different ones, got one of them twice. Give it a weight instead."
            )
        nested = [each for each in self.teachers if each is None or isinstance(each, Ensemble)]
        if nested:
            raise ValueError(
                "teachers must be models, paths or adapters, got "
                f"{type(nested[0]).__name__}. Name the teachers one by one."
            )

    @property
    def how(self) -> dict[str, Any]:
        """All but the teachers, as another one takes it."""
        weights = None if self.weights is None else list(self.weights)
        return {"weights": weights, "combine": self.combine, "lead": self.lead}


def check_count(count: int) -> None:
    """Raise ValueError unless so many teachers are several."""
    if count < 2:
        raise ValueError(
            f"teachers must be two or more, got {count}. Give a single teacher by itself."
        )


def check_weights(weights: Sequence[float], count: int) -> None:
    """Raise ValueError unless these can weigh so many teachers."""
    if len(weights) != count:
        raise ValueError(
            f"weights must be one number for each of the {count} teachers, got {len(weights)}. "
            "Leave them out for equal ones."
        )
    for weight in weights:
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 < weight < math.inf:
            raise ValueError(
                f"weights must be finite numbers above 0, got {weight!r}. Leave out a teacher that "
                "is not to be heard."
            )


def check_lead(lead: int, count: int) -> None:
    """Raise ValueError unless one of so many teachers has this index."""
    index = isinstance(lead, int) and not isinstance(lead, bool)
    if not index or not 0 <= lead < count:
        raise ValueError(
            f"lead must be the index of a teacher, 0 to {count - 1}, got {lead!r}. Leave it out "
            "where no layers are compared."
        )


class SeveralTeachers:
    """Runs the teachers one after the other, and shows what they say together."""

    def __init__(
        self,
        teachers: Sequence[LiveTeacher],
        problem: Problem,
        *,
        weights: Sequence[float] | None = None,
        combine: Combination = "mean",
        lead: int | None = None,
    ) -> None:
        """Take live teachers.

        Args:
            teachers: All show logits; the lead shows its layers as well.
            problem: What the last axis of the logits means.
            weights: As in `Ensemble`.
            combine: As in `Ensemble`.
            lead: As in `Ensemble`.

        Raises:
            ValueError: Confidence is asked of regressions.
        """
        if combine == "confidence" and problem == "regression":
            raise ValueError(
                "combine must be 'mean' for regression, got 'confidence': a number has no entropy. "
                "Give weights."
            )
        self._teachers, self._problem, self._combine = list(teachers), problem, combine
        self._weights = [1.0] * len(self._teachers) if weights is None else list(weights)
        self._lead = self._teachers[lead or 0]
        self.columns: list[str] = list(
            dict.fromkeys(name for teacher in self._teachers for name in teacher.columns)
        )
        """The inputs that any of the teachers names."""

    @torch.no_grad()
    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """The signals of one batch: combined logits, and the lead's layers."""
        together = Blend(self._problem, self._combine)
        layers = Signals(mask=targets.mask)
        for teacher, weight in zip(self._teachers, self._weights, strict=True):
            shown = teacher.show(inputs, targets)
            together.add(_logits(shown), weight)
            if teacher is self._lead:
                layers = shown
        return replace(layers, logits=together.logits())


class Blend:
    """The weighted mean of several teachers' distributions; it holds two tensors of logits."""

    def __init__(self, problem: Problem, combine: Combination = "mean") -> None:
        """Begin with none; see `Ensemble` for what is computed."""
        self._problem, self._combine = problem, combine
        self._sums: list[Tensor] = []

    def add(self, logits: Tensor, weight: float) -> None:
        """Hear one more teacher: logits [*R, C]."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        share = wide.new_full((*wide.shape[:-1], 1), weight)
        if self._problem == "regression":
            self._hear(torch.add, [share, share * wide])
            return
        share = share.log()
        if self._combine == "confidence":
            share = share - entropy(wide, self._problem).unsqueeze(-1)
        self._hear(
            torch.logaddexp, [share, *(share + view for view in _views(wide, self._problem))]
        )

    def logits(self) -> Tensor:
        """What they say together, [*R, C] in float32 or wider.

        A span head's padding stays padding: its probability is 0 in every teacher.
        """
        total, *views = self._sums
        if self._problem == "regression":
            return views[0] / total
        return views[0] - (total if self._problem == "single_label" else views[1])

    def _hear(self, add: Callable[[Tensor, Tensor], Tensor], parts: list[Tensor]) -> None:
        earlier = self._sums
        self._sums = [add(*both) for both in zip(earlier, parts, strict=True)] if earlier else parts


def entropy(logits: Tensor, problem: Problem) -> Tensor:
    """The entropy of each row in nats, [*R, C] -> [*R]; the mean over independent classes."""
    per_class = torch.stack([entr(view.exp()) for view in _views(logits, problem)]).sum(0)
    return per_class.sum(-1) if problem == "single_label" else per_class.mean(-1)


def _views(logits: Tensor, problem: Problem) -> list[Tensor]:
    """Log-probabilities: of exclusive classes, or of each independent class's yes and no."""
    if problem == "single_label":
        return [logits.log_softmax(-1)]
    # 1 - sigmoid(x) = sigmoid(-x): both logarithms stay finite for any logit.
    return [logsigmoid(sign * logits) for sign in (1, -1)]


def _logits(shown: Signals) -> Tensor:
    if shown.logits is None:
        raise ValueError(
            "teachers of an Ensemble must show logits, got none. Give each of them a head."
        )
    return shown.logits
