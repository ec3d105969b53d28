"""Mixture: the named, weighted terms whose sum is the training loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.reduce import masked_mean
from hf_distill.signals.signals import LAYERED, Demand, Signals, Unit


@dataclass(frozen=True)
class Term:
    """One objective with its weight and the layers it compares (empty where it compares none)."""

    weight: float
    objective: Objective
    pairs: Pairs = ()


class Mixture:
    """The weighted sum of named terms.

    Example:
        >>> kl = Term(1.0, KLDivergence(2.0))
        >>> hidden = Term(0.5, HiddenMSE(), pairs=((1, 2), (2, 4)))
        >>> mixture = Mixture({"kl": kl, "hidden": hidden})
        >>> loss, terms = mixture(student, teacher)
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        """Raises ValueError when there is no term, or a weight is not a finite number >= 0."""
        if not terms:
            raise ValueError(
                "objectives must name at least one term, got none. "
                "Leave it out for the head's default."
            )
        for name, term in terms.items():
            if not 0 <= term.weight < float("inf"):
                raise ValueError(
                    f"weight of objective {name!r} must be a finite number >= 0, "
                    f"got {term.weight!r}. Leave a term out instead of subtracting it."
                )
        self.terms = dict(terms)

    def __call__(
        self,
        student: Signals,
        teacher: Signals,
        counts: Mapping[Unit, Tensor] | None = None,
        projected: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and the unweighted value of each term.

        Args:
            student: What the student shows.
            teacher: What the teacher shows, of the same batch.
            counts: Units of the whole optimizer step, see `masked_mean`; the batch's own without.
            projected: layer -> [B, T, D of the teacher], the student's hidden states brought to the
                teacher's width.
        """
        aligned = replace(student, hidden={**student.hidden, **projected}) if projected else student
        terms: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            objective = term.objective
            shown = aligned if objective.equal_width else student
            values = objective.forward(shown, teacher, term.pairs)
            count = None if counts is None else counts[objective.unit]
            terms[name] = masked_mean(values, student.counted(objective.unit), count)
        weighted = [self.terms[name].weight * value for name, value in terms.items()]
        total = torch.stack(weighted).sum()
        return total, terms

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
        return Demand(logits, {signal: frozenset(found) for signal, found in layers.items()})
