"""A task's teacher, fine-tuned once by whoever asks first; arguments of all runs; scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_distill.evaluation.metrics import classification_metrics, regression_metrics
from hf_distill.evaluation.speed import machine
from hf_distill.teacher.embedded import embedded_teacher
from hf_distill.training.card import versions
from hf_distill.training.resuming import LENGTH_GROUPED, ExactlyResumed
from studies.locks import locked
from studies.tasks import Examples

BATCH = 32
RATE, EPOCHS, SEED = 5e-5, 3, 0
"""Of the teachers."""


def obtain_teacher(
    folder: Path, name: str, examples: Examples, precision: str, steps: int = -1
) -> tuple[Any, float]:
    """The task's teacher and its score in per cent; the first that asks fine-tunes it.

    Args:
        folder: Of the study; the teacher is kept below it.
        name: The task's.
        examples: The task's.
        precision: bf16 or fp32.
        steps: Of the fine-tuning; three epochs without.
    """
    folder = folder / "teachers" / name
    told = folder / "score.json"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        if not told.is_file():
            trainer = _fine_tune(folder, examples, precision, steps)
            reached = score(trainer, examples)
            plain(trainer).save_pretrained(folder)
            examples.tokenizer.save_pretrained(folder)
            told.write_text(json.dumps(reached), encoding="utf-8")
    teacher = AutoModelForSequenceClassification.from_pretrained(folder)
    return teacher, json.loads(told.read_text(encoding="utf-8"))


def _fine_tune(folder: Path, examples: Examples, precision: str, steps: int) -> Trainer:
    set_seed(SEED)
    named = {"num_labels": 1, "problem_type": "regression"}
    if examples.names is not None:
        id2label = dict(enumerate(examples.names))
        named = {"id2label": id2label, "label2id": {name: at for at, name in id2label.items()}}
    model = AutoModelForSequenceClassification.from_pretrained(embedded_teacher(), **named)
    total = steps if steps > 0 else EPOCHS * len(examples.train) // BATCH
    made = arguments(
        folder,
        RATE,
        precision,
        seed=SEED,
        num_train_epochs=EPOCHS,
        max_steps=steps,
        warmup_steps=total // 10,
    )
    given = {"train_dataset": examples.train, "data_collator": examples.collator}
    trainer = quiet(ExactlyResumed(model, made, **given))
    trainer.train()
    return trainer


def score(trainer: Trainer, examples: Examples) -> float:
    """In per cent, of the weights in float32 whatever they were trained in."""
    metric = examples.task.metric
    compute = (regression_metrics if examples.task.regression else classification_metrics)([metric])
    asked = TrainingArguments(
        trainer.args.output_dir,
        per_device_eval_batch_size=64,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        use_cpu=True,
    )
    given = {"data_collator": examples.collator, "compute_metrics": compute}
    judge = quiet(Trainer(plain(trainer), asked, **given))
    return 100 * float(judge.evaluate(examples.scored)[f"eval_{metric}"])


def plain(trainer: Trainer) -> Any:
    """The model without autocast around its forward pass."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def arguments(
    folder: Path, rate: float, precision: str, *, seed: int, **length: int
) -> TrainingArguments:
    """What is the same in every training.

    Args:
        folder: Where the Trainer may write.
        rate: The learning rate.
        precision: bf16 or fp32.
        seed: Of the order of examples, and of what is learnt beside the student.
        **length: Steps or epochs, and of the warm-up.
    """
    return TrainingArguments(
        str(folder),
        per_device_train_batch_size=BATCH,
        learning_rate=rate,
        bf16=precision == "bf16",
        seed=seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_steps=10**6,
        use_cpu=True,
        **length,
        **LENGTH_GROUPED,
    )


def quiet(trainer: Trainer) -> Trainer:
    """The trainer, which prints no logs."""
    trainer.remove_callback(PrinterCallback)
    return trainer


def machine_and_versions() -> str:
    """On what it was run."""
    told = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()}. Versions: {told}"
