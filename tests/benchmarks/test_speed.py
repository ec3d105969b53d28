"""The comparison of speed: who is timed when, on what, and what the tables say of it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from speed_study import loops, trainers
from speed_study.hardware import Counted
from speed_study.plots import plot
from speed_study.protocol import Gate, Gated, Stopped, in_turns
from speed_study.report import checked, merged, ratios, report
from speed_study.tools import ALL, DISTILLED, PLAIN, RAW, TEXTBREWER, Tool
from speed_study.work import Task, collate, packed
from studies.pages import write_between
from studies.quartiles import quartiles

_CHILD = """
import sys
from speed_study.protocol import Gate, Gated, Stopped

name, log, dies = sys.argv[1], open(sys.argv[2], "a"), int(sys.argv[3])
gate = Gate(sys.stdin, sys.stdout)
try:
    for number in Gated(gate, range(100)):
        if number == dies:
            sys.exit(3)
        print(name, number, file=log, flush=True)
except Stopped:
    gate.reply(peak=7)
"""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Three batches of ragged examples for models of two dimensions."""
    rows = [list(range(5, 5 + length)) for length in (3, 7, 4, 6, 5, 3, 9, 2)]
    examples = [{"input_ids": row, "labels": at % 2} for at, row in enumerate(rows)]
    file = tmp_path / "examples.json"
    file.write_text(json.dumps(examples), encoding="utf-8")
    shapes: dict[str, Any] = {"student": (8, 6, 2, 16), "teacher": (16, 12, 2, 32)}
    return Task("", str(file), batch=2, steps=4, threads=1, cache=str(tmp_path / "cache"), **shapes)


def _steps(run: Any, task: Task, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a tool answers to so many steps, and the facts that it would tell."""
    replies = io.StringIO()
    gate = Gate(io.StringIO("step\n" * count), replies)
    with pytest.raises(Stopped):
        run(task, gate)
    return [json.loads(line) for line in replies.getvalue().splitlines()], gate.facts


def _command(tmp_path: Path, name: str, dies: int = -1) -> Sequence[str]:
    script = tmp_path / "child.py"
    script.write_text(_CHILD, encoding="utf-8")
    return [sys.executable, str(script), name, str(tmp_path / "log"), str(dies)]


def test_tools_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """A tool that always comes first is the one that finds the caches cold."""
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath / "benchmarks"))
    commands = {name: _command(tmp_path, name) for name in "ab"}
    broken = {"c": _command(tmp_path, "c", dies=1), "d": [sys.executable, "-c", "pass"]}
    found = in_turns({**commands, **broken}, rounds=2, warmup=1)
    log = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert log == ["a 0", "b 0", "c 0", "b 1", "a 1", "a 2", "b 2"]
    for name in commands:
        assert [len(found[name][key]) for key in ("wall", "cpu", "losses")] == [2, 2, 3]
        assert found[name]["peak"] == 7
    assert found["c"] == {"failed": "ended without an answer, exit status 3"}
    assert found["d"] == {"failed": "ended without an answer, exit status 0"}


def test_a_step_lasts_from_the_word_to_the_next_stop() -> None:
    """The time that a tool waits while others work would be counted as its own."""
    now = iter([0.0, 10.0, 11.5, 100.0, 102.0])
    replies = io.StringIO()
    gate = Gate(io.StringIO("step\nstep\nstop\n"), replies)
    gate._clock = lambda: (at := next(now), at / 2)  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        list(Gated(gate, range(9)))
    told = [json.loads(line) for line in replies.getvalue().splitlines()]
    assert [each.get("wall") for each in told] == [None, 1.5, 2.0]
    assert [each.get("cpu") for each in told] == [None, 0.75, 1.0]


def test_ratios_are_of_the_same_round() -> None:
    """A ratio of medians mixes rounds in which the machine was busy with others."""
    slow, quick = {"wall": [2.0, 20.0, 6.0]}, {"wall": [1.0, 10.0, 2.0]}
    assert ratios(slow, quick) == quartiles([2.0, 2.0, 3.0])
    assert ratios(slow, {"failed": "no"}) is None
    assert ratios(slow, None) is None
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([4.0]) == (4.0, 4.0, 4.0)


def test_a_loss_that_is_not_the_same_work_is_named() -> None:
    """A tool that compares fewer layers would be the fastest of all."""
    loop = {"parts": {"kl": 1.0, "hidden": 2.0, "padded": 2.5}, "losses": [3.0, 2.0]}
    same = checked(Tool("x", "", loss=DISTILLED), {"losses": [3.0, 2.1]}, loop)
    assert "as expected, gap 0e+00; in all steps at most 5e-02 from the loop's" in same
    assert "NOT AS" not in same
    counted = {"losses": [3.0, 2.1], "flops": 3, "bytes": 5}
    told = checked(Tool("x", "", loss=DISTILLED), counted, {**loop, "flops": 2, "bytes": 4})
    assert told.endswith("1.500 of its floating-point operations, 1.250 of its bytes")
    other = checked(Tool("x", "", loss=("kl", "padded")), {"losses": [3.0]}, loop)
    assert "kl + padded: NOT AS EXPECTED, gap 1e-01" in other


def test_packed_rows_lose_no_text() -> None:
    """Text that is dropped at each cut makes another, easier work of it."""
    texts = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [14] * 50]
    assert packed(texts, 6, 2, (1, 2)) == [[1, 5, 6, 7, 8, 2], [1, 9, 10, 11, 12, 2]]
    assert len(packed(texts[:3], 6, 9, (1, 2))) == 2


def test_a_batch_is_padded_and_masked() -> None:
    """Padding that is not masked is taught as if it were text."""
    examples = [{"input_ids": [5, 6], "labels": 1}, {"input_ids": [7], "labels": 0}]
    batch = {name: each.tolist() for name, each in collate(examples).items()}
    assert batch == {
        "input_ids": [[5, 6], [7, 0]],
        "attention_mask": [[1, 1], [1, 0]],
        "labels": [1, 0],
    }


def test_ours_does_the_work_of_the_loop(task: Task) -> None:
    """Another batch, schedule, clipping or start in one of them, and times are of two works."""
    raw, facts = _steps(loops.raw_loop, task, 3)
    ours, _ = _steps(trainers.live, task, 3)
    losses = [[step["loss"] for step in steps[1:]] for steps in (raw, ours)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][0] == pytest.approx(facts["parts"]["kl"] + facts["parts"]["hidden"], rel=1e-5)
    assert facts["parts"]["padded"] != pytest.approx(facts["parts"]["hidden"], rel=1e-3)
    plain, _ = _steps(trainers.fine_tuning, task, 1)
    assert plain[1]["loss"] == pytest.approx(facts["parts"]["gold"], rel=1e-5)


def test_a_cache_is_read_in_the_order_of_the_others(task: Task) -> None:
    """It is written by length: read so, its steps would be of other batches."""
    _, written = _steps(trainers.write_cache, task, 0)
    assert written["passes"] >= 4
    assert sorted(written["took"]) == sorted(written["bare"]) == ["cpu", "wall"]
    raw, _ = _steps(loops.raw_loop, task, 3)
    cached, _ = _steps(trainers.cached, task, 3)
    losses = [[step["loss"] for step in steps[1:]] for steps in (raw, cached)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


@pytest.mark.parametrize(
    "part",
    [
        loops.teacher_float32,
        loops.teacher_autocast,
        loops.teacher_bfloat16,
        loops.student_alone,
        loops.student_with_states,
    ],
)
def test_parts_do_a_step(part: Any, task: Task) -> None:
    """One that breaks is a row without a number."""
    told, _ = _steps(part, task, 2)
    assert [sorted(step) for step in told] == [["loss"], *[["cpu", "loss", "wall"]] * 2]


def test_operations_of_a_step_are_counted() -> None:
    """The share of a device's rate would be of other operations than were done."""
    left, right = torch.ones(4, 8, requires_grad=True), torch.ones(8, 2)
    with Counted() as counted:
        left.view(8, 4).view(4, 8).mm(right).sum().backward()
    facts = counted.facts()
    assert facts["flops"] == 2 * 2 * 4 * 8 * 2
    assert 4 * 2 * (32 + 16 + 8) <= facts["bytes"] <= 4 * 4 * (32 + 16 + 8)


def _measured() -> dict[str, Any]:
    ran = {"wall": [1.0, 2.0], "cpu": [1.0, 2.0], "losses": [3.0, 2.0], "peak": 5e6}
    slow = {**ran, "wall": [2.0, 4.0]}
    raw = {**ran, "parts": {"kl": 1.0, "hidden": 2.0, "gold": 3.0}}
    tools = {RAW: raw, "ours": ran, TEXTBREWER: {"failed": "ModuleNotFoundError"}, PLAIN: slow}
    twice = {"wall": 2.0, "cpu": 2.0}
    work = {
        "tokens": [100, 200],
        "tools": tools,
        "parts": {"student": ran},
        "writing": {"passes": 3, "bytes": 7e6, "took": twice, "bare": {"wall": 1.0, "cpu": 1.5}},
    }
    ground = {"machine": "one", "versions": ["torch 2"], "rates": None}
    return {**ground, "works": {"full": work}}


def test_a_tool_that_is_missing_has_a_row_that_says_so() -> None:
    """One import that fails, and there is no table at all."""
    text = report(_measured())
    assert "| TextBrewer | not measured: ModuleNotFoundError |  |" in text
    ours = next(line for line in text.splitlines() if line.startswith("| ours"))
    cells = ["1.500 (1.250 to 1.750)", "1.50", "1.00 (1.00 to 1.00)", ""]
    assert ours == f"| ours | {' | '.join(cells)} | 0.50 (0.50 to 0.50) | 100 | 5 |"
    assert "it writes at 0.50 of their speed (0.75 by CPU seconds)." in text
    widths = {line.count("|") for line in text.splitlines()[2:8]}
    assert widths == {9}


def test_runs_of_one_machine_are_one_report() -> None:
    """The works of one run would be gone from the page when another is written."""
    first, second = _measured(), {**_measured(), "versions": ["torch 2", "x 1"]}
    second["works"] = {"squad": second["works"]["full"]}
    both = merged([first, second])
    assert list(both["works"]) == ["full", "squad"]
    assert both["versions"] == ["torch 2", "x 1"]
    with pytest.raises(ValueError, match="of one machine"):
        merged([first, {**second, "machine": "two"}])


def test_on_a_device_shares_of_its_rates_are_told() -> None:
    """A compiled tool cannot be counted, and would seem to do nothing."""
    measured = _measured()
    measured["rates"] = {"flops": 1e12, "bytes": 1e12}
    tools = measured["works"]["full"]["tools"]
    tools["ours-mixed"] = {**tools["ours"], "flops": 3e11, "bytes": 6e11}
    tools[RAW] |= {"flops": 3e11, "bytes": 5e11}
    tools["ours-compiled"] = {**tools["ours"], "wall": [0.75, 0.75]}
    text = report(measured)
    assert f"| {ALL['ours-mixed'].title} | 20.0 | 40.0 |" in text
    assert f"| {ALL['ours-compiled'].title} | 40.0 | 80.0 |" in text


def test_bars_are_drawn_of_what_ran(tmp_path: Path) -> None:
    """A tool without times has no bar, and must not stop the others'."""
    assert [path.name for path in plot(_measured(), tmp_path)] == ["speed.png"]
    assert (tmp_path / "speed.png").stat().st_size > 1000


def test_only_what_stands_between_the_marks_is_replaced(tmp_path: Path) -> None:
    """A page that was written by hand would lose what follows the tables."""
    page = tmp_path / "page.md"
    page.write_text("before <!-- a -->old<!-- b --> after", encoding="utf-8")
    write_between(page, "<!-- a -->", "<!-- b -->", "new", [tmp_path / "pictures" / "bars.png"])
    text = page.read_text(encoding="utf-8")
    assert text == "before <!-- a -->\n\n![bars](pictures/bars.png)\n\nnew\n<!-- b --> after"
    page.write_text("before <!-- a --> after", encoding="utf-8")
    with pytest.raises(ValueError, match="or neither"):
        write_between(page, "<!-- a -->", "<!-- b -->", "new")
