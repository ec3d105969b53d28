"""What is said of a mapping is what is trained."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_distill.mapping import MAPPINGS, Match, explain, resolve
from tests.mapping.depths import depths, quick


@quick
@given(depths(), st.sampled_from(sorted(MAPPINGS)), st.booleans())
def test_explained_are_the_pairs_of_training(
    sizes: tuple[int, int], name: str, embeddings: bool
) -> None:
    """An explanation by a formula of its own comforts the user and is wrong."""
    told = explain(name, *sizes, embeddings=embeddings)
    pairs = resolve(name, *sizes, embeddings=embeddings)
    assert tuple((each.student, n) for each in told.matches for n in each.teacher) == pairs
    lowest = 0 if embeddings else 1
    for side, left_out in enumerate((told.student_left_out, told.teacher_left_out)):
        used = {pair[side] for pair in pairs}
        assert used.isdisjoint(left_out)
        assert sorted(used.union(left_out)) == list(range(lowest, sizes[side] + 1))


@pytest.mark.parametrize(
    ("mapping", "sizes", "reasons"),
    [
        ("uniform", (2, 6), ["m * N / M = 1 * 6 / 2 = 3", "m * N / M = 2 * 6 / 2 = 6"]),
        (
            "uniform",
            (2, 5),
            ["m * N / M = 1 * 5 / 2 = 2.5, halves go up", "m * N / M = 2 * 5 / 2 = 5"],
        ),
        (
            "uniform",
            (3, 7),
            [
                "m * N / M = 1 * 7 / 3 = 2.333, rounded down",
                "m * N / M = 2 * 7 / 3 = 4.667, rounded up",
                "m * N / M = 3 * 7 / 3 = 7",
            ],
        ),
        (
            "skip",
            (2, 5),
            ["m * N / M = 1 * 5 / 2 = 2.5, cut to a whole number", "m * N / M = 2 * 5 / 2 = 5"],
        ),
        ("first", (2, 5), ["the same number"] * 2),
        ("top", (2, 5), ["N - M + m = 5 - 2 + 1 = 4", "N - M + m = 5 - 2 + 2 = 5"]),
        ("last-2", (3, 5), ["1 below the last layer of both", "the last layer of both"]),
        (
            "blocks",
            (2, 5),
            [
                "block 1 of 2, up to m * N / M = 1 * 5 / 2 = 2.5, halves go up",
                "block 2 of 2, up to m * N / M = 2 * 5 / 2 = 5",
            ],
        ),
        ("emd", (1, 5), ["all layers, weighed by the transport of least cost"]),
        ([(1, 2), (2, 4)], (2, 5), ["given", "given"]),
    ],
)
def test_reasons_say_formula_and_rounding(
    mapping: Any, sizes: tuple[int, int], reasons: list[str]
) -> None:
    """A table without reasons leaves the user's question where it was."""
    told = explain(mapping, *sizes, embeddings=False)
    assert [each.why for each in told.matches] == reasons


@quick
@given(depths(), st.sampled_from(["uniform", "skip", "top"]))
def test_figures_agree_with_the_layers(sizes: tuple[int, int], name: str) -> None:
    """A reason that ends in another layer than the table's is worse than none."""
    for each in explain(name, *sizes, embeddings=False).matches:
        figure, _, rounding = each.why.rpartition(" = ")[2].partition(", ")
        (layer,) = each.teacher
        assert abs(float(figure) - layer) < 1
        assert bool(rounding) == (float(figure) != layer)
        if rounding in ("halves go up", "rounded up"):
            assert layer > float(figure)
        elif rounding:
            assert layer < float(figure)


def test_embedding_outputs_are_named() -> None:
    """Layer 0 in a table is read as the first layer by whoever counts from 0."""
    assert explain("uniform", 2, 4, embeddings=True).matches[0] == Match(
        0, (0,), "embedding outputs"
    )
    assert explain("top", 2, 5, embeddings=True).matches[0] == Match(
        0, (3,), "N - M + m = 5 - 2 + 0 = 3"
    )
    assert explain("last", 2, 4, embeddings=True).student_left_out == (0, 1)
    assert explain("last", 2, 4, embeddings=False).student_left_out == (1,)


def test_layers_left_out_are_told() -> None:
    """That the teacher's last layers teach nobody is seen in no loss curve."""
    told = explain("first", 2, 5, embeddings=True)
    assert (told.student_left_out, told.teacher_left_out) == ((), (3, 4, 5))
    told = explain([[2, 5], [2, 3]], 2, 5, embeddings=False)
    assert told.matches == (Match(2, (5, 3), "given"),)
    assert (told.student_left_out, told.teacher_left_out) == ((1,), (1, 2, 4))


def test_rules_and_periods_are_told() -> None:
    """A transported mapping that looks fixed hides that its weights move."""
    assert explain("emd-30", 2, 3, embeddings=True).steps == 30
    told = explain("top", 2, 3, embeddings=True)
    assert told.steps is None
    assert (
        told.rule
        == "Every student layer, with the teacher's last layers: both ends aligned at the top."
    )
    assert explain([(1, 1)], 2, 3, embeddings=True).rule == "Pairs that are given one by one."


@pytest.mark.parametrize(
    ("mapping", "sizes", "message"),
    [
        ("uniform", (6, 3), r"student_layers must be at most teacher_layers \(3\), got 6"),
        ("last-4", (3, 6), r"1 to 3 last layers"),
        ("unifrom", (3, 6), r"Did you mean 'uniform'"),
        ("top:embeddings", (3, 6), r"free of ':embeddings' here"),
        ([(1, 7)], (3, 6), r"within the teacher's layers 1 to 6"),
    ],
)
def test_illegal_mappings_say_why(mapping: Any, sizes: tuple[int, int], message: str) -> None:
    """A table of a mapping that training refuses is a promise."""
    with pytest.raises(ValueError, match=message):
        explain(mapping, *sizes, embeddings=False)
