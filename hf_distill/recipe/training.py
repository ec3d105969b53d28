"""The trainings of a run: the teacher's, the student's, and the student's without a teacher."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from hf_distill.recipe.checkpoints import export, last_complete
from hf_distill.recipe.classes import arguments_of, mapping_of, objectives_of
from hf_distill.recipe.features import Prepared
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.models import base_of_teacher, finished_teacher, located
from hf_distill.recipe.reading import plain
from hf_distill.recipe.schema import Recipe
from hf_distill.training.sampling import ExactlyResumed
from hf_distill.training.trainer import DistillationTrainer

_MADE_BY = "teacher.json"
"""Beside a teacher's weights: all that decided on them."""


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


def student_arguments(recipe: Recipe, folder: RunFolder, label: str) -> TrainingArguments:
    """The arguments of the student, and of what is trained as it is."""
    return arguments_of(recipe.training, "training", folder.checkpoints / label, recipe.seed)


def teacher_arguments(recipe: Recipe, folder: RunFolder) -> TrainingArguments:
    """The arguments of the teacher's fine-tuning, on the student's kind of device."""
    device = {key: each for key, each in recipe.training.items() if key == "use_cpu"}
    given = {**device, **(recipe.teacher.training or {})}
    return arguments_of(given, "teacher.training", folder.checkpoints / "teacher", recipe.seed)


def obtain_teacher(site: Site) -> tuple[PreTrainedModel, float | None]:
    """The teacher, fine-tuned first where the recipe asks for it; and the seconds that took.

    A teacher that a run left in the folder is taken if it was made of the same things.
    """
    recipe, folder = site.recipe, site.folder
    if recipe.teacher.training is None:
        source = located(recipe.teacher.model)
        return finished_teacher(recipe, source, site.labels), None
    seconds = None if _is_ours(site) else _fine_tune(site)
    return finished_teacher(recipe, str(folder.teacher), site.labels), seconds


def distil(site: Site, student: PreTrainedModel, teacher: PreTrainedModel) -> Trained:
    """Train the student with its teacher."""
    arguments = student_arguments(site.recipe, site.folder, "student")
    trainer = DistillationTrainer(
        student,
        arguments,
        teacher=teacher,
        objectives=objectives_of(site.recipe),
        layer_mapping=mapping_of(site.recipe),
        log_gradient_norms=site.recipe.log_gradient_norms,
        **_common(site),
    )
    return _run(trainer, site.resume)


def train_alone(site: Site, student: PreTrainedModel) -> Trained:
    """Train the student as long on the same examples, without a teacher."""
    arguments = student_arguments(site.recipe, site.folder, "baseline")
    return _run(_plain_trainer(site, student, arguments), site.resume)


def _fine_tune(site: Site) -> float:
    """Write a teacher; the seconds that its training took."""
    folder = site.folder
    model = base_of_teacher(site.recipe, site.labels)
    arguments = teacher_arguments(site.recipe, folder)
    trained = _run(_plain_trainer(site, model, arguments), site.resume)
    made_by = json.dumps(_made_by(site), indent=2) + "\n"
    export(trained.trainer, site.tokenizer, folder.teacher, {_MADE_BY: made_by})
    return trained.seconds


def _is_ours(site: Site) -> bool:
    path = site.folder.teacher / _MADE_BY
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == _made_by(site)


def _made_by(site: Site) -> dict[str, Any]:
    said = plain(site.recipe)
    kept = {key: said[key] for key in ("task", "data", "teacher", "seed")}
    return {**kept, "labels": list(site.labels), "examples": len(site.data.train)}


def _common(site: Site) -> dict[str, Any]:
    measured = site.data.compute is not None
    return {
        "train_dataset": site.data.train,
        "eval_dataset": site.data.evaluation if measured else None,
        "data_collator": site.data.collator,
        "processing_class": site.tokenizer,
        "compute_metrics": site.data.compute,
    }


def _plain_trainer(site: Site, model: PreTrainedModel, arguments: TrainingArguments) -> Trainer:
    trainer = ExactlyResumed(model, arguments, **_common(site))
    # Encoders' heads take a mean over their own batch and ignore the count that the Trainer hands
    # them; it then would not divide by accumulated batches, and would multiply by processes.
    trainer.model_accepts_loss_kwargs = False
    return trainer


def _run(trainer: Trainer, resume: bool) -> Trained:
    arguments = trainer.args
    found = last_complete(Path(str(arguments.output_dir)), arguments.world_size)
    began = time.perf_counter()
    trainer.train(resume_from_checkpoint=found if resume else None)
    return Trained(trainer, time.perf_counter() - began)
