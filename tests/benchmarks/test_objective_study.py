"""The study of objectives: which cells are run, which are not, and what is said of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from objective_study import conditions
from objective_study.conditions import CONDITIONS, CONTROL, LOGITS, Cell, beside, cells
from objective_study.report import difference, paired, report
from optuna import Study
from optuna.trial import TrialState
from studies.locks import locked
from studies.storage import open_study, trials, work

from hf_distill.objectives import HiddenMSE, KLDivergence

CELL = Cell("trec", "L3-H384", CONTROL, 1)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return open_study(tmp_path, "objectives")


def _worked(study: Study, folder: Path, wanted: list[Cell], minutes: float = 1) -> list[Cell]:
    """The cells that were run."""
    done: list[Cell] = []

    def run(cell: Cell) -> tuple[float, dict[str, Any]]:
        done.append(cell)
        return 50.0, {"seconds": 1.0}

    work(study, lambda: wanted, folder / "locks", run, minutes, lambda line: None)
    return done


def test_finished_cells_are_kept(study: Study, tmp_path: Path) -> None:
    """A repeated command would spend its hours on what is there."""
    wanted = [CELL, replace(CELL, seed=2)]
    assert _worked(study, tmp_path, wanted) == wanted
    assert _worked(study, tmp_path, [*wanted, replace(CELL, seed=3)]) == [replace(CELL, seed=3)]
    assert [each.value for each in trials(study, CELL, TrialState.COMPLETE)] == [50.0]


def test_the_cell_of_a_dead_process_is_done_again(study: Study, tmp_path: Path) -> None:
    """A killed process would leave a hole that nobody fills, or two results."""
    study.ask().set_user_attr("cell", CELL.definition())
    assert _worked(study, tmp_path, [CELL]) == [CELL]
    assert not trials(study, CELL, TrialState.RUNNING)
    assert len(trials(study, CELL, TrialState.FAIL)) == 1


def test_the_cell_of_another_process_is_left_alone(study: Study, tmp_path: Path) -> None:
    """Two processes would do the same work side by side."""
    (tmp_path / "locks").mkdir()
    with locked(tmp_path / "locks" / CELL.name):
        assert _worked(study, tmp_path, [CELL, replace(CELL, seed=2)]) == [replace(CELL, seed=2)]
    assert _worked(study, tmp_path, [CELL]) == [CELL]


def test_a_failure_is_remembered_and_the_others_run(study: Study, tmp_path: Path) -> None:
    """One condition that diverges would end a study of many hours."""

    def run(cell: Cell) -> tuple[float, dict[str, Any]]:
        if cell == CELL:
            raise ValueError("predictions must be numbers")
        return 1.0, {}

    wanted = [CELL, replace(CELL, seed=2)]
    work(study, lambda: wanted, tmp_path / "locks", run, 1, lambda line: None)
    assert trials(study, CELL, TrialState.FAIL)[0].user_attrs["error"].startswith("predictions")
    assert trials(study, replace(CELL, seed=2), TrialState.COMPLETE)


def test_no_cell_is_begun_after_the_time(study: Study, tmp_path: Path) -> None:
    """A limit that is not kept keeps a machine that was promised to others."""
    assert _worked(study, tmp_path, [CELL], minutes=-1) == []


def test_a_changed_condition_is_another_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table would hold numbers of settings that it no longer states."""
    cell = replace(CELL, condition="mine")
    for objective, again in ((HiddenMSE(), 1), (HiddenMSE(), 0), (HiddenMSE(normalize=True), 1)):
        monkeypatch.setattr(conditions, "CONDITIONS", {"mine": beside(objective)})
        assert len(_worked(study, tmp_path, [cell])) == again


def test_conditions_are_asked_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A divergence of classes has no meaning for a number, head by head none for other heads."""
    asked = cells(1, None, ["+ AttentionKL"])
    assert {(cell.task, cell.student) for cell in asked} == {
        (task, "L3-H384") for task in ("trec", "stsb", "rte", "mrpc")
    }
    monkeypatch.setattr(conditions, "CONDITIONS", {"kl": beside(KLDivergence())})
    assert "stsb" not in {cell.task for cell in cells(1, None, ["kl"])}


def test_every_cell_has_a_name_of_its_own() -> None:
    """Two cells with one lock would never run beside each other, or one never at all."""
    wanted = cells(3, None, None)
    assert len({cell.name for cell in wanted}) == len(wanted)


def test_what_is_compared_with_is_run_first() -> None:
    """A study that is stopped early would have scores, and nothing to subtract from them."""
    seen: dict[tuple[str, str], list[str]] = {}
    for cell in cells(1, None, None):
        seen.setdefault((cell.task, cell.student), []).append(cell.condition)
    assert [names[:2] for names in seen.values()] == [[CONTROL, LOGITS]] * 5


def test_differences_are_paired_and_their_interval_is_students() -> None:
    """With the normal's 1.96 three seeds would look more than twice as certain as they are."""
    found = difference([1.0, 2.0, 3.0])
    assert (found.mean, found.pairs) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 * 1 / math.sqrt(3), rel=1e-6)
    assert math.isnan(difference([1.0]).half)


def _result(score: float) -> dict[str, Any]:
    return {"score": score, "teacher": 96.0, "seconds": 10.0, "weights": {}}


def test_seeds_are_compared_with_themselves() -> None:
    """Means of different seeds differ by the seeds."""
    taught = replace(CELL, condition=LOGITS)
    results = {
        CELL: _result(90.0),
        replace(CELL, seed=2): _result(80.0),
        replace(taught, seed=2): _result(83.0),
        replace(taught, seed=3): _result(99.0),
    }
    assert paired(results, LOGITS, CONTROL) == [3.0]
    assert paired(results, LOGITS, LOGITS) == []


def test_a_report_says_what_it_lacks() -> None:
    """A table of what happened to finish reads as if it were all."""
    taught = replace(CELL, condition=LOGITS)
    results = {CELL: _result(90.0), taught: _result(90.0)}
    text = report(results, [CELL, taught, replace(taught, seed=2)], ["one machine"])
    assert "| labels + logits | 90.0 | +0.0 |  | 1 |  | 10 |" in text
    assert "Left out: 1 of 3 runs" in text
    assert "- trec L3-H384, seed 2: labels + logits" in text
    assert set(CONDITIONS) > {CONTROL, LOGITS}
