"""The main job: a small sentence encoder out of a real one, with its control, in one run."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModel,
    DataCollatorWithPadding,
    PreTrainedModel,
    TrainerCallback,
    TrainingArguments,
)

from hf_distill.evaluation.fidelity import embed, fidelity
from hf_distill.objectives import HiddenMSE, SimilarityKL
from hf_distill.quickstart.report import RESULTS, Asked, Results, measure, print_table, write
from hf_distill.quickstart.text import held_out, python_sentences, read_sentences
from hf_distill.release.tokenizer import load_tokenizer
from hf_distill.student import extract, fresh
from hf_distill.teacher.embedded import PACKAGE, embedded_teacher
from hf_distill.training.card import versions
from hf_distill.training.resuming import LENGTH_GROUPED
from hf_distill.training.trainer import DistillationTrainer

HELD_OUT = 1000
MAX_LENGTH = 64
BATCH_SIZE = 64
LEARNING_RATE = 5e-4
# Fidelity is about the order of all pairs; a low temperature would look at the nearest ones only.
OBJECTIVES = {
    "hidden": (1.0, HiddenMSE()),
    "similarity": (4.0, SimilarityKL(temperature=0.2)),
}


@dataclass(frozen=True)
class Task:
    """What the student and its control are both given."""

    teacher: PreTrainedModel
    tokenizer: Any
    train: Dataset
    held_out: list[str]
    taught: Tensor
    """[held-out sentences, width], the teacher's embeddings."""
    steps: int
    seed: int

    def fidelity(self, model: nn.Module) -> float:
        """Spearman correlation of a model's and the teacher's cosines over the held-out pairs."""
        student = embed(model, self.tokenizer, self.held_out, max_length=MAX_LENGTH)
        return fidelity(student, self.taught)


class FidelityCurve(TrainerCallback):
    """Measures fidelity before, at three points between, and after."""

    def __init__(self, task: Task) -> None:
        """Choose the steps."""
        self.task = task
        self.at = {round(task.steps * part / 4) for part in range(5)}
        self.points: list[tuple[int, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step."""
        self.on_step_end(args, state, control, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each step."""
        if state.global_step in self.at:
            self.points.append((state.global_step, self.task.fidelity(kwargs["model"])))


@dataclass(frozen=True)
class Trained:
    """A trained model and how it went."""

    trainer: DistillationTrainer
    curve: list[tuple[int, float]]
    seconds: float


def run(
    teacher: str,
    text: str | None,
    student: str,
    steps: int,
    seed: int,
    output_dir: Path,
    overwrite: bool,
) -> Results:
    """Extract a student, distil it and its control, measure all, and write everything at once.

    Args:
        teacher: The embedded package, or a path or Hub id of an encoder.
        text: A file (txt, parquet, csv, json) or Hub data set; None for Python's documentation.
        student: 13M, 22M, 33M or a size such as L3-H384.
        steps: Optimizer steps of 64 sentences, for the student and for the control each.
        seed: Of the text's order, the control's weights, the projections and the batches.
        output_dir: Appears when the run is finished, and not before.
        overwrite: Whether it may replace a finished run.

    Returns:
        What results.json holds.

    Raises:
        ValueError: A finished run is in the way, or an input does not fit.
    """
    output_dir = output_dir.resolve()
    _check(steps, output_dir, overwrite)
    began = time.perf_counter()
    task = _prepare(teacher, text, steps, seed)
    # A few hundred steps do not overfit, and random masks are costly on a CPU.
    extraction, before = (extract(task.teacher, student, dropout=0.0) for _ in range(2))
    control = fresh(task.teacher, student, seed=seed, dropout=0.0)
    partial = output_dir.with_name(f"{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    models = {
        "teacher": task.teacher,
        "student": extraction.model,
        "student_before": before.model,
        "control": control,
    }
    trained = {
        name: _distil(name, models[name], task, partial / "trainer")
        for name in ("student", "control")
    }
    print("Measuring speed and fidelity.")
    for model in models.values():
        model.to(task.teacher.device)
    results = measure(models, task.tokenizer, task.held_out, task.fidelity)
    for name, each in trained.items():
        results[name]["training_seconds"] = each.seconds
    results |= {"steps": steps, "seed": seed, "versions": versions()}
    results["seconds"] = round(time.perf_counter() - began, 1)
    shutil.rmtree(partial / "trainer")
    curves = {name: each.curve for name, each in trained.items()}
    extraction.indices.save(partial / "student")
    asked = Asked(teacher, text, student, steps, seed, len(task.train))
    write(partial, results, curves, trained["student"].trainer, task.tokenizer, asked)
    if output_dir.exists():
        shutil.rmtree(output_dir)
    partial.rename(output_dir)
    print_table(results)
    print(f"Written to {output_dir}: student/, README.md, curves.png, results.json")
    return results


def _check(steps: int, output_dir: Path, overwrite: bool) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}. 400 take a few minutes.")
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise ValueError(f"output_dir must be a folder, got the file {output_dir}. Name another.")
    finished = (output_dir / RESULTS).is_file()
    if finished and not overwrite:
        raise ValueError(
            f"output_dir must be new, got {output_dir}, which holds a finished run. Name another "
            "folder, or replace it with --overwrite."
        )
    if not finished and any(output_dir.iterdir()):
        raise ValueError(
            f"output_dir must be new or hold a finished run, got {output_dir} with other files. "
            "Name another folder."
        )


def _prepare(teacher: str, text: str | None, steps: int, seed: int) -> Task:
    """Load teacher and text, and let the teacher embed the held-out sentences."""
    folder = embedded_teacher() if teacher == PACKAGE else teacher
    model = AutoModel.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(str(folder), model.config)
    found = python_sentences() if text is None else read_sentences(text)
    train, kept = held_out(found, HELD_OUT, seed)
    print(f"Teacher: {teacher}. Text: {len(train)} sentences, and {len(kept)} held out.")
    columns = tokenizer(train, truncation=True, max_length=MAX_LENGTH)
    taught = embed(model, tokenizer, kept, max_length=MAX_LENGTH)
    return Task(model, tokenizer, Dataset.from_dict(dict(columns)), kept, taught, steps, seed)


def _distil(name: str, model: PreTrainedModel, task: Task, folder: Path) -> Trained:
    """Train one model on the teacher's hidden states and sentence similarities."""
    print(f"Training the {name}: {task.steps} steps of {BATCH_SIZE} sentences.")
    curve = FidelityCurve(task)
    trainer = DistillationTrainer(
        model=model,
        teacher=task.teacher,
        args=_arguments(task, folder),
        objectives=OBJECTIVES,
        layer_mapping="last",
        train_dataset=task.train,
        processing_class=task.tokenizer,
        data_collator=DataCollatorWithPadding(task.tokenizer),
        callbacks=[curve],
    )
    seconds = trainer.train().metrics["train_runtime"]
    return Trained(trainer, curve.points, round(seconds, 1))


def _arguments(task: Task, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        str(folder),
        max_steps=task.steps,
        per_device_train_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup_steps=task.steps // 10,
        weight_decay=0.01,
        seed=task.seed,
        logging_steps=max(1, task.steps // 20),
        save_strategy="no",
        report_to=[],
        dataloader_pin_memory=torch.accelerator.is_available(),
        **LENGTH_GROUPED,
    )
