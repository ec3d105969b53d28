"""Pairs given one by one: which faults are named."""

from __future__ import annotations

from typing import Any

import pytest

from hf_distill.mapping import check_mapping, explicit, resolve

FORM = [
    ([], r"mapping must be at least one .* got \(\)"),
    (7, r"mapping must be a name or a list of pairs, got 7"),
    (None, r"mapping must be a name or a list of pairs, got None"),
    ({1: 2}, r"mapping must be a name or a list of pairs, got \{1: 2\}"),
    ([(1, 2), [1, 2]], r"free of duplicates, got \(1, 2\) twice"),
    ([(1, 2.0)], r"pairs of two ints, got \(1, 2\.0\)"),
    ([(True, 2)], r"pairs of two ints, got \(True, 2\)"),
    ([(1, 2, 3)], r"pairs of two ints"),
    ([5], r"pairs of two ints, got 5"),
    (["12"], r"pairs of two ints, got '12'"),
]
FIT = [
    ([(3, 12)], r"within the student's layers 1 to 2, got \(3, 12\)"),
    ([(2, 13)], r"within the teacher's layers 1 to 12, got \(2, 13\)"),
    ([(-1, 2)], r"within the student's layers"),
    ([(0, 2)], r"free of layer 0 here, got \(0, 2\)"),
    ([(1, 0)], r"free of layer 0 here, got \(1, 0\)"),
]


def test_pairs_keep_their_order_and_may_share_a_layer() -> None:
    """Sorting or merging pairs would change what a recipe asks for."""
    pairs = [[2, 12], [2, 6], [1, 3]]
    assert resolve(pairs, 2, 12, embeddings=False) == ((2, 12), (2, 6), (1, 3))
    assert explicit([(0, 0), (0, 4)], 2, 12, embeddings=True) == ((0, 0), (0, 4))


def test_tuples_and_lists_are_alike() -> None:
    """YAML gives lists, Python tuples: one of them alone fails in the other's hands."""
    found = resolve([[1, 2], [2, 4]], 2, 4, embeddings=False)
    assert resolve(((1, 2), (2, 4)), 2, 4, embeddings=False) == found == ((1, 2), (2, 4))


@pytest.mark.parametrize(("pairs", "message"), FORM + FIT)
def test_faulty_pairs_are_refused_by_name(pairs: Any, message: str) -> None:
    """A faulty pair that passes here is a KeyError deep in a training step, or a wrong layer."""
    with pytest.raises(ValueError, match=message):
        resolve(pairs, 2, 12, embeddings=False)


@pytest.mark.parametrize(("pairs", "message"), FORM)
def test_form_is_checked_without_depths(pairs: Any, message: str) -> None:
    """A recipe's fault that waits for the models is told after the others, one run later."""
    with pytest.raises(ValueError, match=message):
        check_mapping(pairs)


@pytest.mark.parametrize("pairs", [each for each, _ in FIT])
def test_fit_is_not_checked_without_depths(pairs: Any) -> None:
    """What fits some models must pass where no model is known."""
    check_mapping(pairs)
