"""Mixture: the named, weighted terms whose sum is the training loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.reduce import masked_mean
from hf_distill.objectives.schedule import Number, extremes, number_at
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import LAYERED, Demand, Scores, Signals, Unit


@dataclass(frozen=True)
class Learnt:
    """What is learnt beside the student says of one batch."""

    projected: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, T, D of the teacher], the student's hidden states at the teacher's width."""
    scores: Mapping[str, Mapping[tuple[int, int], Scores]] = field(default_factory=dict)
    """term -> (student layer, teacher layer) -> what the term's critic says."""


@dataclass(frozen=True)
class Term:
    """One objective with its weight and the layers it compares (empty where it compares none)."""

    weight: Number
    objective: Objective
    pairs: Pairs = ()
    renewed_every: int = 0
    """Optimizer steps between two plans that weigh the pairs; 0: they are averaged."""


@dataclass(frozen=True)
class Costs:
    """What the pairs of a transported term cost in one batch: the mean is `sums / count`."""

    sums: Tensor
    """[pairs], the values of each pair, summed over the units."""
    count: Tensor
    """Scalar: units in the batch."""


class Mixture:
    """The weighted sum of named terms.

    Example:
        >>> kl = Term(1.0, KLDivergence(2.0))
        >>> hidden = Term(0.5, HiddenMSE(), pairs=((1, 2), (2, 4)))
        >>> mixture = Mixture({"kl": kl, "hidden": hidden})
        >>> loss, terms = mixture(student, teacher)
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        """Raises ValueError on no term, a weight that is no number >= 0, or too few pairs."""
        if not terms:
            raise ValueError(
                "objectives must name at least one term, got none. "
                "Leave it out for the head's default."
            )
        for name, term in terms.items():
            _check_weight(name, term)
            _check_pairs(name, term)
        self.terms = dict(terms)

    def __call__(
        self,
        student: Signals,
        teacher: Signals,
        counts: Mapping[Unit, Tensor] | None = None,
        learnt: Learnt | None = None,
        progress: float = 0.0,
        plans: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the unweighted value of each term.

        Args:
            student: What the student shows.
            teacher: What the teacher shows, of the same batch.
            counts: Units of the whole optimizer step, see `masked_mean`; the batch's own without.
            learnt: What the learnt heads say of the student's states.
            progress: Of the whole training, 0 to 1: weights and settings may be scheduled.
            plans: Term -> [pairs], the weights of a transported term's pairs.
        """
        terms: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            objective = term.objective.at(progress)
            shown = _prepared(student, name, objective, learnt)
            if term.renewed_every:
                each = _of_each_pair(objective, shown, teacher, term.pairs)
                values = sum(w * v for w, v in zip((plans or {})[name], each, strict=True))
            else:
                values = objective.forward(shown, teacher, term.pairs)
            count = None if counts is None else counts[objective.unit]
            terms[name] = masked_mean(values, student.counted(objective.unit), count)
        weighted = self.weighted(terms, progress)
        return torch.stack(list(weighted.values())).sum(), terms

    @torch.no_grad()
    def costs(
        self,
        name: str,
        student: Signals,
        teacher: Signals,
        learnt: Learnt | None = None,
        progress: float = 0.0,
    ) -> Costs:
        """What each pair of a term costs in this batch; the arguments are those of a call."""
        term = self.terms[name]
        objective = term.objective.at(progress)
        shown = _prepared(student, name, objective, learnt)
        counted = student.counted(objective.unit)
        each = _of_each_pair(objective, shown, teacher, term.pairs)
        sums = torch.stack([masked_mean(values, counted, count=1) for values in each])
        return Costs(sums, counted.sum().to(sums.dtype))

    def weighted(self, terms: Mapping[str, Tensor], progress: float = 0.0) -> dict[str, Tensor]:
        """Each term's part of the loss."""
        return {
            name: number_at(self.terms[name].weight, progress) * value
            for name, value in terms.items()
        }

    def demands(self) -> tuple[Demand, Demand]:
        """What the student and the teacher must show, together over all terms."""
        return self._demand(0), self._demand(1)

    def _demand(self, side: int) -> Demand:
        layers: dict[str, set[int]] = {}
        for term in self.terms.values():
            for signal in term.objective.needs.intersection(LAYERED):
                layers.setdefault(signal, set()).update(pair[side] for pair in term.pairs)
        logits = any(
            "logits" in term.objective.needs and (side == 0 or term.objective.reads_teacher)
            for term in self.terms.values()
        )
        found = {signal: frozenset(wanted) for signal, wanted in layers.items()}
        return Demand(logits, found, self._pooled() if side else {})

    def _pooled(self) -> dict[int, Pooling]:
        """The teacher's layers of whose hidden states all terms read the same one."""
        read: dict[int, set[Pooling]] = {}
        for term in self.terms.values():
            if "hidden" in term.objective.needs:
                for _, layer in term.pairs:
                    read.setdefault(layer, set()).add(term.objective.reads)
        return {
            layer: one for layer, (one, *others) in read.items() if not others and one != "tokens"
        }


def _prepared(student: Signals, name: str, objective: Objective, learnt: Learnt | None) -> Signals:
    """What one objective is shown of the student."""
    if learnt is None:
        return student
    if objective.critic is not None:
        return replace(student, scores=learnt.scores[name])
    if objective.equal_width and learnt.projected:
        return replace(student, hidden={**student.hidden, **learnt.projected})
    return student


def _of_each_pair(
    objective: Objective, student: Signals, teacher: Signals, pairs: Pairs
) -> Iterator[Tensor]:
    return (objective.forward(student, teacher, (pair,)) for pair in pairs)


def _check_weight(name: str, term: Term) -> None:
    for weight in extremes(term.weight):
        if not 0 <= weight < float("inf"):
            raise ValueError(
                f"weight of objective {name!r} must be a finite number >= 0, got {weight!r}. "
                "Leave a term out instead of subtracting it."
            )


def _check_pairs(name: str, term: Term) -> None:
    least = term.objective.least_pairs
    kind = type(term.objective).__name__
    if least > 1 and term.renewed_every:
        raise ValueError(
            f"mapping of objective {name!r} must be a fixed one, got a transported one. {kind} "
            "compares several pairs at once; map 'uniform'."
        )
    if 0 < len(term.pairs) < least:
        raise ValueError(
            f"mapping of objective {name!r} must hold at least {least} pairs of layers, got "
            f"{tuple(term.pairs)!r}. {kind} compares several at once; map more, as 'uniform' does."
        )
