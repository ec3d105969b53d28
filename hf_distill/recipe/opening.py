"""A run is opened: all that can be known to be wrong is, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable

from transformers import TrainingArguments
from transformers.utils import logging

from hf_distill.recipe.chain import links
from hf_distill.recipe.data import Splits, load_splits
from hf_distill.recipe.features import check_data, prepare
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.models import check_fit, choose_labels, load_config, teacher_keys
from hf_distill.recipe.schema import Recipe
from hf_distill.recipe.teachers import check_cache, teachers_tokenizer
from hf_distill.recipe.training import Site, student_arguments, teacher_arguments

Say = Callable[[str], None]


def opened(
    recipe: Recipe, folder: RunFolder, arguments: TrainingArguments, tell: Say, *, resume: bool
) -> tuple[Site, Splits]:
    """Where a recipe's trainings take place, and its data. Every process must call it.

    Args:
        recipe: The recipe.
        folder: Its run's.
        arguments: The student's.
        tell: Is told how much data there is.
        resume: Whether trainings that were interrupted are continued.

    Raises:
        ValueError: Something cannot work.
    """
    _check_processes(arguments)
    if recipe.teacher.training is not None:
        teacher_arguments(recipe, folder)
    for index, link in enumerate(links(recipe)[:-1]):
        student_arguments(link, folder.assistant(index), "student", f"assistants.{index}.")
    named = zip(recipe.teacher.names, teacher_keys(recipe.teacher), strict=True)
    configs = [load_config(name, key) for name, key in named]
    check_fit(recipe, configs)
    tokenizer = teachers_tokenizer(recipe.teacher, configs)
    with arguments.main_process_first(desc="preparing the data"):
        splits = load_splits(recipe.data, prose=_prose(recipe))
        check_data(recipe, splits)
        labels = choose_labels(recipe, splits, configs)
        data = prepare(recipe, splits, tokenizer, labels)
    site = Site(recipe, folder, data, tokenizer, labels, resume)
    check_cache(site)
    tell(f"Data: {len(data.train):,} features to learn from, {len(data.evaluation):,} to measure.")
    return site, splits


def from_main(say: Say, arguments: TrainingArguments) -> Say:
    """What the main process says; the others say nothing."""
    if arguments.process_index == 0:
        return say
    logging.set_verbosity_error()
    return _silent


def once(arguments: TrainingArguments, act: Callable[[], None]) -> None:
    """Let the main process act, and the others wait for it."""
    with arguments.main_process_first(local=False, desc="writing"):
        if arguments.process_index == 0:
            act()


def _check_processes(arguments: TrainingArguments) -> None:
    """Processes that do not find each other would all train, and all write the same files."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != arguments.world_size:
        raise ValueError(
            f"processes must train together, got {launched} that were launched and "
            f"{arguments.world_size} in this group. On CPUs add --set training.use_cpu=true."
        )


def _prose(recipe: Recipe) -> str | None:
    """The column of texts where they are all that there is."""
    return str(recipe.data.text) if recipe.task == "text" else None


def _silent(line: str) -> None:
    """Say nothing."""
