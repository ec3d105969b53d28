"""The study of starts: which runs there are, what is measured on the way, what is read off it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from extraction_study import conditions, saving
from extraction_study.conditions import (
    IMPORTANCE,
    LONG,
    RANDOM,
    RESCALED,
    SHORT,
    STARTS,
    SWEPT,
    TEXT,
    Cell,
    Taught,
    cells,
    chosen_rate,
    tried,
)
from extraction_study.curve import Curve, HeldOut, measured_at
from extraction_study.plots import plot
from extraction_study.report import report
from extraction_study.saving import (
    FIDELITY,
    Measure,
    Setting,
    fractions,
    gaps,
    measures,
    of_setting,
    reached_at,
    settings,
)
from extraction_study.starts import obtain_scores, start
from transformers import set_seed

from hf_distill import DistillationTrainer
from hf_distill.objectives import HiddenMSE
from tests import tiny
from tests.training import runs

CONTROL = Cell(TEXT, "13M", "hidden", RANDOM, 400, 1e-3, 1)
CUT = replace(CONTROL, start="magnitude", rate=3e-4)
RATE = {RANDOM: 1e-3, **dict.fromkeys(STARTS[1:], 3e-4)}


def _result(fidelity: Sequence[float], steps: Sequence[int] = (0, 100, 200, 400)) -> dict[str, Any]:
    loss = [1 - each for each in fidelity]
    same = dict.fromkeys(("fidelity", "stsb", "accuracy"), fidelity)
    curve = {"step": list(steps), "loss": loss, **same}
    return {"curve": curve, "teacher": {"stsb": 0.9}, "seconds": 10.0, "on": "one machine"}


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the two runs above."""
    monkeypatch.setattr(
        saving, "chosen_rate", lambda _results, _task, _objective, start, _steps: RATE[start]
    )


def test_a_target_is_reached_where_the_curve_stays_above_it() -> None:
    """The first lucky point of a noisy curve would count as arrival."""
    steps, values = (0, 10, 20, 40), (0.0, 0.6, 0.4, 0.8)
    assert reached_at(steps, values, 0.5) == pytest.approx(20 + 20 * 0.1 / 0.4)
    assert reached_at(steps, values, 0.8) == 40
    assert reached_at(steps, values, 0.0) == 0
    assert reached_at(steps, values, 0.81) is None
    assert reached_at(steps, (0.0, 0.9, 0.9, 0.4), 0.5) is None


def test_a_start_is_compared_with_the_random_start_of_its_seed() -> None:
    """Seeds differ by more than starts may: another seed's target is another question."""
    results = {
        CONTROL: _result([0.0, 0.1, 0.2, 0.4]),
        replace(CONTROL, seed=2): _result([0.0, 0.1, 0.2, 0.8]),
        CUT: _result([0.2, 0.6, 0.6, 0.6]),
        replace(CUT, seed=2): _result([0.2, 0.6, 0.6, 0.6]),
        replace(CUT, seed=3): _result([0.2, 0.6, 0.6, 0.6]),
    }
    found = fractions(results, Setting.of(CUT), "magnitude", FIDELITY)
    assert found == {1: pytest.approx(50 / 400), 2: None}
    assert fractions(results, Setting.of(CUT), RANDOM, FIDELITY) == {1: 1.0, 2: 1.0}


def test_a_loss_is_better_when_it_is_lower() -> None:
    """The start that learns nothing would be the one that saves most."""
    results = {CONTROL: _result([0.0, 0.1, 0.2, 0.4]), CUT: _result([0.2, 0.6, 0.6, 0.6])}
    loss = measures(TEXT)[0]
    assert fractions(results, Setting.of(CUT), "magnitude", loss)[1] == pytest.approx(50 / 400)
    assert gaps(results, CUT, Setting.of(CONTROL), loss) == [pytest.approx(0.2)]


def test_runs_of_a_sweep_are_in_no_comparison() -> None:
    """A rate that was tried and not taken would be one more seed."""
    results = {
        CONTROL: _result([0.0, 0.1, 0.2, 0.4]),
        replace(CONTROL, seed=SWEPT): _result([0.0, 0.0, 0.0, 0.0]),
        replace(CONTROL, rate=7.0): _result([0.0, 0.0, 0.0, 0.0]),
    }
    assert of_setting(results, Setting.of(CONTROL), RANDOM) == {1: results[CONTROL]}


def test_fewer_steps_are_compared_with_the_end_of_all() -> None:
    """A start with a twentieth of the steps would be held against a random start with as few."""
    fewer = replace(CUT, steps=20)
    results = {
        CONTROL: _result([0.0, 0.1, 0.2, 0.4]),
        fewer: _result([0.2, 0.5], steps=(0, 20)),
        CUT: _result([0.2, 0.6, 0.6, 0.9]),
    }
    assert gaps(results, fewer, Setting.of(CONTROL), FIDELITY) == [pytest.approx(0.1)]
    text = report(results, list(results), ["one machine"])
    assert "| magnitude | 20 | 5 | +0.100 | +0.100 | +0.100 | 1 |" in text


def test_a_report_counts_those_who_did_not_get_there() -> None:
    """The mean over the seeds that arrived hides those that did not."""
    results = {
        CONTROL: _result([0.0, 0.1, 0.2, 0.4]),
        replace(CONTROL, seed=2): _result([0.0, 0.1, 0.2, 0.8]),
        CUT: _result([0.2, 0.6, 0.6, 0.6]),
        replace(CUT, seed=2): _result([0.2, 0.6, 0.6, 0.6]),
        replace(CUT, start="stride"): _result([0.5, 0.6, 0.6, 0.6]),
    }
    text = report(results, [*results, replace(CUT, seed=3)], ["one machine"])
    assert text.count("| 0.0 |  | 12.5; 1 of 2 did not |  |") == 3
    assert "Left out: 1 of 6 runs" in text
    assert "- text, 13M, hidden, 400 steps: magnitude, seed 3" in text


def test_pictures_hold_every_setting_with_a_control(tmp_path: Path) -> None:
    """A setting that was begun would be in the table and in no picture."""
    long = {replace(each, steps=3000): _result([0.0, 0.1], (0, 3000)) for each in (CONTROL, CUT)}
    small = replace(CONTROL, size="L3-H384")
    results = {CONTROL: _result([0.0, 0.1, 0.2, 0.4]), small: _result([0.0, 0.1, 0.2, 0.4]), **long}
    written = plot(results, settings(list(results)), tmp_path)
    assert [path.name for path in written] == [
        "extraction-text-13m.png",
        "extraction-text-l3-h384.png",
    ]
    assert all(path.stat().st_size > 1000 for path in written)


def _all_tried() -> dict[Cell, Any]:
    """Of equal worth, but for the last of each kind."""
    return {cell: _result([cell.rate or 0.0] * 4) for cell in tried()}


def test_every_run_stands_once_and_has_a_name_of_its_own() -> None:
    """Two runs with one lock would never run beside each other, or one never at all."""
    wanted = cells(_all_tried())
    assert len({cell.name for cell in wanted}) == len(wanted)
    assert all(cell.rate for cell in wanted)
    assert {cell for cell in cells({}) if cell.rate} == set(tried())


def test_every_cut_has_its_control() -> None:
    """There would be a curve, and nothing that says what it saves."""
    compared = [cell for cell in cells(_all_tried()) if cell.seed != SWEPT]
    for cell in compared:
        budgets = {replace(cell, start=RANDOM, steps=each, rate=0) for each in (SHORT, LONG)}
        own = replace(cell, start=RANDOM, rate=0)
        controls = {replace(each, rate=0) for each in compared if each.start == RANDOM}
        assert ({own} | budgets) & controls, cell
    for setting in settings(compared):
        assert {cell.start for cell in compared if Setting.of(cell) == setting} > {RANDOM}


def test_a_rate_is_the_best_of_those_that_were_tried_for_it() -> None:
    """Fresh weights with the rate of a cut would be a weak control, and one seed's luck another."""
    results = _all_tried()
    asked = (TEXT, "hidden")
    assert chosen_rate(results, *asked, RANDOM, SHORT) == 3e-3
    assert chosen_rate(results, *asked, RANDOM, LONG) == 1e-3
    best = next(cell for cell in results if cell.start == "magnitude" and cell.rate == 1e-3)
    results[best] = _result([0.0, 0.0, 0.0, 0.9])
    for steps in (20, SHORT, LONG):
        assert chosen_rate(results, *asked, "stride", steps) == 1e-3
    assert chosen_rate(results, *asked, RANDOM, SHORT) == 3e-3
    assert chosen_rate(results, "sst2", "usual", RANDOM, 500) == 1e-3
    del results[next(cell for cell in results if cell.task == "trec" and cell.start == RANDOM)]
    assert chosen_rate(results, "sst2", "usual", RANDOM, 500) is None
    assert chosen_rate(results, "sst2", "usual", "stride", 500) == 1e-3


def test_a_changed_objective_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table would hold numbers of settings that it no longer states."""
    before = CONTROL.definition()
    assert before == CONTROL.definition()
    terms = conditions.OBJECTIVES["hidden"].terms
    for changed in (Taught(terms, "last"), Taught({**terms, "hidden": (2.0, HiddenMSE())})):
        monkeypatch.setattr(conditions, "OBJECTIVES", {"hidden": changed})
        assert CONTROL.definition() != before


@pytest.mark.parametrize("steps", [20, 40, 150, 400, 3000])
def test_curves_begin_at_zero_and_end_at_the_end(steps: int) -> None:
    """Without the first point no start is ever ahead at once; without the last, none ends."""
    found = measured_at(steps)
    assert found[:4] == [0, 5, 7, 10]
    assert found == sorted(set(found))
    assert found[-1] == steps


def test_starts_are_what_they_are_called(tmp_path: Path) -> None:
    """A control that was cut out of the teacher would save as much as any other start."""
    torch.manual_seed(0)
    teacher = tiny.model("Bert", "Model", num_hidden_layers=4, initializer_range=0.2)
    size = "L2-H16-A2-F24"

    train = Dataset.from_list([{"input_ids": [4, 5, 6 + at]} for at in range(8)])
    scores = partial(obtain_scores, tmp_path, TEXT, teacher, train, runs.collate)

    def words(name: str, seed: int) -> torch.Tensor:
        cell = replace(CONTROL, size=size, start=name, seed=seed)
        return start(cell, teacher, scores).get_input_embeddings().weight

    whole = {tuple(column.tolist()) for column in teacher.get_input_embeddings().weight.T}
    for name in STARTS:
        taken = {tuple(column.tolist()) for column in words(name, 1).T}
        assert len(taken & whole) == (0 if name == RANDOM else 16), name
        assert torch.equal(words(name, 1), words(name, 1)), name
        moves = not torch.equal(words(name, 1), words(name, 2))
        assert moves == (name in (RANDOM, "ETD-Rand")), name
    assert len({tuple(words(name, 1)[5].tolist()) for name in STARTS}) == len(STARTS)


def test_a_rescaled_start_differs_in_its_queries_alone(tmp_path: Path) -> None:
    """A comparison of rescaling in which something else was changed too, or nothing."""
    teacher = tiny.model("Bert", "Model")
    train = Dataset.from_list([{"input_ids": [4, 5, 6 + at]} for at in range(8)])
    scores = partial(obtain_scores, tmp_path, TEXT, teacher, train, runs.collate)
    cell = replace(CONTROL, size="L2-H16-A4")
    plain, rescaled = (
        start(replace(cell, start=name), teacher, scores).state_dict()
        for name in (IMPORTANCE, RESCALED)
    )
    changed = {name for name in plain if not torch.equal(plain[name], rescaled[name])}
    assert changed == {name for name in plain if ".query.weight" in name}


def test_where_only_layers_are_left_out_every_cut_is_the_same(tmp_path: Path) -> None:
    """The study leaves starts out of such a size, since there is nothing to choose."""
    torch.manual_seed(0)
    teacher = tiny.model("Bert", "Model", num_hidden_layers=4)
    train = Dataset.from_list([{"input_ids": [4, 5, 6 + at]} for at in range(8)])
    scores = partial(obtain_scores, tmp_path, TEXT, teacher, train, runs.collate)
    cut, *others = (
        start(replace(CONTROL, size="L2", start=name), teacher, scores).state_dict()
        for name in STARTS
        if name != RANDOM
    )
    for other in others:
        assert all(torch.equal(cut[name], other[name]) for name in cut)


def _trainer(tmp_path: Path) -> DistillationTrainer:
    terms = {"hidden": (1.0, HiddenMSE())}
    return runs.trainer(tmp_path, runs.HEADLESS, labelled=False, objectives=terms, max_steps=7)


def _batch(count: int) -> dict[str, torch.Tensor]:
    return runs.collate(runs.examples(count, runs.HEADLESS, labelled=False))


def test_what_is_held_out_is_measured_as_it_is_learnt(tmp_path: Path) -> None:
    """Another loss than the one that is trained could fall, or not, for reasons of its own."""
    trainer, batches = _trainer(tmp_path), [_batch(3), _batch(4)]
    model: Any = trainer.model.train()
    found = [loss for _, loss in HeldOut(trainer, batches).results()]
    assert model.training
    learnt = [trainer.compute_loss(model, copy.copy(batch)).item() for batch in batches]
    assert found == pytest.approx(learnt, rel=1e-5)


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    """A student that is measured often would be another than one that is not."""
    alone, measured = (_trainer(tmp_path) for _ in range(2))
    held_out = HeldOut(measured, [_batch(4)])
    curve = Curve(7, lambda: {"loss": next(held_out.results())[1]})
    measured.add_callback(curve)
    for each in (alone, measured):
        set_seed(0)
        each.train()
    assert curve.points["step"] == [0, 5, 7]
    assert curve.points["loss"][0] > curve.points["loss"][-1]
    for name, tensor in measured.model.state_dict().items():
        assert torch.equal(tensor, alone.model.state_dict()[name]), name


def test_measures_are_named_as_they_are_kept() -> None:
    """A column that no curve has would end the report after hours."""
    kept = {TEXT: {"loss", "fidelity", "stsb"}, "trec": {"loss", "accuracy"}}
    for task, names in kept.items():
        assert {each.name for each in measures(task)} == names
    assert Measure("loss", "", lower=True).better(2.0) == -2.0
