"""A recipe's teacher is run once over its examples, and what it shows is kept for its students."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hf_distill.cache.cache import check_place
from hf_distill.cache.encoding import Storage
from hf_distill.cache.folder import Folder
from hf_distill.recipe.folder import RunFolder
from hf_distill.recipe.opening import Say, from_main, once, opened
from hf_distill.recipe.reading import checked, plain, written
from hf_distill.recipe.schema import Recipe
from hf_distill.recipe.start import begin_student
from hf_distill.recipe.teachers import as_one, check_kept, leading, obtain_teachers, untrained
from hf_distill.recipe.training import distiller, student_arguments
from hf_distill.teacher.writing import Written


@dataclass(frozen=True)
class CacheRequest:
    """A recipe, and how its teacher's signals are to be kept."""

    recipe: Recipe
    output: Path
    """The run's folder: a teacher that is fine-tuned first stands there, as a run expects it."""
    place: str
    """The cache's folder or URL."""
    storage: Storage = "bfloat16"
    top: int | None = None
    share: tuple[int, int] = (1, 1)


def write_cache(request: CacheRequest, say: Say = lambda line: None) -> Written:
    """Write what a recipe's objectives need of its teacher; the sum of all processes' work.

    What is there already is not computed again. Every process of a distributed run must call it.

    Args:
        request: What is asked.
        say: Is told what happens, and what it will cost, by the main process alone.

    Raises:
        ValueError: Something cannot work: said before a byte is written where it can be known then.
    """
    recipe, folder = _without_cache(request.recipe), RunFolder(request.output)
    check_place(Folder(request.place))
    arguments = student_arguments(recipe, folder, "student")
    tell = from_main(say, arguments)
    site, _ = opened(recipe, folder, arguments, tell, resume=True)
    if untrained(site):
        _check_first(request)
        state = folder.state_of_teachers(plain(recipe))
        if state == "new":
            check_kept(site)
        once(arguments, lambda: folder.begin_teachers(written(recipe)) if state == "new" else None)
    teachers, _ = obtain_teachers(site, tell)
    once(arguments, folder.finish_teachers)
    with TemporaryDirectory() as scratch:
        # The trainer makes a folder for checkpoints: there are none, and a run may have its own.
        beside = site._replace(folder=RunFolder(Path(scratch)))
        student = begin_student(site, leading(recipe.teacher, teachers)).model
        trainer = distiller(beside, student, as_one(recipe.teacher, teachers))
        done = trainer.write_teacher_cache(
            request.place, storage=request.storage, top=request.top, share=request.share, say=tell
        )
    mine = torch.tensor(done.computed, device=trainer.accelerator.device)
    return replace(done, computed=int(trainer.accelerator.reduce(mine, "sum")))


def _check_first(request: CacheRequest) -> None:
    """Check that no other machine fine-tunes the teacher as well: it would be another."""
    number, count = request.share
    if number > 1:
        raise ValueError(
            f"teacher.training must have been carried out by share 1/{count}, got no such teacher "
            f"in {str(request.output)!r}. Begin with that one; or name a finished teacher: "
            "--set 'teacher={model: FOLDER}'."
        )


def _without_cache(recipe: Recipe) -> Recipe:
    """The recipe, taught by live teachers.

    Raises:
        ValueError: It has assistants.
    """
    if recipe.assistants:
        raise ValueError(
            f"assistants must be left out where a cache is written, got {len(recipe.assistants)}: "
            "each of them has a teacher of its own. Train with teacher_cache: auto."
        )
    return checked({k: v for k, v in plain(recipe).items() if k != "teacher_cache"}, "recipe")
