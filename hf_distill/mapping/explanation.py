"""Why does this layer answer to that one? The same pairs as in training, with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hf_distill.mapping.names import MAPPINGS, Mapping, Named, parse, period, resolve


@dataclass(frozen=True)
class Match:
    """One student layer and the teacher layers that it answers to."""

    student: int
    teacher: tuple[int, ...]
    why: str
    """The formula with its numbers, and how it was rounded."""


@dataclass(frozen=True)
class Explanation:
    """A mapping between two models of known depth; layers from 1, 0 is the embedding output."""

    rule: str
    """The mapping in one sentence."""
    matches: tuple[Match, ...]
    """In the mapping's order."""
    student_left_out: tuple[int, ...]
    """Student layers that answer to none. Layer 0 is among them where it could be compared."""
    teacher_left_out: tuple[int, ...]
    """Teacher layers that nobody answers to. Layer 0 is among them where it could be compared."""
    steps: int | None
    """Optimizer steps after which the pairs are weighed anew; None where all weigh the same."""


def explain(
    mapping: Mapping, student_layers: int, teacher_layers: int, *, embeddings: bool
) -> Explanation:
    """Say which layers a mapping pairs, why, and which it leaves out.

    Takes what `resolve` takes, and tells of the pairs that it returns.

    Raises:
        ValueError: With what makes the mapping illegal here, as `resolve` does.
    """
    pairs = resolve(mapping, student_layers, teacher_layers, embeddings=embeddings)
    named = parse(mapping) if isinstance(mapping, str) else None
    answers: dict[int, list[int]] = {}
    for mine, theirs in pairs:
        answers.setdefault(mine, []).append(theirs)
    lowest = 0 if embeddings else 1
    return Explanation(
        rule=_rule(named),
        matches=tuple(
            Match(mine, tuple(theirs), _why(named, mine, theirs, student_layers, teacher_layers))
            for mine, theirs in answers.items()
        ),
        student_left_out=_without(answers, lowest, student_layers),
        teacher_left_out=_without((theirs for _, theirs in pairs), lowest, teacher_layers),
        steps=period(mapping),
    )


def _rule(named: Named | None) -> str:
    if named is None:
        return "Pairs that are given one by one."
    return (MAPPINGS[named.name].__doc__ or "").partition("\n")[0]


def _without(used: Iterable[int], lowest: int, depth: int) -> tuple[int, ...]:
    return tuple(sorted(set(range(lowest, depth + 1)).difference(used)))


def _why(
    named: Named | None, mine: int, theirs: list[int], student_layers: int, teacher_layers: int
) -> str:
    if named is None:
        return "given"
    if mine == 0 and theirs == [0]:
        return "embedding outputs"
    return _REASONS[named.name](mine, student_layers, teacher_layers)


def _share(m: int, depth: int, taught: int, rounding: str) -> str:
    formula = f"m * N / M = {m} * {taught} / {depth} = {m * taught / depth:.4g}"
    return f"{formula}, {rounding}" if m * taught % depth else formula


def _uniform(m: int, depth: int, taught: int) -> str:
    above_half = 2 * (m * taught % depth) - depth
    up_or_down = "rounded up" if above_half > 0 else "rounded down"
    return _share(m, depth, taught, up_or_down if above_half else "halves go up")


def _skip(m: int, depth: int, taught: int) -> str:
    return _share(m, depth, taught, "cut to a whole number")


def _top(m: int, depth: int, taught: int) -> str:
    return f"N - M + m = {taught} - {depth} + {m} = {taught - depth + m}"


def _last(m: int, depth: int, taught: int) -> str:
    return f"{depth - m} below the last layer of both" if m < depth else "the last layer of both"


def _blocks(m: int, depth: int, taught: int) -> str:
    return f"block {m} of {depth}, up to {_uniform(m, depth, taught)}"


_REASONS: dict[str, Callable[[int, int, int], str]] = {
    "uniform": _uniform,
    "skip": _skip,
    "first": lambda m, depth, taught: "the same number",
    "top": _top,
    "last": _last,
    "blocks": _blocks,
    "emd": lambda m, depth, taught: "all layers, weighed by the transport of least cost",
}
"""Name of a mapping -> the reason for student layer m of M and the teacher's depth N."""
