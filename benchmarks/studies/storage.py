"""An Optuna study whose trials are the cells of a grid: shared by processes, resumed after any end.

A trial is a cell by its user attribute, not by parameters: Optuna fixes the values of a parameter
for the life of a study, and this grid grows. Whoever holds the lock of a cell runs it, and the
system lets go of a lock when its process ends; so a trial that is running while its lock is free
was left by a dead process, and is done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from studies.locks import locked

Result = tuple[float, dict[str, Any]]
"""The score, and what else is to be remembered."""


class Cell(Protocol):
    """One run of a study."""

    @property
    def name(self) -> str:
        """As a file name, unlike any other cell's."""

    def definition(self) -> dict[str, object]:
        """What the run is, as JSON reads it back: where any of it changes, it is another run."""


C = TypeVar("C", bound=Cell)


def open_study(folder: Path, name: str) -> optuna.Study:
    """The study of that name in a folder, new or as it was left."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True
    )


def trials(study: optuna.Study, cell: Cell, *states: TrialState) -> list[FrozenTrial]:
    """A cell's trials in some states."""
    definition = cell.definition()
    found = study.get_trials(deepcopy=False, states=states)
    return [each for each in found if each.user_attrs.get("cell") == definition]


def finished(study: optuna.Study, cells: Sequence[C]) -> tuple[dict[C, dict[str, Any]], list[str]]:
    """Cell -> what was remembered of it, its score among it; and on what each was run."""
    results, machines = {}, []
    for cell in cells:
        for trial in trials(study, cell, TrialState.COMPLETE)[:1]:
            results[cell] = {**trial.user_attrs, "score": trial.value}
            machines.append(trial.user_attrs["on"])
    return results, machines


def work(
    study: optuna.Study,
    cells: Callable[[], Sequence[C]],
    folder: Path,
    run: Callable[[C], Result],
    minutes: float,
    say: Callable[[str], None] = print,
) -> None:
    """Run, in their order, the cells that are neither finished nor another process's.

    Args:
        study: Where results are kept.
        cells: Gives all that are wanted; asked before each run, since results may decide on it.
        folder: Of the locks.
        run: Does one. What it raises of a run that goes wrong is remembered as a failure.
        minutes: After these no new cell is begun.
        say: Is told of each cell's end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = time.monotonic() + 60 * minutes
    begun: set[str] = set()

    def one_more() -> bool:
        for cell in cells():
            with locked(folder / cell.name, wait=False) as mine:
                if mine and cell.name not in begun and not trials(study, cell, TrialState.COMPLETE):
                    begun.add(cell.name)
                    say(f"{cell.name}: {_one(study, cell, run)}")
                    return True
        return False

    while time.monotonic() <= last and one_more():
        pass


def _one(study: optuna.Study, cell: C, run: Callable[[C], Result]) -> str:
    for left in trials(study, cell, TrialState.RUNNING):
        study.tell(left.number, state=TrialState.FAIL)
    trial = study.ask()
    trial.set_user_attr("cell", cell.definition())
    try:
        score, remembered = run(cell)
    except (ValueError, RuntimeError, ArithmeticError) as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.FAIL)
        return f"failed: {error}"
    for name, value in remembered.items():
        trial.set_user_attr(name, value)
    study.tell(trial, score)
    return f"{score:.2f}"
