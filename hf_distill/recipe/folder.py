"""The folder of a run: what stands where, and who may write into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import yaml

from hf_distill.recipe.checkpoints import write_text

_MARK = "# Written by hf-distill train."
_TEACHERS_MARK = "# Written by hf-distill cache."
"""Of a folder that holds teachers, and no run yet."""
State = Literal["new", "interrupted", "finished"]


class RunFolder:
    """The places in a run's folder. results.json is written last: with it, a run is finished."""

    def __init__(self, path: Path) -> None:
        """The folder need not exist."""
        self.path = path
        self.student = path / "student"
        self.assistants = path / "assistants"
        self.checkpoints = path / "checkpoints"
        self.recipe = path / "recipe.yaml"
        self.results = path / "results.json"

    def teacher_at(self, index: int, count: int) -> Path:
        """Where one of the teachers stands that were fine-tuned here."""
        return self.path / "teacher" if count == 1 else self.path / "teachers" / str(index + 1)

    def assistant(self, index: int) -> RunFolder:
        """The folder of a teacher assistant's run, from 0."""
        return RunFolder(self.assistants / str(index + 1))

    def state(self, recipe: dict[str, Any], *, overwrite: bool, resume: bool) -> State:
        """What is to be done here. It changes nothing.

        Args:
            recipe: The recipe as plain data.
            overwrite: Whether the run that is there may be replaced.
            resume: Whether the run that is there is to be continued.

        Raises:
            ValueError: There is something that must not be overwritten, or cannot be continued.
        """
        if overwrite and resume:
            raise ValueError(
                "--resume must be left out beside --overwrite, got both. Name one of them."
            )
        if self._is_empty() or self._recipe(_TEACHERS_MARK) is not None:
            return "new"
        held = self._recipe(_MARK)
        if held is None:
            raise ValueError(
                f"output must be a new or empty folder, or one of a run, got {str(self.path)!r}. "
                "Name another with --output."
            )
        finished = self.results.is_file()
        if overwrite:
            return "new"
        if not resume:
            kind, remedy = ("an interrupted", "Continue it with --resume, replace it")
            if finished:
                kind, remedy = ("a finished", "Replace it")
            raise ValueError(
                f"output must be free, got {str(self.path)!r}, which holds {kind} run. {remedy} "
                "with --overwrite, or name another folder with --output."
            )
        if _comparable(held) != _comparable(recipe):
            raise ValueError(
                f"recipe must be the one that {str(self.path)!r} was begun with, got another. "
                "Repeat its command, name another folder with --output, or begin anew with "
                "`hf-distill train --overwrite`."
            )
        return "finished" if finished else "interrupted"

    def state_of_teachers(self, recipe: dict[str, Any]) -> State:
        """What is to be done here before teachers are fine-tuned without a run. It changes nothing.

        Args:
            recipe: The recipe as plain data.

        Raises:
            ValueError: There is something else, or the run of another recipe.
        """
        held = self._recipe(_TEACHERS_MARK)
        if held is None:
            return self.state(recipe, overwrite=False, resume=True)
        return "interrupted" if _comparable(held) == _comparable(recipe) else "new"

    def begin_teachers(self, recipe: str) -> None:
        """Make room for teachers that are fine-tuned without a run."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        write_text(self.recipe, f"{_TEACHERS_MARK}\n{recipe}")

    def finish_teachers(self) -> None:
        """Nothing is left of them to resume; what a run left stays."""
        if self._recipe(_TEACHERS_MARK) is not None:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def begin(self, recipe: str) -> None:
        """Make room for a new run. Teachers stay: whether they fit is seen later."""
        self.results.unlink(missing_ok=True)
        for folder in (self.student, self.checkpoints, self.assistants):
            shutil.rmtree(folder, ignore_errors=True)
        write_text(self.recipe, f"{_MARK}\n{recipe}")

    def finish(self, results: dict[str, Any]) -> None:
        """Write the results, after which nothing is left to resume."""
        write_text(self.results, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def read_results(self) -> dict[str, Any]:
        """What `finish` wrote."""
        found: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        return found

    def _is_empty(self) -> bool:
        """Whether nothing stands here, but perhaps a recipe that was not written to its end."""
        if not self.path.exists():
            return True
        if not self.path.is_dir():
            return False
        return {each.name for each in self.path.iterdir()} <= {f"{self.recipe.name}.partial"}

    def _recipe(self, mark: str) -> dict[str, Any] | None:
        """The recipe that was written here with a mark; None where none was."""
        if not self.recipe.is_file():
            return None
        text = self.recipe.read_text(encoding="utf-8")
        return yaml.safe_load(text) if text.startswith(mark) else None


def _comparable(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in recipe.items() if key != "output"}
