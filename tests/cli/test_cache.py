"""What a user sees of `hf-distill cache`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hf_distill.cli.main import app
from tests.recipe import examples

OBJECTIVES = {"kl": {"type": "KLDivergence"}, "hidden": {"type": "HiddenMSE"}}


def _call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe in the folder that the command is called in."""
    monkeypatch.chdir(tmp_path)
    found = examples.recipe(tmp_path, "text-classification", objectives=OBJECTIVES)
    Path("tiny.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    return "tiny.yaml"


def _table(said: str) -> dict[str, str]:
    """Signal -> what storing it lost."""
    lines = said.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("---")) + 1
    last = next(at for at, line in enumerate(lines) if "were computed" in line)
    return dict(line.split(maxsplit=1) for line in lines[first:last])


def test_it_says_what_it_costs_and_what_was_lost(recipe: str) -> None:
    """A night and a disk that nobody was asked for; or a loss that shows in the score alone."""
    done = _call("cache", recipe, "--out", "cached")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    costs = next(at for at, line in enumerate(lines) if line.startswith("Teacher cache: "))
    assert "32 of 32 examples are to be shown once" in lines[costs]
    assert lines[costs].endswith("into cached.")
    assert list(_table(done.stdout)) == ["logits", "hidden.0", "hidden.2", "hidden.4"]
    for lost in _table(done.stdout).values():
        number, of = lost.split(maxsplit=1)
        assert (1e-4 < float(number) < 4e-3, of) == (True, "of its size"), "of bfloat16"
    assert "\n32 examples were computed, in " in done.stdout
    assert "The cache in cached holds all 32 examples" in lines[-1]
    about = json.loads(Path("cached/about.json").read_text(encoding="utf-8"))
    assert about["shown"]["storage"] == "bfloat16"
    assert Path("runs/tiny/teacher/config.json").is_file(), "where train looks for it"

    again = _call("cache", recipe, "--out", "cached")
    assert again.exit_code == 0, again.output
    assert "\n0 examples were computed, in " in again.stdout
    assert "Teacher cache:" not in again.stdout, "there is nothing to do"
    trained = _call("train", recipe, "--set", "teacher_cache=cached")
    assert trained.exit_code == 0, trained.output
    card = Path("runs/tiny/student/README.md").read_text(encoding="utf-8")
    assert "read from a cache (bfloat16)" in card


def test_options_arrive(recipe: str) -> None:
    """An option that is taken and forgotten is found out when the disk is full."""
    options = ("--storage", "int8", "--top-k", "2", "--output", "elsewhere")
    done = _call("cache", recipe, "--out", "cached", *options, "--set", "data.limit=10")
    assert done.exit_code == 0, done.output
    assert "holds all 10 examples" in done.stdout
    assert _table(done.stdout)["logits"].endswith(" nats")
    shown = json.loads(Path("cached/about.json").read_text(encoding="utf-8"))["shown"]
    assert (shown["storage"], shown["top"]) == ("int8", 2)
    assert Path("elsewhere/teacher/config.json").is_file()
    assert not Path("runs").exists()
    other = _call("cache", recipe, "--out", "cached", *options[2:], "--set", "data.limit=10")
    assert other.exit_code == 2
    assert "must be of the same teacher and needs, got another shown" in other.stderr


def test_shares_add_up(recipe: str) -> None:
    """Eight machines that each compute everything; or a cache that none of them finishes."""
    first = _call("cache", recipe, "--out", "cached", "--share", "1/2")
    assert first.exit_code == 0, first.output
    assert "\n16 examples were computed, in " in first.stdout
    assert "cached holds 16 examples: those of other shares are missing." in first.stdout
    early = _call("train", recipe, "--set", "teacher_cache=cached")
    assert early.exit_code == 2
    assert "teacher_cache must be finished, got 'cached'" in early.stderr
    second = _call("cache", recipe, "--out", "cached", "--share", "2/2")
    assert "\n16 examples were computed, in " in second.stdout
    assert "The cache in cached holds all 32 examples" in second.stdout


def test_a_recipe_may_name_its_cache(recipe: str) -> None:
    """Two names of one folder: a cache is written here, and looked for there."""
    named = ("--set", "teacher_cache=cached")
    assert _call("train", recipe, *named).exit_code == 2, "there is none yet"
    done = _call("cache", recipe, *named)
    assert done.exit_code == 0, done.output
    assert "The cache in cached holds all 32 examples" in done.stdout
    assert _call("train", recipe, *named).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--out", "c", "--share", "3/2"),
            "--share must be I/N with I from 1 to N, got '3/2'. The",
        ),
        (("--out", "c", "--share", "0/2"), "--share must be I/N with I from 1 to N, got '0/2'."),
        (("--out", "c", "--share", "2"), "--share must be I/N with I from 1 to N, got '2'."),
        ((), "--out must name a folder, got none. Give it one, or a URL."),
        (("--set", "teacher_cache=auto"), "--out must name a folder, got none."),
        (("--out", "c", "--top-k", "9"), "top must be"),
        (
            ("--out", "c", "--top-k", "2", "--set", "objectives={h: {type: HiddenMSE}}"),
            "top must be left out where no logits of exclusive classes are kept, got 2.",
        ),
        (
            ("--out", "c", "--set", "assistants=[{size: L4-H16-A2-F24}]"),
            "assistants must be left out where a cache is written, got 1",
        ),
        (("--out", "data-text-classification"), "the folder of a cache must be new, empty or a"),
    ],
)
def test_what_cannot_be_is_refused(recipe: str, arguments: tuple[str, ...], message: str) -> None:
    """A share that nobody writes, or an option that means nothing there, costs a night."""
    done = _call("cache", recipe, *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not Path("c").exists()
