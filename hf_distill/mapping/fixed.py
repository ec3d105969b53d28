"""Layer mappings that need nothing but the two depths."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

Pairs = tuple[tuple[int, int], ...]
"""(student layer, teacher layer), counted from 1; 0 is the embedding output."""


def uniform(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with teacher layers spread evenly up to the last one.

    Student layer m of M answers to teacher layer m * N / M of N, halves rounded up: the mapping
    of TinyBERT (Jiao et al. 2020) where M divides N.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher=True)
    # Integers throughout: round() sends halves to the even neighbour, floats may miss a half.
    spread = (
        (m, (2 * m * teacher_layers + student_layers) // (2 * student_layers))
        for m in range(1, student_layers + 1)
    )
    return ((0, 0), *spread) if embeddings else tuple(spread)


def first(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with the teacher layer of the same number.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher=True)
    return tuple((m, m) for m in range(0 if embeddings else 1, student_layers + 1))


def top(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with the teacher's last layers: both ends aligned at the top.

    Student layer m of M answers to teacher layer N - M + m of N (XtremeDistilTransformers,
    Mukherjee et al. 2021).

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the student's embedding output too, as (0, N - M): with what
            stands below the teacher's last M layers.

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher=True)
    below = teacher_layers - student_layers
    return tuple((m, below + m) for m in range(0 if embeddings else 1, student_layers + 1))


def last(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """The student's last layer with the teacher's last layer, and no other.

    MiniLM (Wang et al. 2020) distils this pair alone; the student may then be of any depth.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Without effect: the embedding outputs are not last layers.

    Raises:
        ValueError: A depth is not a positive int.
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher=False)
    return ((student_layers, teacher_layers),)


MAPPINGS: dict[str, Callable[..., Pairs]] = {
    "uniform": uniform,
    "first": first,
    "top": top,
    "last": last,
}
"""Name -> function of (student_layers, teacher_layers, *, embeddings).

The first line of the function's docstring explains the mapping.
"""


def explicit(
    pairs: Sequence[Sequence[int]],
    student_layers: int,
    teacher_layers: int,
    *,
    embeddings: bool = False,
) -> Pairs:
    """The pairs that are given, in their order, checked against the two depths.

    One layer may stand in several pairs.

    Args:
        pairs: (student layer, teacher layer), counted from 1; 0 is the embedding output.
        student_layers: Depth of the student.
        teacher_layers: Depth of the teacher.
        embeddings: Whether a pair may name layer 0: false where what is compared exists only
            inside layers, as attention does.

    Raises:
        ValueError: There is no pair; a pair is not two ints, is out of range, stands twice, or
            names layer 0 although `embeddings` is false; or a depth is not a positive int.
    """
    _check_depths(student_layers, teacher_layers, at_most_teacher=False)
    if not isinstance(pairs, Sequence):
        raise ValueError(
            f"mapping must be a name or a list of pairs, got {pairs!r}. "
            f"Names: {', '.join(MAPPINGS)}."
        )
    found = tuple(_pair(pair) for pair in pairs)
    if not found:
        raise ValueError(
            "mapping must be at least one (student layer, teacher layer) pair, got (). "
            f"Give pairs or a name: {', '.join(MAPPINGS)}."
        )
    lowest = 0 if embeddings else 1
    seen: set[tuple[int, int]] = set()
    for pair in found:
        if pair in seen:
            raise ValueError(f"mapping must be free of duplicates, got {pair!r} twice. Remove one.")
        seen.add(pair)
        _check_layer("student", pair[0], lowest, student_layers, pair)
        _check_layer("teacher", pair[1], lowest, teacher_layers, pair)
    return found


def resolve(
    mapping: str | Sequence[Sequence[int]],
    student_layers: int,
    teacher_layers: int,
    *,
    embeddings: bool,
) -> Pairs:
    """The pairs that a recipe's mapping stands for: a name of `MAPPINGS`, or explicit pairs.

    Args:
        mapping: The name, or (student layer, teacher layer) pairs counted from 1.
        student_layers: Depth of the student.
        teacher_layers: Depth of the teacher.
        embeddings: Whether layer 0, the embedding output, takes part.

    Returns:
        At least one pair, none of them twice.

    Raises:
        ValueError: The name is unknown, or the mapping does not fit the depths.
    """
    if isinstance(mapping, str):
        return _named(mapping)(student_layers, teacher_layers, embeddings=embeddings)
    return explicit(mapping, student_layers, teacher_layers, embeddings=embeddings)


def _named(name: str) -> Callable[..., Pairs]:
    if name in MAPPINGS:
        return MAPPINGS[name]
    near = difflib.get_close_matches(name.lower(), MAPPINGS, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else "Choose one of these, or give pairs."
    raise ValueError(f"mapping must be one of {', '.join(MAPPINGS)}, got {name!r}. {remedy}")


def _is_int(value: object) -> bool:
    """Whether a value is an int; a bool, which YAML writes as `yes`, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _check_depths(student_layers: int, teacher_layers: int, *, at_most_teacher: bool) -> None:
    for name, depth in (("student_layers", student_layers), ("teacher_layers", teacher_layers)):
        if not _is_int(depth) or depth < 1:
            raise ValueError(
                f"{name} must be a positive int, got {depth!r}. Give the model's depth."
            )
    if at_most_teacher and student_layers > teacher_layers:
        raise ValueError(
            f"student_layers must be at most teacher_layers ({teacher_layers}), "
            f"got {student_layers!r}. Take a shallower student, or map 'last' or explicit pairs."
        )


def _pair(pair: Sequence[int]) -> tuple[int, int]:
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(_is_int, pair)):
        raise ValueError(
            f"mapping must be pairs of two ints, got {pair!r}. "
            "Write (student layer, teacher layer)."
        )
    return pair[0], pair[1]


def _check_layer(side: str, layer: int, lowest: int, depth: int, pair: tuple[int, int]) -> None:
    if layer == 0 and lowest == 1:
        raise ValueError(
            f"mapping must be free of layer 0 here, got {pair!r}. "
            "What is compared exists only inside layers: leave the embedding output out."
        )
    if not lowest <= layer <= depth:
        raise ValueError(
            f"mapping must be within the {side}'s layers {lowest} to {depth}, got {pair!r}. "
            "Count layers from 1, the student's first in each pair."
        )
