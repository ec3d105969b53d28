"""The models of a run: the teacher's source, the student's start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from hf_distill.recipe.classes import mapping_of, objectives_of
from hf_distill.recipe.data import Splits, class_names
from hf_distill.recipe.features import label_column
from hf_distill.recipe.schema import TASKS, Recipe
from hf_distill.release.tokenizer import positions
from hf_distill.signals.head import HEADS
from hf_distill.student import IndexSets, extract, fresh, student_config
from hf_distill.teacher.embedded import PACKAGE, PUBLISHED_AS, embedded_teacher
from hf_distill.training.defaults import build_mixture
from hf_distill.training.pairing import load_teacher, shape_in


class Start(NamedTuple):
    """A student before its first step."""

    model: PreTrainedModel
    indices: IndexSets | None
    """What was cut out of the teacher, where it was."""


def located(name: str) -> str:
    """What `from_pretrained` takes for a recipe's name of a model."""
    return str(embedded_teacher()) if name == PACKAGE else name


def published(name: str) -> str:
    """The name of a model for the public."""
    return PUBLISHED_AS if name == PACKAGE else name


def load_config(name: str, key: str) -> Any:
    """A model's config.

    Raises:
        ValueError: There is no such model.
    """
    try:
        return AutoConfig.from_pretrained(located(name))
    except (OSError, ValueError) as error:
        if name == PACKAGE:
            raise
        told = str(error).rstrip(".")
        raise ValueError(
            f"{key} must be a model that can be loaded, got {name!r}: {told}. Correct the name."
        ) from error


def check_fit(recipe: Recipe, teacher: Any) -> None:
    """Check what can be known from configs alone, before a teacher is fine-tuned for hours.

    Raises:
        ValueError: The data are too long for the teacher, the student cannot be cut out of it, or
            an objective or a mapping does not fit the two.
    """
    most = positions(teacher)
    if most is not None and recipe.data.max_length > most:
        raise ValueError(
            f"data.max_length must be at most the teacher's positions ({most}), "
            f"got {recipe.data.max_length!r}. Lower it."
        )
    asked = recipe.student
    if asked.size is not None:
        student = student_config(asked.size, teacher, layers=asked.layers)
    else:
        student = load_config(str(asked.model), "student.model")
    objectives = objectives_of(recipe)
    if objectives is not None:
        shapes = shape_in(student), shape_in(teacher)
        mixture = build_mixture(objectives, mapping_of(recipe), *shapes)
        for term in mixture.terms.values():
            term.objective.check(*shapes)


def choose_labels(recipe: Recipe, splits: Splits, teacher: Any) -> list[str]:
    """The classes in the models' order: a fine-tuned teacher's own, else the data's.

    Raises:
        ValueError: The teacher was fine-tuned for other classes than those of the data.
    """
    column = label_column(recipe)
    if column is None:
        return []
    names = class_names(splits, column[0], nested=column[1])
    if recipe.teacher.training is not None:
        return names
    held = [teacher.id2label[at] for at in sorted(teacher.id2label)]
    if sorted(held) == sorted(names):
        return held
    if held == [f"LABEL_{at}" for at in range(len(names))]:
        return names
    raise ValueError(
        f"teacher.model must have the classes of the data {names}, got {held}. Fine-tune it first: "
        "add `training` to the recipe's teacher."
    )


def base_of_teacher(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The teacher before it is fine-tuned; a head that it lacks is random."""
    return _with_head(recipe, recipe.teacher.model, labels)


def finished_teacher(recipe: Recipe, source: str, labels: Sequence[str]) -> PreTrainedModel:
    """A teacher that can teach.

    Raises:
        ValueError: It has no trained head for the task.
    """
    suffix = TASKS[recipe.task].suffix
    kinds: dict[str, Any] = {each.suffix: each for each in HEADS}
    teacher: Any = load_teacher(source, kinds[suffix](AutoConfig.from_pretrained(source)))
    for name, value in _named(labels).items():
        setattr(teacher.config, name, value)
    return teacher


def begin_student(recipe: Recipe, teacher: PreTrainedModel, labels: Sequence[str]) -> Start:
    """The student: cut out of the teacher, random in that shape, or loaded. The same every time.

    Raises:
        ValueError: A loaded student has the classes in another order.
    """
    asked = recipe.student
    if asked.size is None:
        return Start(_loaded_student(recipe, labels), None)
    if asked.init == "random":
        return Start(fresh(teacher, asked.size, recipe.seed, dropout=asked.dropout), None)
    cut = extract(
        teacher,
        asked.size,
        how=asked.how,
        layers=asked.layers,
        seed=recipe.seed,
        dropout=asked.dropout,
    )
    return Start(cut.model, cut.indices)


def reload(recipe: Recipe, folder: str) -> PreTrainedModel:
    """A model of the task as a user would load it."""
    return _auto(recipe).from_pretrained(folder, dtype=torch.float32)


def _loaded_student(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    name = str(recipe.student.model)
    config = load_config(name, "student.model")
    held = [config.id2label[at] for at in sorted(config.id2label or {})]
    if labels and sorted(held) == sorted(labels) and held != list(labels):
        raise ValueError(
            f"student.model must have its classes in the order {list(labels)}, got {held}. Its "
            "head would begin by confusing them: take one of that order, or one without a head."
        )
    return _with_head(recipe, name, labels)


def _with_head(recipe: Recipe, name: str, labels: Sequence[str]) -> PreTrainedModel:
    """A model with the task's head; a new one is random, of the recipe's seed."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Its generator alone: torch.manual_seed would reseed the devices as well.
        torch.default_generator.manual_seed(recipe.seed)
        return _auto(recipe).from_pretrained(located(name), dtype=torch.float32, **_named(labels))


def _auto(recipe: Recipe) -> Any:
    return getattr(transformers, f"AutoModel{TASKS[recipe.task].suffix.removeprefix('Model')}")


def _named(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {}
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {name: at for at, name in names.items()}}
