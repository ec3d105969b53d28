"""One setting, measured in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import load_from_disk
from studies import memory
from studies.trainers import arguments, bert, step_seconds

from growth_study.settings import Setting
from hf_distill import DistillationTrainer
from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.training.resuming import LENGTH_GROUPED

WARMUP = 2
"""Steps that are not measured, before the others; the first of them is told by itself."""


class Cost(NamedTuple):
    """What a setting took."""

    construction: float
    """Seconds in which the trainer was built; of a cached teacher, in which its cache was found."""
    first: float
    """Seconds from the call of `train` to the end of the first step."""
    steps: Sequence[float]
    """Seconds of each step after the warm-up."""
    peak: int
    """Bytes above what the process held before: its imports, and nothing of a device."""
    written: float
    """Seconds in which the cache was written; 0 without."""
    kept: int
    """Bytes of the cache."""


class Place(NamedTuple):
    """Where a setting is measured."""

    examples: str
    """The folder of a data set, which is read from disk as it is wanted."""
    cache: str
    """The folder of a cache."""
    device: str
    threads: int


def write(setting: Setting, place: Place) -> tuple[float, int]:
    """Write the cache of a setting; the seconds, and its bytes."""
    torch.set_num_threads(place.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(setting, place, folder, teacher=_teacher(setting))
        began = time.perf_counter()
        trainer.write_teacher_cache(place.cache, say=lambda line: None)
        seconds = time.perf_counter() - began
    files = (path for path in Path(place.cache).rglob("*") if path.is_file())
    return seconds, sum(path.stat().st_size for path in files)


def measure(setting: Setting, place: Place, written: tuple[float, int] = (0, 0)) -> Cost:
    """Train for a few steps.

    Args:
        setting: What is trained.
        place: Where.
        written: What `write` gave, of a setting that is cached.
    """
    torch.set_num_threads(place.threads)
    imported = memory.peak(place.device)
    taught = {"teacher_cache": place.cache} if setting.cached else {"teacher": _teacher(setting)}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        trainer = _trainer(setting, place, folder, **taught)
        built = time.perf_counter() - began
        first, *others = step_seconds(trainer)
    grown = memory.peak(place.device) - imported
    return Cost(built, first, others[WARMUP - 1 :], grown, *written)


def _teacher(setting: Setting) -> Any:
    torch.manual_seed(1)
    return bert(*astuple(setting.teacher)).eval()


def _trainer(setting: Setting, place: Place, folder: str, **taught: Any) -> DistillationTrainer:
    objectives: dict[str, Any] = {"hidden": (1.0, HiddenMSE())}
    if setting.logits:
        objectives["kl"] = (1.0, KLDivergence(2.0))
    given = arguments(
        folder,
        setting.batch,
        setting.steps + WARMUP,
        use_cpu=place.device == "cpu",
        dataloader_pin_memory=place.device != "cpu",
        **(LENGTH_GROUPED if setting.grouped else {}),
    )
    torch.manual_seed(0)
    return DistillationTrainer(
        bert(*astuple(setting.student)),
        given,
        objectives=objectives,
        layer_mapping={"hidden": setting.pairs},
        train_dataset=load_from_disk(place.examples),
        **taught,
    )
