"""One run: a teacher, a student that starts somewhere, and how good it is while it learns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from datasets import Dataset
from studies.tasks import Examples
from studies.teachers import arguments, obtain_teacher, quiet
from torch.utils.data import DataLoader
from transformers import AutoModel

from extraction_study.conditions import OBJECTIVES, TEXT, USUAL, Cell
from extraction_study.curve import Curve, HeldOut
from extraction_study.starts import obtain_scores, start
from extraction_study.text import Text, read_text
from hf_distill import DistillationTrainer
from hf_distill.teacher.embedded import embedded_teacher

MEASURED_BATCH = 48
TEACHER_STEPS = {"sst2": 800}
"""Where three epochs of the task's examples would take too long."""


@dataclass(frozen=True)
class Study:
    """What is the same in every run."""

    data: Path
    folder: Path
    precision: str
    limit: int | None = None
    """Examples of every split, or sentences of every corpus, at most: for a trial."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    score: float
    """The last of the curve: Spearman correlation on STS-B, or accuracy."""
    curve: dict[str, list[float]]
    """"step" and what was measured there, by name."""
    teacher: dict[str, float]
    """The same of the teacher, where it has it."""
    seconds: float
    """Of the one thread that trained the student, without measuring."""


def run(study: Study, cell: Cell) -> Outcome:
    """Train one student, and measure it on its way."""
    return (_on_text if cell.task == TEXT else _on_a_task)(study, cell)


@cache
def _text(study: Study) -> Text:
    return read_text(study.data, study.limit)


@cache
def _examples(study: Study, name: str) -> Examples:
    return Examples(study.data, name, study.limit)


def _on_text(study: Study, cell: Cell) -> Outcome:
    text, asked = _text(study), OBJECTIVES[cell.objective]
    teacher = _faster(AutoModel.from_pretrained(embedded_teacher()))
    taught = text.embed(teacher, text.held_out)
    reached = {"stsb": text.similarity(teacher), "fidelity": 1.0}
    trainer = DistillationTrainer(
        _start(study, cell, teacher, text.train, text.collator),
        _arguments(study, cell),
        teacher=teacher,
        objectives=asked.terms,
        layer_mapping=asked.mapping,
        train_dataset=text.train,
        data_collator=text.collator,
    )
    examples = text.examples(text.held_out).shuffle(seed=0)
    held_out = HeldOut(
        trainer, list(DataLoader(examples, MEASURED_BATCH, collate_fn=text.collator))
    )

    def measure() -> dict[str, float]:
        return {
            "loss": mean(loss for _, loss in held_out.results()),
            "fidelity": text.fidelity(trainer.model, taught),
            "stsb": text.similarity(trainer.model),
        }

    return _trained(cell, trainer, measure, reached)


def _on_a_task(study: Study, cell: Cell) -> Outcome:
    examples = _examples(study, cell.task)
    steps = TEACHER_STEPS.get(cell.task, -1)
    teacher, score = obtain_teacher(study.folder, cell.task, examples, study.precision, steps)
    trainer = DistillationTrainer(
        _start(study, cell, _faster(teacher), examples.train, examples.collator),
        _arguments(study, cell),
        teacher=teacher,
        objectives=None if cell.objective == USUAL else OBJECTIVES[cell.objective].terms,
        train_dataset=examples.train,
        data_collator=examples.collator,
    )
    batches = list(DataLoader(examples.scored, MEASURED_BATCH, collate_fn=examples.collator))
    held_out = HeldOut(trainer, batches)

    def measure() -> dict[str, float]:
        right, losses = [], []
        for batch, (outputs, loss) in zip(batches, held_out.results(), strict=True):
            right.append(outputs["logits"].argmax(-1) == batch["labels"])
            losses.append(loss)
        return {"loss": mean(losses), "accuracy": torch.cat(right).float().mean().item()}

    return _trained(cell, trainer, measure, {"accuracy": score / 100})


def _trained(
    cell: Cell,
    trainer: DistillationTrainer,
    measure: Callable[[], Mapping[str, float]],
    teacher: dict[str, float],
) -> Outcome:
    curve = Curve(cell.steps, measure)
    trainer.add_callback(curve)
    began = time.process_time()
    quiet(trainer).train()
    seconds = time.process_time() - began - curve.seconds
    score = curve.points["stsb" if cell.task == TEXT else "accuracy"][-1]
    return Outcome(score, curve.points, teacher, round(seconds, 1))


def _start(study: Study, cell: Cell, teacher: Any, train: Dataset, collate: Any) -> Any:
    scores = partial(obtain_scores, study.folder, cell.task, teacher, train, collate)
    return start(cell, teacher, scores)


def _faster(teacher: Any) -> Any:
    """The teacher with plain attention, which its students inherit.

    On a CPU the fused one takes a quarter of a step in bfloat16, for the same values.
    """
    teacher.set_attn_implementation("eager")
    return teacher


def _arguments(study: Study, cell: Cell) -> Any:
    return arguments(
        study.folder / "scratch",
        cell.rate,
        study.precision,
        seed=cell.seed,
        max_steps=cell.steps,
        warmup_steps=cell.steps // 10,
    )
