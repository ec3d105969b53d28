"""One loss of a peer beside one of ours: the same tensors, both values, both gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.mixture import Mixture, Term
from peer_losses.batches import Batch, Head, Padding, batch

TOLERANCE = 1e-6
"""Relative: below it two values, or two gradients, are the same. Some peers compute in float32."""

_NOTHING = 1e-9
"""Values and gradients of this size are rounding."""

Loss = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Comparison:
    """A peer's loss, ours, and what makes theirs out of ours.

    That is `factor` times ours, or `rebuilt`: our own parts with the one change that `reason`
    names. Where neither gives their value and their gradient, the reason is wrong or not all.
    """

    theirs: str
    """Their function or class, with its settings."""
    run: Loss
    ours: Objective | Sequence[tuple[float, Objective]]
    reason: str
    factor: float | Callable[[Batch], float] = 1.0
    rebuilt: Loss | None = None
    padding: Padding = "none"
    head: Head = "sentence"
    pairs: Pairs = ((1, 1),)
    shown: Callable[[Batch], Batch] = lambda given: given
    """What ours is given instead of the batch itself."""

    @property
    def terms(self) -> Sequence[tuple[float, Objective]]:
        """Ours, each with its weight."""
        return ((1.0, self.ours),) if isinstance(self.ours, Objective) else self.ours

    def value(self, given: Batch) -> Tensor:
        """Our loss."""
        return mixed(self.shown(given), self.terms, self.pairs)

    def expected(self, given: Batch) -> Tensor:
        """Theirs, as the reason says it."""
        if self.rebuilt is not None:
            return self.rebuilt(given)
        factor = self.factor if isinstance(self.factor, int | float) else self.factor(given)
        return factor * self.value(given)


@dataclass(frozen=True)
class Peer:
    """A library and what is compared of it."""

    package: str
    """The name under which it is installed."""
    load: Callable[[], ModuleType]
    """Imports what holds its losses."""
    comparisons: Callable[[ModuleType], list[Comparison]]
    registered: Callable[[ModuleType], Collection[str]] = lambda module: ()
    """Names of all its losses, where it has a list of them."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Those that are not compared, and what they compute: nothing that one of ours does."""


def mixed(given: Batch, terms: Sequence[tuple[float, Objective]], pairs: Pairs) -> Tensor:
    """The weighted sum of objectives, as a training computes it."""
    named = {
        str(number): Term(weight, objective, pairs)
        for number, (weight, objective) in enumerate(terms)
    }
    return Mixture(named)(given.student, given.teacher)[0]


def loss(given: Batch, objective: Objective, pairs: Pairs = ((1, 1),)) -> Tensor:
    """One objective's loss."""
    return mixed(given, ((1.0, objective),), pairs)


class Point(NamedTuple):
    """A loss at one batch."""

    value: float
    gradient: Tensor
    """Of all the student's tensors, one after the other."""


class Outcome(NamedTuple):
    """What was measured."""

    ours: Point
    theirs: Point
    rebuilt: Point

    @property
    def ratio(self) -> float:
        """Theirs over ours."""
        return self.theirs.value / self.ours.value

    @property
    def gradient_gap(self) -> float:
        """The largest difference of an entry of the two gradients."""
        return (self.theirs.gradient - self.ours.gradient).abs().max().item()

    @property
    def explained(self) -> bool:
        """Whether the reason gives their value and their gradient."""
        return apart(self.theirs, self.rebuilt) < TOLERANCE

    @property
    def verdict(self) -> str:
        """What was found, from the numbers alone."""
        if apart(self.theirs, self.ours) < TOLERANCE:
            return "equal"
        if apart(self.theirs, _times(self.ours, self.ratio)) < TOLERANCE:
            return "equal up to the factor"
        factor = _gradient_ratio(self.ours.gradient, self.theirs.gradient)
        if factor is None:
            return "different"
        return "same gradient" + ("" if abs(factor - 1) < TOLERANCE else " up to a factor")


def apart(one: Point, other: Point) -> float:
    """The larger of two relative differences: of the values, and of the gradients."""
    value = abs(one.value - other.value) / max(abs(one.value), abs(other.value), _NOTHING)
    size = max(one.gradient.abs().max().item(), other.gradient.abs().max().item(), _NOTHING)
    return max(value, (one.gradient - other.gradient).abs().max().item() / size)


def _times(point: Point, factor: float) -> Point:
    return Point(factor * point.value, factor * point.gradient)


def _gradient_ratio(ours: Tensor, theirs: Tensor) -> float | None:
    """Theirs over ours, where they point the same way; None where they do not."""
    factor = (ours @ theirs / (ours @ ours)).item()
    same = apart(Point(0.0, theirs), Point(0.0, factor * ours)) < TOLERANCE
    return factor if same and factor > TOLERANCE else None


def measured(comparison: Comparison) -> Outcome:
    """Values and gradients of ours, of theirs, and of theirs made out of ours."""
    return Outcome(
        *(_at(of, comparison) for of in (comparison.value, comparison.run, comparison.expected))
    )


def _at(of: Loss, comparison: Comparison) -> Point:
    given = batch(comparison.padding, comparison.head)
    found = of(given)
    if not found.requires_grad:
        return Point(found.item(), torch.cat([torch.zeros(x.numel()) for x in given.leaves]))
    gradients = torch.autograd.grad(found, given.leaves, allow_unused=True)
    flat = [
        torch.zeros(leaf.numel()) if each is None else each.flatten()
        for leaf, each in zip(given.leaves, gradients, strict=True)
    ]
    return Point(found.item(), torch.cat(flat).double())


def name_of(comparison: Comparison) -> str:
    """Ours as it is written, without settings that have their default."""
    return " + ".join(
        ("" if weight == 1 else f"{weight:g} ") + _written(objective)
        for weight, objective in comparison.terms
    )


def _written(objective: Objective) -> str:
    usual = type(objective)()
    settings = ", ".join(
        f"{setting.name}={value!r}"
        for setting in fields(objective)
        if (value := getattr(objective, setting.name)) != getattr(usual, setting.name)
    )
    return f"{type(objective).__name__}({settings})"
