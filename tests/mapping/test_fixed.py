"""Mappings between two depths: which pairs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from hf_distill.mapping import MAPPINGS, blocks, first, last, resolve, skip, top, uniform
from tests.mapping.depths import depths, quick

ONE_EACH = ("uniform", "skip", "first", "top")
"""Mappings that give every student layer one teacher layer."""


def test_uniform_is_tinyberts_map_where_depths_divide() -> None:
    """An off-by-one that pairs the student's top with a middle layer trains without complaint."""
    assert uniform(4, 12) == ((1, 3), (2, 6), (3, 9), (4, 12))
    assert uniform(6, 12, embeddings=True) == (
        (0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12),
    )  # fmt: skip


def test_uniform_rounds_halves_up() -> None:
    """round() would send 2.5 down and 3.5 up: a map that is uneven at random."""
    assert uniform(2, 5) == ((1, 3), (2, 5))
    assert uniform(2, 7) == ((1, 4), (2, 7))
    assert uniform(4, 10) == ((1, 3), (2, 5), (3, 8), (4, 10))


def test_skip_rounds_down() -> None:
    """Rounding would make it `uniform`, and a published result another one."""
    assert skip(4, 12) == uniform(4, 12)
    assert skip(5, 12) == ((1, 2), (2, 4), (3, 7), (4, 9), (5, 12))
    assert skip(2, 5, embeddings=True) == ((0, 0), (1, 2), (2, 5))


def test_skip_reaches_the_last_layer() -> None:
    """int(m * (N / M)) in floats is 14 of 15 for the last of 11 layers, and 29 of 30."""
    for student, teacher in ((11, 15), (13, 15), (23, 26), (11, 30), (29, 31)):
        assert skip(student, teacher)[-1] == (student, teacher)


def test_first_and_top() -> None:
    """Top and first swapped still train; only these figures tell them apart."""
    assert first(3, 12) == ((1, 1), (2, 2), (3, 3))
    assert first(2, 12, embeddings=True) == ((0, 0), (1, 1), (2, 2))
    assert top(3, 12) == ((1, 10), (2, 11), (3, 12))
    assert top(2, 12, embeddings=True) == ((0, 10), (1, 11), (2, 12))


def test_last_is_the_last_pair_or_the_last_few() -> None:
    """Counting down from the top, the pairs would be crossed or one layer too low."""
    assert last(3, 12) == ((3, 12),)
    assert last(6, 12, 4) == ((3, 9), (4, 10), (5, 11), (6, 12))
    assert last(12, 6, 2) == ((11, 5), (12, 6))
    assert last(3, 12, 2, embeddings=True) == ((0, 0), (2, 11), (3, 12))


@pytest.mark.parametrize("layers", [0, -1, 4, 2.0, True])
def test_last_asks_for_layers_that_both_have(layers: Any) -> None:
    """One too many would pair the embedding output as if it were a layer."""
    with pytest.raises(ValueError, match=f"ask for 1 to 3 last layers.*got 'last-{layers}'"):
        last(3, 12, layers)


def test_last_serves_a_student_deeper_than_its_teacher() -> None:
    """Refusing it would forbid MiniLM, which never compares the layers below."""
    assert resolve("last", 12, 6, embeddings=True) == ((12, 6),)


def test_blocks_give_every_teacher_layer_away() -> None:
    """Blocks cut by N // M would leave the teacher's last layers to nobody."""
    assert blocks(2, 6) == ((1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6))
    assert blocks(2, 5) == ((1, 1), (1, 2), (1, 3), (2, 4), (2, 5))
    assert blocks(3, 4, embeddings=True) == ((0, 0), (1, 1), (2, 2), (2, 3), (3, 4))


@quick
@given(depths())
def test_blocks_are_even_and_end_where_uniform_points(sizes: tuple[int, int]) -> None:
    """An uneven block makes one student layer imitate half of the teacher."""
    student, teacher = sizes
    pairs = blocks(student, teacher)
    assert [n for _, n in pairs] == list(range(1, teacher + 1))
    assert tuple(dict(pairs).items()) == uniform(student, teacher)
    counts = [sum(mine == m for mine, _ in pairs) for m in range(1, student + 1)]
    assert max(counts) - min(counts) <= 1


@quick
@given(depths())
def test_every_student_layer_has_one_rising_teacher_layer(sizes: tuple[int, int]) -> None:
    """A pair out of range or out of order asks for a layer that is another one, or none."""
    student, teacher = sizes
    for name in ONE_EACH:
        for lowest in (0, 1):
            pairs = MAPPINGS[name](student, teacher, embeddings=not lowest)
            assert [m for m, _ in pairs] == list(range(lowest, student + 1))
            taught = [n for _, n in pairs]
            assert taught == sorted(set(taught))
            assert taught[0] >= lowest
            assert taught[-1] == (student if name == "first" else teacher)


@quick
@given(depths())
def test_rounding_is_what_the_names_say(sizes: tuple[int, int]) -> None:
    """Float arithmetic misses a half, or a whole number, at some depths only."""
    student, teacher = sizes
    for m, n in uniform(student, teacher):
        assert -Fraction(1, 2) < n - Fraction(m * teacher, student) <= Fraction(1, 2)
    for m, n in skip(student, teacher):
        assert 0 <= Fraction(m * teacher, student) - n < 1


@quick
@given(depths())
def test_equal_depths_map_each_layer_to_itself(sizes: tuple[int, int]) -> None:
    """Self-distillation with shifted layers never reaches a loss of 0."""
    depth = sizes[1]
    same = tuple((m, m) for m in range(depth + 1))
    for name in (*ONE_EACH, "blocks"):
        assert MAPPINGS[name](depth, depth, embeddings=True) == same
    assert last(depth, depth, depth) == same[1:]


@pytest.mark.parametrize("name", [*ONE_EACH, "blocks"])
def test_a_student_deeper_than_its_teacher_is_refused(name: str) -> None:
    """Its upper layers would be paired with teacher layers that do not exist."""
    with pytest.raises(ValueError, match=r"student_layers must be at most teacher_layers \(6\)"):
        MAPPINGS[name](12, 6)


@pytest.mark.parametrize("depth", [0, -1, 2.0, True, "6"])
def test_depths_must_be_positive_ints(depth: Any) -> None:
    """A depth of 0 gives an empty mapping, and a loss without a term."""
    for function in MAPPINGS.values():
        with pytest.raises(ValueError, match="student_layers must be a positive int, got"):
            function(depth, 6)
        with pytest.raises(ValueError, match="teacher_layers must be a positive int, got"):
            function(1, depth)
