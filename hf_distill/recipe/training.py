"""The trainings of a run: of the student, of the student without a teacher, of a teacher."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from hf_distill.recipe.checkpoints import last_complete
from hf_distill.recipe.classes import arguments_of, mapping_of, objectives_of
from hf_distill.recipe.features import Prepared
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.schema import Recipe
from hf_distill.training.resuming import ExactlyResumed
from hf_distill.training.trainer import DistillationTrainer


class Site(NamedTuple):
    """Where a training takes place."""

    recipe: Recipe
    folder: RunFolder
    data: Prepared
    tokenizer: PreTrainedTokenizerBase
    labels: Sequence[str]
    resume: bool


class Trained(NamedTuple):
    """A trainer after its last step."""

    trainer: Trainer
    seconds: float
    """In this process's lifetime: a training that was resumed took longer."""


def student_arguments(
    recipe: Recipe, folder: RunFolder, label: str, place: str = ""
) -> TrainingArguments:
    """The arguments of the student, and of what is trained as it is.

    Args:
        recipe: The recipe.
        folder: The run's.
        label: What is trained.
        place: What their key begins with.
    """
    checkpoints = folder.checkpoints / label
    return arguments_of(recipe.training, f"{place}training", checkpoints, recipe.seed)


def teacher_arguments(recipe: Recipe, folder: RunFolder, index: int = 0) -> TrainingArguments:
    """The arguments of a teacher's fine-tuning, on the student's kind of device."""
    device = {key: each for key, each in recipe.training.items() if key == "use_cpu"}
    given = {**device, **(recipe.teacher.training or {})}
    place = folder.checkpoints / ("teacher" if index == 0 else f"teacher-{index + 1}")
    return arguments_of(given, "teacher.training", place, recipe.teacher_seed(index))


def distiller(site: Site, student: PreTrainedModel, teacher: Any) -> DistillationTrainer:
    """What trains the student with its teacher: a model, or an Ensemble."""
    return DistillationTrainer(
        student,
        student_arguments(site.recipe, site.folder, "student"),
        teacher=teacher,
        objectives=objectives_of(site.recipe),
        layer_mapping=mapping_of(site.recipe),
        log_gradient_norms=site.recipe.log_gradient_norms,
        teacher_dtype=site.recipe.teacher.dtype,
        teacher_cache=site.recipe.teacher_cache,
        **_common(site),
    )


def train_alone(site: Site, student: PreTrainedModel) -> Trained:
    """Train the student as long on the same examples, without a teacher."""
    arguments = student_arguments(site.recipe, site.folder, "baseline")
    return carried_out(plain_trainer(site, student, arguments), site.resume)


def _common(site: Site) -> dict[str, Any]:
    measured = site.data.compute is not None
    return {
        "train_dataset": site.data.train,
        "eval_dataset": site.data.evaluation if measured else None,
        "data_collator": site.data.collator,
        "processing_class": site.tokenizer,
        "compute_metrics": site.data.compute,
    }


def plain_trainer(site: Site, model: PreTrainedModel, arguments: TrainingArguments) -> Trainer:
    """What trains a model on the task, without a teacher."""
    trainer = ExactlyResumed(model, arguments, **_common(site))
    # Encoders' heads take a mean over their own batch and ignore the count that the Trainer hands
    # them; it then would not divide by accumulated batches, and would multiply by processes.
    trainer.model_accepts_loss_kwargs = False
    return trainer


def carried_out(trainer: Trainer, resume: bool) -> Trained:
    """Train, from the last complete checkpoint where it is resumed."""
    arguments = trainer.args
    found = last_complete(Path(str(arguments.output_dir)), arguments.world_size)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=found if resume else None)
    return Trained(trainer, time.perf_counter() - began)
