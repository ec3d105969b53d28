"""Where a student may start: fresh weights, or weights cut out of the teacher."""

from __future__ import annotations

from typing import Any

from extraction_study.conditions import RANDOM, Cell
from hf_distill.student import extract, fresh

_HOW = {"stride": "stride", "ETD-Rand": "random", "magnitude": "magnitude"}


def start(cell: Cell, teacher: Any) -> Any:
    """The student of a run, before its first step.

    Dropout is off: students of a few hundred steps do not overfit.
    """
    if cell.start == RANDOM:
        return fresh(teacher, cell.size, seed=cell.seed, dropout=0.0)
    how = _HOW[cell.start]
    return extract(teacher, cell.size, how=how, seed=cell.seed, dropout=0.0).model
