"""Pairs of layers that are given one by one."""

from __future__ import annotations

from collections.abc import Sequence

from hf_distill.mapping.depths import check_depths, is_int

Pairs = tuple[tuple[int, int], ...]
"""(student layer, teacher layer), counted from 1; 0 is the embedding output."""


def given_pairs(pairs: Sequence[Sequence[int]]) -> Pairs:
    """The pairs as tuples, in their order, checked as far as they can be without the depths.

    Args:
        pairs: (student layer, teacher layer), in tuples or lists.

    Raises:
        ValueError: There is no pair; or a pair is not two ints, or stands twice.
    """
    if not isinstance(pairs, Sequence):
        raise ValueError(
            f"mapping must be a name or a list of pairs, got {pairs!r}. "
            "`hf-distill list mappings` shows the names."
        )
    found = tuple(_pair(pair) for pair in pairs)
    if not found:
        raise ValueError(
            "mapping must be at least one (student layer, teacher layer) pair, got (). "
            "Give pairs, or a name such as 'uniform'."
        )
    for at, pair in enumerate(found):
        if pair in found[:at]:
            raise ValueError(f"mapping must be free of duplicates, got {pair!r} twice. Remove one.")
    return found


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
    check_depths(student_layers, teacher_layers, at_most_teacher=False)
    found = given_pairs(pairs)
    lowest = 0 if embeddings else 1
    for pair in found:
        _check_layer("student", pair[0], lowest, student_layers, pair)
        _check_layer("teacher", pair[1], lowest, teacher_layers, pair)
    return found


def _pair(pair: Sequence[int]) -> tuple[int, int]:
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_int, pair)):
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
