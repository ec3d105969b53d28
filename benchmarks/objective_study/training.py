"""One run: a teacher, the student cut out of it, weights that make terms comparable, a score."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_distill import DistillationTrainer
from hf_distill.architectures import base_model
from hf_distill.evaluation.metrics import classification_metrics, regression_metrics
from hf_distill.evaluation.speed import machine
from hf_distill.objectives.base import Objective
from hf_distill.student import extract
from hf_distill.teacher.embedded import embedded_teacher
from hf_distill.training.card import versions
from hf_distill.training.sampling import LENGTH_GROUPED, ExactlyResumed
from objective_study.conditions import CONDITIONS, TASKS, Cell
from objective_study.locks import locked

BATCH, TEACHER_RATE, STUDENT_RATE = 32, 5e-5, 2e-4
TEACHER_EPOCHS, TEACHER_SEED = 3, 0
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


class Examples:
    """A task's examples as a model reads them."""

    def __init__(self, study: Study, name: str) -> None:
        """Read and tokenise both splits; the scored one in order of length."""
        self.task, self._study, self._folder = TASKS[name], study, study.data / name
        self.tokenizer = AutoTokenizer.from_pretrained(embedded_teacher())
        self.collator = DataCollatorWithPadding(self.tokenizer)
        self.names: list[str] | None = None
        self.train, scored = self._read("train"), self._read(self.task.scored)
        lengths = [len(ids) for ids in scored["input_ids"]]
        self.scored = scored.select(sorted(range(len(scored)), key=lengths.__getitem__))

    def _read(self, split: str) -> Dataset:
        table = Dataset.from_parquet(str(self._folder / f"{split}.parquet"))
        table = table.shuffle(seed=0).select(range(min(len(table), self._study.limit or 10**9)))
        texts = [list(table[column]) for column in self.task.texts]
        encoded = self.tokenizer(*texts, truncation=True, max_length=self.task.max_length)
        if not self.task.regression:
            self.names = table.features[self.task.label].names
        return Dataset.from_dict({**encoded, "labels": list(table[self.task.label])})


def run(study: Study, cell: Cell) -> Outcome:
    """Train and score one student, after its teacher where that is not there yet."""
    examples = Examples(study, cell.task)
    teacher, reached = obtain_teacher(study, cell.task, examples)
    student = extract(teacher, cell.student, dropout=0.0).model
    chosen = examples.train.shuffle(seed=cell.seed)
    chosen = chosen.select(range(min(len(chosen), study.examples)))
    weights = balance(study, cell, student, teacher, examples)
    trainer = _trainer(study, cell, student, teacher, examples, chosen, weights)
    began = time.process_time()
    trainer.train()
    seconds = time.process_time() - began
    return Outcome(_score(study, trainer, examples), reached, seconds, weights)


def _trainer(
    study: Study,
    cell: Cell,
    student: Any,
    teacher: Any,
    examples: Examples,
    chosen: Dataset,
    weights: dict[str, float],
) -> Trainer:
    arguments = _arguments(study, STUDENT_RATE, study.epochs, len(chosen), cell.seed)
    common = {"train_dataset": chosen, "data_collator": examples.collator}
    condition = CONDITIONS[cell.condition]
    terms: dict[str, tuple[float, Any]] = {
        name: (weights[name], objective) for name, objective in condition.extra.items()
    }
    if condition.logits:
        terms[REFERENCE] = (1.0, examples.task.logits)
    if not terms:
        return _quiet(ExactlyResumed(student, arguments, **common))
    if condition.labels:
        terms["task"] = (1.0, examples.task.gold)
    return _quiet(
        DistillationTrainer(
            student,
            arguments,
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


def obtain_teacher(study: Study, name: str, examples: Examples) -> tuple[Any, float]:
    """The task's teacher and its score in per cent; the first that asks fine-tunes it."""
    folder = study.folder / "teachers" / name
    told = folder / "score.json"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not told.is_file():
            trainer = _fine_tune(study, examples)
            score = _score(study, trainer, examples)
            _plain(trainer).save_pretrained(folder)
            examples.tokenizer.save_pretrained(folder)
            told.write_text(json.dumps(score), encoding="utf-8")
    teacher = AutoModelForSequenceClassification.from_pretrained(folder)
    return teacher, json.loads(told.read_text(encoding="utf-8"))


def _fine_tune(study: Study, examples: Examples) -> Trainer:
    set_seed(TEACHER_SEED)
    named = {"num_labels": 1, "problem_type": "regression"}
    if examples.names is not None:
        id2label = dict(enumerate(examples.names))
        named = {"id2label": id2label, "label2id": {name: at for at, name in id2label.items()}}
    model = AutoModelForSequenceClassification.from_pretrained(embedded_teacher(), **named)
    count = len(examples.train)
    arguments = _arguments(study, TEACHER_RATE, TEACHER_EPOCHS, count, TEACHER_SEED)
    given = {"train_dataset": examples.train, "data_collator": examples.collator}
    trainer = _quiet(ExactlyResumed(model, arguments, **given))
    trainer.train()
    return trainer


def _score(study: Study, trainer: Trainer, examples: Examples) -> float:
    """In per cent, of the weights in float32 whatever they were trained in."""
    metric = examples.task.metric
    compute = (regression_metrics if examples.task.regression else classification_metrics)([metric])
    arguments = TrainingArguments(
        str(study.folder / "scratch"),
        per_device_eval_batch_size=64,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    given = {"data_collator": examples.collator, "compute_metrics": compute}
    judge = _quiet(Trainer(_plain(trainer), arguments, **given))
    return 100 * float(judge.evaluate(examples.scored)[f"eval_{metric}"])


def _plain(trainer: Trainer) -> Any:
    """The model without autocast around its forward pass."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def _arguments(
    study: Study, rate: float, epochs: int, examples: int, seed: int
) -> TrainingArguments:
    return TrainingArguments(
        str(study.folder / "scratch"),
        per_device_train_batch_size=BATCH,
        num_train_epochs=epochs,
        learning_rate=rate,
        warmup_steps=epochs * examples // BATCH // 10,
        bf16=study.precision == "bf16",
        seed=seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_steps=10**6,
        use_cpu=True,
        **LENGTH_GROUPED,
    )


def _quiet(trainer: Trainer) -> Trainer:
    trainer.remove_callback(PrinterCallback)
    return trainer


def _mapping(cell: Cell) -> Any:
    condition = CONDITIONS[cell.condition]
    return condition.mapping and dict.fromkeys(condition.extra, condition.mapping)


def machine_and_versions() -> str:
    """On what it was run."""
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()}. Versions: {told}"
