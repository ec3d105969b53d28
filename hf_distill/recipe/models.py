"""The models of a run: the teacher's source, the student's start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from hf_distill.recipe.chain import FIRST, links
from hf_distill.recipe.classes import mapping_of, objectives_of
from hf_distill.recipe.data import Splits, class_names
from hf_distill.recipe.features import label_column
from hf_distill.recipe.schema import TASKS, Data, Recipe, Teacher
from hf_distill.release.tokenizer import positions
from hf_distill.signals.head import HEADS
from hf_distill.student import student_config
from hf_distill.teacher.embedded import PACKAGE, PUBLISHED_AS, embedded_teacher
from hf_distill.training.defaults import build_mixture
from hf_distill.training.pairing import load_teacher, shape_in
from hf_distill.training.teaching import check_together


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


def teacher_keys(teacher: Teacher) -> list[str]:
    """The key of each teacher's name."""
    if teacher.models is None:
        return ["teacher.model"]
    return [f"teacher.models.{index}" for index in range(len(teacher.models))]


def check_fit(recipe: Recipe, teachers: Sequence[Any]) -> None:
    """Check what can be known from configs alone, before a teacher is fine-tuned for hours.

    Args:
        recipe: The recipe.
        teachers: Their configs.

    Raises:
        ValueError: The data are too long for a teacher, a student cannot be cut out of it, or an
            objective or a mapping does not fit the two; of a chain, it is said of which link.
    """
    for key, config in zip(teacher_keys(recipe.teacher), teachers, strict=True):
        most = positions(config)
        if most is not None:
            _check_length(recipe.data, key, most)
    teacher = first = teachers[recipe.teacher.lead or 0]
    chain = links(recipe)
    for index, link in enumerate(chain):
        several = index == 0 and len(teachers) > 1
        try:
            teacher = _check_link(link, teacher, first, several=several)
        except ValueError as error:
            if link is chain[-1]:
                raise
            raise ValueError(f"assistants.{index}: {error}") from error


def _check_length(data: Data, key: str, most: int) -> None:
    if data.max_length > most:
        raise ValueError(
            f"data.max_length must be at most the positions of {key} ({most}), "
            f"got {data.max_length!r}. Lower it."
        )
    if data.longest > most:
        raise ValueError(
            f"data.pad_to_multiple_of must leave {data.max_length} tokens within the positions of "
            f"{key} ({most}), got {data.pad_to_multiple_of!r}: {data.longest} tokens. Lower it."
        )


def _check_link(link: Recipe, teacher: Any, first: Any, *, several: bool) -> Any:
    """Check one student with its teacher; the student's config."""
    asked = link.student
    if asked.size is None:
        student = load_config(str(asked.model), "student.model")
    else:
        known = {None: teacher, FIRST: first}
        origin = known.get(asked.cut_from) or load_config(str(asked.cut_from), "student.cut_from")
        student = student_config(asked.size, origin, layers=asked.layers)
    objectives = objectives_of(link)
    if objectives is not None:
        if several:
            check_together(objectives, link.teacher.lead)
        shapes = shape_in(student), shape_in(teacher)
        mixture = build_mixture(objectives, mapping_of(link), *shapes)
        for term in mixture.terms.values():
            term.objective.check(*shapes)
    return student


def choose_labels(recipe: Recipe, splits: Splits, teachers: Sequence[Any]) -> list[str]:
    """The classes in the student's order: the leading teacher's own, else the data's.

    Args:
        recipe: The recipe.
        splits: The data.
        teachers: The teachers' configs.

    Raises:
        ValueError: A teacher was fine-tuned for other classes than those of the data.
    """
    column = label_column(recipe)
    if column is None:
        return []
    names = class_names(splits, column[0], nested=column[1])
    if recipe.teacher.training is not None:
        return names
    orders = []
    for key, config in zip(teacher_keys(recipe.teacher), teachers, strict=True):
        held = _classes(config)
        unnamed = held == [f"LABEL_{at}" for at in range(len(names))]
        if sorted(held) != sorted(names) and not unnamed:
            raise ValueError(
                f"{key} must have the classes of the data {names}, got {held}. Fine-tune it "
                "first: add `training` to the recipe's teacher."
            )
        orders.append(names if unnamed else held)
    return orders[recipe.teacher.lead or 0]


def base_of_teacher(recipe: Recipe, index: int, labels: Sequence[str]) -> PreTrainedModel:
    """A teacher before it is fine-tuned; a head that it lacks is random."""
    name, seed = recipe.teacher.names[index], recipe.teacher_seed(index)
    return _with_head(recipe, name, labels, seed)


def finished_teacher(recipe: Recipe, source: str, labels: Sequence[str]) -> PreTrainedModel:
    """A teacher that can teach; one whose classes have no names is given the data's.

    Raises:
        ValueError: It has no trained head for the task.
    """
    suffix = TASKS[recipe.task].suffix
    kinds: dict[str, Any] = {each.suffix: each for each in HEADS}
    teacher: Any = load_teacher(source, kinds[suffix](AutoConfig.from_pretrained(source)))
    if sorted(_classes(teacher.config)) != sorted(labels):
        for name, value in _named(labels).items():
            setattr(teacher.config, name, value)
    return teacher


def reload(recipe: Recipe, folder: str) -> PreTrainedModel:
    """A model of the task as a user would load it."""
    return _auto(recipe).from_pretrained(folder, dtype=torch.float32)


def loaded(recipe: Recipe, name: str, labels: Sequence[str], key: str) -> PreTrainedModel:
    """A model whose weights a student begins with.

    Raises:
        ValueError: There is no such model, or it has the classes in another order.
    """
    held = _classes(load_config(name, key))
    if labels and sorted(held) == sorted(labels) and held != list(labels):
        raise ValueError(
            f"{key} must have its classes in the order {list(labels)}, got {held}. Its head would "
            "begin by confusing them: take one of that order, or one without a head."
        )
    return _with_head(recipe, name, labels, recipe.seed)


def _with_head(recipe: Recipe, name: str, labels: Sequence[str], seed: int) -> PreTrainedModel:
    """A model with the task's head; a new one is random, of the seed."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Its generator alone: torch.manual_seed would reseed the devices as well.
        torch.default_generator.manual_seed(seed)
        return _auto(recipe).from_pretrained(located(name), dtype=torch.float32, **_named(labels))


def _auto(recipe: Recipe) -> Any:
    return getattr(transformers, f"AutoModel{TASKS[recipe.task].suffix.removeprefix('Model')}")


def _classes(config: Any) -> list[str]:
    return [config.id2label[at] for at in sorted(config.id2label or {})]


def _named(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {}
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {name: at for at, name in names.items()}}
