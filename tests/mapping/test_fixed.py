"""Layer mappings: which pairs, and which faults are named."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.mapping import MAPPINGS, explicit, first, last, resolve, top, uniform

quick = settings(max_examples=50, deadline=None)


@st.composite
def depths(draw: st.DrawFn) -> tuple[int, int]:
    teacher = draw(st.integers(1, 48))
    return draw(st.integers(1, teacher)), teacher


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


def test_first_last_and_top() -> None:
    """Top and first swapped still train; only these figures tell them apart."""
    assert first(3, 12) == ((1, 1), (2, 2), (3, 3))
    assert first(2, 12, embeddings=True) == ((0, 0), (1, 1), (2, 2))
    assert top(3, 12) == ((1, 10), (2, 11), (3, 12))
    assert top(2, 12, embeddings=True) == ((0, 10), (1, 11), (2, 12))
    assert last(3, 12) == last(3, 12, embeddings=True) == ((3, 12),)


def test_last_serves_a_student_deeper_than_its_teacher() -> None:
    """Refusing it would forbid MiniLM, which never compares the layers below."""
    assert resolve("last", 12, 6, embeddings=True) == ((12, 6),)


@quick
@given(depths(), st.booleans(), st.sampled_from(["uniform", "first", "top"]))
def test_every_student_layer_has_one_rising_teacher_layer(
    sizes: tuple[int, int], embeddings: bool, name: str
) -> None:
    """A pair out of range or out of order asks for a layer that is another one, or none."""
    student, teacher = sizes
    pairs = resolve(name, student, teacher, embeddings=embeddings)
    assert [m for m, _ in pairs] == list(range(0 if embeddings else 1, student + 1))
    taught = [n for _, n in pairs]
    assert taught == sorted(set(taught))
    assert taught[0] >= (0 if embeddings else 1)
    assert taught[-1] == (student if name == "first" else teacher)
    assert resolve(pairs, student, teacher, embeddings=embeddings) == pairs


@quick
@given(depths())
def test_uniform_is_never_off_by_more_than_half_a_layer(sizes: tuple[int, int]) -> None:
    """Float arithmetic misses a half at some depths only."""
    student, teacher = sizes
    for m, n in uniform(student, teacher):
        distance = n - Fraction(m * teacher, student)
        assert -Fraction(1, 2) < distance <= Fraction(1, 2)


@quick
@given(depths())
def test_equal_depths_map_each_layer_to_itself(sizes: tuple[int, int]) -> None:
    """Self-distillation with shifted layers never reaches a loss of 0."""
    depth = sizes[1]
    same = tuple((m, m) for m in range(depth + 1))
    for name in ("uniform", "first", "top"):
        assert resolve(name, depth, depth, embeddings=True) == same


def test_explicit_pairs_keep_their_order_and_may_share_a_layer() -> None:
    """Sorting or merging pairs would change what a recipe asks for."""
    pairs = [[2, 12], [2, 6], [1, 3]]
    assert resolve(pairs, 2, 12, embeddings=False) == ((2, 12), (2, 6), (1, 3))
    assert explicit([(0, 0), (0, 4)], 2, 12, embeddings=True) == ((0, 0), (0, 4))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("uniformly", r"mapping must be one of uniform, first, top, last, got 'uniformly'\. Did"),
        ("zzz", r"got 'zzz'\. Choose"),
        ([], r"mapping must be at least one .* got \(\)"),
        (7, r"mapping must be a name or a list of pairs, got 7"),
        ([(1, 2), (1, 2)], r"free of duplicates, got \(1, 2\) twice"),
        ([(3, 12)], r"within the student's layers 1 to 2, got \(3, 12\)"),
        ([(2, 13)], r"within the teacher's layers 1 to 12, got \(2, 13\)"),
        ([(-1, 2)], r"within the student's layers"),
        ([(0, 2)], r"free of layer 0 here, got \(0, 2\)"),
        ([(1, 0)], r"free of layer 0 here, got \(1, 0\)"),
        ([(1, 2.0)], r"pairs of two ints, got \(1, 2\.0\)"),
        ([(True, 2)], r"pairs of two ints, got \(True, 2\)"),
        ([(1, 2, 3)], r"pairs of two ints"),
        ([5], r"pairs of two ints, got 5"),
        (["12"], r"pairs of two ints, got '12'"),
    ],
)
def test_a_faulty_mapping_is_refused_by_name(mapping: Any, message: str) -> None:
    """A faulty pair that passes here is a KeyError deep in a training step, or a wrong layer."""
    with pytest.raises(ValueError, match=message):
        resolve(mapping, 2, 12, embeddings=False)


@pytest.mark.parametrize("name", ["uniform", "first", "top"])
def test_a_student_deeper_than_its_teacher_is_refused(name: str) -> None:
    """Its upper layers would be paired with teacher layers that do not exist."""
    with pytest.raises(ValueError, match=r"student_layers must be at most teacher_layers \(6\)"):
        resolve(name, 12, 6, embeddings=False)


@pytest.mark.parametrize("depth", [0, -1, 2.0, True, "6"])
def test_depths_must_be_positive_ints(depth: Any) -> None:
    """A depth of 0 gives an empty mapping, and a loss without a term."""
    for name in MAPPINGS:
        with pytest.raises(ValueError, match="must be a positive int, got"):
            resolve(name, depth, 6, embeddings=False)


def test_the_registry_explains_itself() -> None:
    """The command line lists the first docstring lines; an empty one lists nothing."""
    assert set(MAPPINGS) == {"uniform", "first", "top", "last"}
    for function in MAPPINGS.values():
        assert function.__doc__
        assert function.__doc__.splitlines()[0].endswith(".")


def test_mapping_imports_neither_torch_nor_transformers() -> None:
    """Searches over mappings fork many processes; an import of torch would cost each seconds."""
    code = (
        "import sys, hf_distill.mapping; "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
