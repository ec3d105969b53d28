"""Which teacher layers a student starts from."""

from __future__ import annotations

from typing import Any

import pytest

from hf_distill.student.depth import source_layers


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("uniform", (3, 6, 9, 12)),
        ("first", (1, 2, 3, 4)),
        ("last", (9, 10, 11, 12)),
        ((1, 4, 8, 12), (1, 4, 8, 12)),
        ([2, 3, 5, 7], (2, 3, 5, 7)),
    ],
)
def test_layers_are_counted_from_one(layers: Any, expected: tuple[int, ...]) -> None:
    """Counted from 0, every copied layer is the one above."""
    assert source_layers(layers, 4, 12) == expected


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("lasts", r"layers must be one of uniform, first, last, got 'lasts'\. Did you mean 'last'"),
        ("even", r"got 'even'"),
        ((1, 2), r"as many as the student has \(4\), got \(1, 2\)"),
        ((0, 1, 2, 3), r"ints from 1 to 12, got \(0, 1, 2, 3\)"),
        ((1, 2, 3, 13), r"ints from 1 to 12"),
        ((1, 2, 3, 4.0), r"ints from 1 to 12"),
        ((True, 2, 3, 4), r"ints from 1 to 12"),
        ((4, 3, 2, 1), r"different and ascending"),
        ((1, 1, 2, 3), r"different and ascending"),
    ],
)
def test_faulty_layers_are_refused(layers: Any, message: str) -> None:
    """A layer copied twice or in reverse order gives a student that still trains."""
    with pytest.raises(ValueError, match=message):
        source_layers(layers, 4, 12)
