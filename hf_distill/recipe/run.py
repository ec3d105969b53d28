"""A recipe, carried out: from names to a checkpoint with its card and its numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, TrainingArguments
from transformers.utils import logging

from hf_distill.recipe.checkpoints import export, write_text
from hf_distill.recipe.data import Splits, load_splits
from hf_distill.recipe.features import check_data, prepare
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.handover import card
from hf_distill.recipe.measure import circumstances, model_sizes, scores, speeds
from hf_distill.recipe.models import (
    begin_student,
    check_fit,
    choose_labels,
    load_config,
    located,
    reload,
)
from hf_distill.recipe.reading import plain, written
from hf_distill.recipe.schema import Recipe
from hf_distill.recipe.training import (
    Site,
    Trained,
    distil,
    obtain_teacher,
    student_arguments,
    teacher_arguments,
    train_alone,
)
from hf_distill.release.tokenizer import load_tokenizer
from hf_distill.student.indices import EXTRACTION_FILE

Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """A recipe, and how it is to be run."""

    recipe: Recipe
    name: str
    """Of the recipe, and of the student in its card."""
    output: Path
    baseline: bool = False
    """Whether the same start is also trained without a teacher."""
    overwrite: bool = False
    resume: bool = False
    command: str | None = None
    """What made this run, for the card."""


def run(request: Request, say: Say = lambda line: None) -> dict[str, Any]:
    """Train, measure and write; what stands in results.json.

    Every process of a distributed run must call it; all get the results, one writes.

    Args:
        request: What is asked.
        say: Is told what happens, by the main process alone.

    Raises:
        ValueError: Something cannot work: said before the first step where it can be known then.
    """
    recipe, folder = request.recipe, RunFolder(request.output)
    _check_request(request)
    state = folder.state(plain(recipe), overwrite=request.overwrite, resume=request.resume)
    if state == "finished":
        return _held(folder, request)
    arguments = student_arguments(recipe, folder, "student")
    tell = say
    if arguments.process_index != 0:
        tell = _silent
        logging.set_verbosity_error()
    site, splits = _prepare(request, folder, arguments, resume=state == "interrupted")
    counts = {"train": len(site.data.train), "evaluation": len(site.data.evaluation)}
    tell(f"Data: {counts['train']:,} features to learn from, {counts['evaluation']:,} to measure.")
    _once(arguments, lambda: folder.begin(written(recipe)) if state == "new" else None)
    return _carry_out(request, site, splits, arguments, tell)


def _carry_out(
    request: Request, site: Site, splits: Splits, arguments: TrainingArguments, tell: Say
) -> dict[str, Any]:
    recipe, folder = site.recipe, site.folder
    asked = recipe.teacher.training is not None
    tell("Teacher: fine-tuning, unless it is there already." if asked else "Teacher: loading.")
    teacher, seconds = obtain_teacher(site)
    models: dict[str, PreTrainedModel] = {"teacher": teacher}
    taken: dict[str, float | None] = {"teacher": seconds}
    if recipe.task == "text":
        models["start"] = begin_student(recipe, teacher, site.labels).model
    elif request.baseline:
        tell("Baseline: training the same start without a teacher.")
        alone = train_alone(site, begin_student(recipe, teacher, site.labels).model)
        models["baseline"], taken["baseline"] = _unwrapped(alone), alone.seconds

    tell("Student: training with the teacher.")
    start = begin_student(recipe, teacher, site.labels)
    trained = distil(site, start.model, teacher)
    taken["student"] = trained.seconds
    cut = {} if start.indices is None else {EXTRACTION_FILE: start.indices.to_json()}
    export(trained.trainer, site.tokenizer, folder.student, cut)
    # What is measured is what was saved, loaded as anyone would.
    models["student"] = reload(recipe, str(folder.student))

    tell("Measuring.")
    results = _results(request, site, splits, models, taken, arguments)

    def write() -> None:
        text = card(recipe, start, trained.trainer, results)
        write_text(folder.student / "README.md", text)
        folder.finish(results)

    _once(arguments, write)
    return results


def _results(
    request: Request,
    site: Site,
    splits: Splits,
    models: Mapping[str, PreTrainedModel],
    taken: Mapping[str, float | None],
    arguments: TrainingArguments,
) -> dict[str, Any]:
    length = request.recipe.data.max_length
    ordered = {label: models[label] for label in _ORDER if label in models}
    found = scores(ordered, site.data, site.tokenizer, arguments, length)
    # The start is the student: measured twice, it would only show the noise.
    timed = {label: each for label, each in ordered.items() if label != "start"}
    is_main = arguments.process_index == 0
    return {
        "name": request.name,
        "task": request.recipe.task,
        "scores": found,
        "evaluated_on": splits.evaluated_on,
        "examples": {"train": len(splits.train), "evaluation": len(splits.evaluation)},
        "sizes": model_sizes(timed),
        "speeds": speeds(timed, site.data, site.tokenizer, length) if is_main else {},
        "seconds": dict(taken),
        "seed": request.recipe.seed,
        "resumed": site.resume,
        **circumstances(arguments),
        "command": request.command,
        "recipe": plain(request.recipe),
    }


_ORDER = ("teacher", "start", "student", "baseline")


def _prepare(
    request: Request, folder: RunFolder, arguments: TrainingArguments, *, resume: bool
) -> tuple[Site, Splits]:
    """Everything that can be known to be wrong before anything is written."""
    recipe = request.recipe
    _check_processes(arguments)
    if recipe.teacher.training is not None:
        teacher_arguments(recipe, folder)
    config = load_config(recipe.teacher.model, "teacher.model")
    check_fit(recipe, config)
    tokenizer = load_tokenizer(located(recipe.teacher.model), config)
    with arguments.main_process_first(desc="preparing the data"):
        splits = load_splits(recipe.data, prose=_prose(recipe))
        check_data(recipe, splits)
        labels = choose_labels(recipe, splits, config)
        data = prepare(recipe, splits, tokenizer, labels)
    return Site(recipe, folder, data, tokenizer, labels, resume), splits


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


def _check_request(request: Request) -> None:
    if request.baseline and request.recipe.task == "text":
        raise ValueError(
            "--baseline must be left out for task text, got it. Without a teacher there is nothing "
            "to learn from texts alone; the student's start is measured anyway."
        )


def _held(folder: RunFolder, request: Request) -> dict[str, Any]:
    """The results of a run that was finished before."""
    results = folder.read_results()
    if request.baseline and "baseline" not in results["scores"]:
        raise ValueError(
            f"--baseline must be asked for before a run is finished, got {str(folder.path)!r}, "
            "which has none. Run it again with --overwrite."
        )
    return results


def _once(arguments: TrainingArguments, act: Callable[[], None]) -> None:
    """Let the main process act, and the others wait for it."""
    with arguments.main_process_first(local=False, desc="writing"):
        if arguments.process_index == 0:
            act()


def _unwrapped(trained: Trained) -> PreTrainedModel:
    trainer = trained.trainer
    model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    return model


def _silent(line: str) -> None:
    """Say nothing."""
