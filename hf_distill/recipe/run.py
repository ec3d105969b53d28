"""A recipe, carried out: from names to a checkpoint with its card and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from hf_distill.recipe.checkpoints import export, write_text
from hf_distill.recipe.climbing import climb
from hf_distill.recipe.data import Splits
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.handover import card
from hf_distill.recipe.lineage import Lineage, lineages
from hf_distill.recipe.measure import circumstances, model_sizes, scores, speeds
from hf_distill.recipe.models import reload
from hf_distill.recipe.opening import Say, from_main, once, opened
from hf_distill.recipe.reading import plain, written
from hf_distill.recipe.schema import Recipe
from hf_distill.recipe.start import begin_student
from hf_distill.recipe.teachers import as_one, check_kept, leading, measured, obtain_teachers
from hf_distill.recipe.training import (
    Site,
    Trained,
    carried_out,
    distiller,
    student_arguments,
    train_alone,
)
from hf_distill.student.indices import EXTRACTION_FILE


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
    lineage: Lineage | None = None
    """What the card says of a run that is one of a chain; the recipe tells it without."""


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
    tell = from_main(say, arguments)
    site, splits = opened(recipe, folder, arguments, tell, resume=state == "interrupted")
    if state == "new" and not request.overwrite:
        check_kept(site)
    once(arguments, lambda: folder.begin(written(recipe)) if state == "new" else None)
    return _carry_out(request, site, splits, arguments, tell)


def _carry_out(
    request: Request, site: Site, splits: Splits, arguments: TrainingArguments, tell: Say
) -> dict[str, Any]:
    folder = site.folder
    site, teachers, bench = _teach(request, site, tell)
    recipe, lead = site.recipe, leading(site.recipe.teacher, teachers)
    if recipe.task == "text":
        bench.models["start"] = begin_student(site, lead).model
    elif request.baseline:
        tell("Baseline: training the same start without a teacher.")
        alone = train_alone(site, begin_student(site, lead).model)
        bench.models["baseline"], bench.seconds["baseline"] = _unwrapped(alone), alone.seconds

    tell("Student: training with the teacher.")
    start = begin_student(site, lead)
    trainer = distiller(site, start.model, as_one(recipe.teacher, teachers))
    trained = carried_out(trainer, site.resume)
    bench.seconds["student"] = trained.seconds
    cut = {} if start.indices is None else {EXTRACTION_FILE: start.indices.to_json()}
    export(trained.trainer, site.tokenizer, folder.student, cut)
    # What is measured is what was saved, loaded as anyone would.
    bench.models["student"] = reload(recipe, str(folder.student))

    tell("Measuring.")
    results = _results(request, site, splits, bench, arguments)

    def write() -> None:
        lineage = request.lineage or lineages(request.recipe, request.name)[-1]
        text = card(recipe, lineage, start, trained.trainer, results)
        write_text(folder.student / "README.md", text)
        folder.finish(results)

    once(arguments, write)
    return results


class Bench(NamedTuple):
    """What is measured side by side in the end, by label."""

    models: dict[str, nn.Module]
    seconds: dict[str, float | None]
    """That their training took; None where they were there already."""


def _teach(request: Request, site: Site, tell: Say) -> tuple[Site, list[PreTrainedModel], Bench]:
    """Those who teach the student, and the site where they do; a chain is climbed first."""
    teachers, seconds = obtain_teachers(site, tell)
    bench = Bench({"teacher": measured(site.recipe.teacher, teachers)}, {"teacher": seconds})
    if site.recipe.assistants:
        site, assistants = climb(request, site, run, tell)
        for index, (label, results) in enumerate(assistants.items()):
            folder = site.folder.assistant(index)
            bench.models[label] = reload(site.recipe, str(folder.student))
            bench.seconds[label] = results["seconds"]["student"]
        teachers, _ = obtain_teachers(site)
    return site, teachers, bench


def _results(
    request: Request, site: Site, splits: Splits, bench: Bench, arguments: TrainingArguments
) -> dict[str, Any]:
    length = request.recipe.data.max_length
    ordered = dict(sorted(bench.models.items(), key=lambda each: _LAST.get(each[0], 0)))
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
        "seconds": bench.seconds,
        "seed": request.recipe.seed,
        "resumed": site.resume,
        **circumstances(arguments),
        "command": request.command,
        "recipe": plain(request.recipe),
    }


_LAST = {"start": 1, "student": 2, "baseline": 3}
"""Teacher and assistants stand before these."""


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


def _unwrapped(trained: Trained) -> PreTrainedModel:
    trainer = trained.trainer
    model: PreTrainedModel = trainer.accelerator.unwrap_model(trainer.model)
    return model
