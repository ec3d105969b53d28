"""Trainings with a cache of their teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hf_distill import DistillationTrainer
from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.teacher.writing import Written
from tests.training.runs import SEQUENCE, trainer

TERMS: dict[str, Any] = {"hidden": (1.0, HiddenMSE()), "kl": (1.0, KLDivergence())}


def written(folder: Path, head: str = SEQUENCE, **given: Any) -> Path:
    """A finished cache, in float32."""
    run = trainer(folder / "writing", head, **{"objectives": TERMS, **given})
    assert write(run, folder / "cache").finished
    return folder / "cache"


def write(run: DistillationTrainer, place: Path, **how: Any) -> Written:
    """What a trainer's teacher shows, quietly."""
    return run.write_teacher_cache(place, **{"storage": "float32", "say": lambda line: None, **how})


def reading(folder: Path, place: Any, head: str = SEQUENCE, **given: Any) -> DistillationTrainer:
    """A trainer that reads a cache; without a teacher, where none is named."""
    asked = {"teacher": None, "objectives": TERMS, "teacher_cache": place}
    return trainer(folder / "reading", head, **{**asked, **given})
