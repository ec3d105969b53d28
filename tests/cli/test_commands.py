"""What a user sees of the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from hf_distill import objectives
from hf_distill.cli.main import app
from hf_distill.cli.tables import aligned
from hf_distill.cli.train import recipe_name
from hf_distill.mapping import MAPPINGS
from hf_distill.student import PRESETS
from tests.recipe import examples

RECIPES = Path(__file__).parent.parent.parent / "recipes"


def _call(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def _write(folder: Path, found: dict[str, Any]) -> str:
    path = folder / "recipes" / "mine" / "tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# Tiny.\n" + yaml.safe_dump(found), encoding="utf-8")
    return str(path)


def test_train_writes_and_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table without the baseline, or a folder that is not the one named, would be believed."""
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path, examples.recipe(tmp_path, "text-classification"))
    done = _call("train", path, "--baseline", "--set", "seed=5", "--set", "training.max_steps=2")
    assert done.exit_code == 0, done.output
    lines = [line.split("  ")[0] for line in done.stdout.splitlines()]
    for label in ("teacher", "student", "baseline (no teacher)"):
        assert label in lines
    output = tmp_path / "runs" / "mine" / "tiny"
    assert (output / "results.json").is_file()
    assert "12 examples (test), seed 5" in done.stdout
    card = (output / "student" / "README.md").read_text(encoding="utf-8")
    assert "# mine-tiny" in card
    assert "train tiny.yaml --set seed=5 --set training.max_steps=2 --baseline" in card

    again = _call("train", path, "--set", "seed=5", "--set", "training.max_steps=2")
    assert again.exit_code == 2
    assert "which holds a finished run" in again.stderr
    kept = _call("train", path, "--set", "seed=5", "--set", "training.max_steps=2", "--resume")
    assert kept.exit_code == 0
    assert "12 examples (test), seed 5" in kept.stdout


def test_errors_are_sentences(tmp_path: Path) -> None:
    """A traceback of forty lines hides the one that says what to do."""
    path = _write(tmp_path, {"task": "txt", "sed": 1})
    done = _call("train", path)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert len(done.stderr.splitlines()) == 5
    assert all(line.startswith(path) for line in done.stderr.splitlines())
    assert _call("train", str(tmp_path / "nowhere.yaml")).exit_code == 2


def test_debug_keeps_the_traceback(tmp_path: Path) -> None:
    """Without it nobody can tell where a sentence comes from."""
    done = _call("train", str(tmp_path / "nowhere.yaml"), "--debug")
    assert isinstance(done.exception, FileNotFoundError)


def test_processes_tell_their_own_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that fails alone takes the others with it, and must say why."""
    monkeypatch.setenv("RANK", "1")
    done = _call("train", str(tmp_path / "nowhere.yaml"))
    assert done.stderr.startswith("process 1: recipe must be a YAML file")


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("objectives", objectives.__all__),
        ("mappings", MAPPINGS),
        ("students", PRESETS),
    ],
)
def test_list_shows_all_of_a_kind(kind: str, names: Any) -> None:
    """A list that is kept by hand forgets the newest."""
    done = _call("list", kind)
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == list(names)


def test_list_shows_recipes_and_not_launch_configurations() -> None:
    """A launch configuration is YAML too, and no recipe."""
    done = _call("list", "recipes", "--recipes", str(RECIPES))
    assert len(done.stdout.splitlines()) == 2 + 8
    assert "TREC question types: L3-H384" in done.stdout
    assert "accelerate" not in done.stdout


def test_list_shows_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Away from the source tree there is no folder of recipes."""
    monkeypatch.chdir(tmp_path)
    done = _call("list")
    assert done.exit_code == 0, done.output
    assert "KLDivergence" in done.stdout
    assert done.stdout.rstrip().endswith("None here.")
    assert "--recipes must be a folder" in _call("list", "recipes").stderr


def test_quickstart_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two options of one type are easily swapped on the way."""
    asked: list[Any] = []
    stand_in: Any = ModuleType("hf_distill.quickstart.run")
    stand_in.run = lambda *given: asked.extend(given)
    monkeypatch.setitem(sys.modules, "hf_distill.quickstart.run", stand_in)
    options = ["--teacher", "t", "--text", "f", "--student", "L3-H384", "--steps", "7"]
    done = _call("quickstart", *options, "--seed", "9", "--output-dir", "o", "--overwrite")
    assert done.exit_code == 0, done.output
    assert asked == ["t", "f", "L3-H384", 7, 9, Path("o"), True]
    assert _call("quickstart", "--student", "14M").exit_code == 2


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("recipes/trec/13m.yaml", "trec/13m"),
        ("a/recipes/b/recipes/sst2/x.yaml", "sst2/x"),
        ("mine.yaml", "mine"),
        ("somewhere/mine.yaml", "mine"),
    ],
)
def test_recipes_are_named_by_their_place(path: str, name: str) -> None:
    """Recipes of one name for several tasks would share a folder of runs."""
    assert recipe_name(Path(path)) == name


def test_tables_are_aligned() -> None:
    """Numbers of different lengths cannot be compared on the left."""
    rows = [{"a": "x", "n": "1,000"}, {"a": "long", "n": "7", "only": "here"}]
    assert aligned(rows).splitlines() == [
        "a         n  only",
        "----  -----  ----",
        "x     1,000",
        "long      7  here",
    ]
    assert aligned([]) == ""
