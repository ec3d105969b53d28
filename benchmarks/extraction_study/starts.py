"""Where a student may start: fresh weights, or weights cut out of the teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from studies.locks import locked
from torch.utils.data import DataLoader

from extraction_study.conditions import IMPORTANCE, RANDOM, RESCALED, Cell
from hf_distill.student import Importance, extract, fresh, importance

BATCH, BATCHES = 32, 32
"""Of training examples, that importance is found on."""

_HOW = {"stride": "stride", "ETD-Rand": "random", "magnitude": "magnitude"}


def start(cell: Cell, teacher: Any, scores: Callable[[], Importance]) -> Any:
    """The student of a run, before its first step.

    Dropout is off: students of a few hundred steps do not overfit.

    Args:
        cell: The run.
        teacher: Its teacher.
        scores: Gives the importance of the teacher's units; asked where it is needed.
    """
    if cell.start == RANDOM:
        return fresh(teacher, cell.size, seed=cell.seed, dropout=0.0)
    how = scores() if cell.start in (IMPORTANCE, RESCALED) else _HOW[cell.start]
    return extract(
        teacher,
        cell.size,
        how=how,
        seed=cell.seed,
        rescale_qk=cell.start == RESCALED,
        dropout=0.0,
    ).model


def obtain_scores(
    folder: Path, task: str, teacher: Any, train: Dataset, collate: Any
) -> Importance:
    """The importance of a teacher's units, found once by the first that asks.

    Args:
        folder: Of the study; the scores are kept below it.
        task: Whose teacher it is.
        teacher: The teacher.
        train: Training examples; those that count are drawn from all.
        collate: Makes a batch of them.
    """
    path = folder / "importance" / f"{task}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not path.is_file():
            shown = train.shuffle(seed=0).select(range(min(BATCH * BATCHES, len(train))))
            importance(teacher, DataLoader(shown, BATCH, collate_fn=collate)).save(path)
    return Importance.load(path)
