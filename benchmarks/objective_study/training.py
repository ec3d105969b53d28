"""One run: a teacher, the student cut out of it, weights that make terms comparable, a score."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from datasets import Dataset
from studies.tasks import Examples
from studies.teachers import BATCH, arguments, obtain_teacher, quiet, score
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from hf_distill import DistillationTrainer
from hf_distill.architectures import base_model
from hf_distill.objectives.base import Objective
from hf_distill.student import extract
from hf_distill.training.resuming import ExactlyResumed
from objective_study.conditions import CONDITIONS, Cell

STUDENT_RATE = 2e-4
PROBED = 4
"""Batches of training examples that weights are found on."""
REFERENCE = "logits"


@dataclass(frozen=True)
class Study:
    """What is the same in every run."""

    data: Path
    folder: Path
    examples: int
    epochs: int
    precision: str
    limit: int | None = None
    """Examples of every split at most, for a trial of the study itself."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    score: float
    """In per cent."""
    teacher: float
    """The teacher's score, in per cent."""
    seconds: float
    """Of the one thread that trained the student, whatever else the machine did."""
    weights: dict[str, float]
    """Of the extra terms."""


def run(study: Study, cell: Cell) -> Outcome:
    """Train and score one student, after its teacher where that is not there yet."""
    examples = Examples(study.data, cell.task, study.limit)
    teacher, reached = obtain_teacher(study.folder, cell.task, examples, study.precision)
    student = extract(teacher, cell.student, dropout=0.0).model
    chosen = examples.train.shuffle(seed=cell.seed)
    chosen = chosen.select(range(min(len(chosen), study.examples)))
    weights = balance(study, cell, student, teacher, examples)
    trainer = _trainer(study, cell, student, teacher, examples, chosen, weights)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    return Outcome(score(trainer, examples), reached, seconds, weights)


def _trainer(
    study: Study,
    cell: Cell,
    student: Any,
    teacher: Any,
    examples: Examples,
    chosen: Dataset,
    weights: dict[str, float],
) -> Trainer:
    made = _arguments(study, STUDENT_RATE, study.epochs, len(chosen), cell.seed)
    common = {"train_dataset": chosen, "data_collator": examples.collator}
    condition = CONDITIONS[cell.condition]
    terms: dict[str, tuple[float, Any]] = {
        name: (weights[name], objective) for name, objective in condition.extra.items()
    }
    if condition.logits:
        terms[REFERENCE] = (1.0, examples.task.logits)
    if not terms:
        return quiet(ExactlyResumed(student, made, **common))
    if condition.labels:
        terms["task"] = (1.0, examples.task.gold)
    return quiet(
        DistillationTrainer(
            student,
            made,
            teacher=teacher,
            objectives=terms,
            layer_mapping=_mapping(cell),
            **common,
        )
    )


def balance(
    study: Study, cell: Cell, student: Any, teacher: Any, examples: Examples
) -> dict[str, float]:
    """The weight of each extra term: one rule for all that state none, and nothing tuned.

    At the start, each pulls at the student's layers as hard as the logits' term, divided by the
    number of extra terms: the mean over a few batches of training examples of the length of the
    gradient. It does not depend on the seed.
    """
    condition = CONDITIONS[cell.condition]
    if condition.weight is not None:
        return dict.fromkeys(condition.extra, condition.weight)
    shown = examples.train.select(range(min(PROBED * BATCH, len(examples.train))))
    batches = list(DataLoader(shown, BATCH, collate_fn=examples.collator))

    def pull(objective: Objective, mapping: Any) -> float:
        probe = DistillationTrainer(
            copy.deepcopy(student),
            _arguments(study, STUDENT_RATE, 1, PROBED * BATCH, seed=0),
            teacher=copy.deepcopy(teacher),
            objectives={"probed": (1.0, objective)},
            layer_mapping=mapping,
            data_collator=examples.collator,
        )
        return mean(_gradient(probe, batch) for batch in batches)

    aim = pull(examples.task.logits, None) / max(len(condition.extra), 1)
    return {name: aim / pull(each, condition.mapping) for name, each in condition.extra.items()}


def _gradient(probe: Trainer, batch: dict[str, Any]) -> float:
    """The length of the loss's gradient on the student's layers."""
    model: Any = probe.model
    layers = list(base_model(model.train()).encoder.parameters())
    (taken,), _ = probe.get_batch_samples(iter([batch]), 1, torch.device("cpu"))
    found = torch.autograd.grad(probe.compute_loss(model, taken), layers, allow_unused=True)
    return float(torch.stack([each.norm() for each in found if each is not None]).norm())


def _arguments(
    study: Study, rate: float, epochs: int, examples: int, seed: int
) -> TrainingArguments:
    warmup = epochs * examples // BATCH // 10
    return arguments(
        study.folder / "scratch",
        rate,
        study.precision,
        seed=seed,
        num_train_epochs=epochs,
        warmup_steps=warmup,
    )


def _mapping(cell: Cell) -> Any:
    condition = CONDITIONS[cell.condition]
    return condition.mapping and dict.fromkeys(condition.extra, condition.mapping)
