"""Recipes are read, changed and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_distill.objectives import HiddenMSE, KLDivergence, MIAlpha
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.schedule import Schedule
from hf_distill.recipe.classes import arguments_of, mapping_of, objectives_of
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked, plain, read, written

RECIPES = Path(__file__).parent.parent.parent / "recipes"
FILES = sorted(path for path in RECIPES.glob("*/*.yaml") if path.parent.name != "accelerate")
LEAST = """\
task: text-classification
data: {path: some/data}
teacher: {model: some/teacher}
student: {size: 13M}
"""


def _written(folder: Path, text: str = LEAST) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _faults(path: Path, *changes: str) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        read(path, changes)
    return {fault.key: fault.text for fault in caught.value.faults}


def test_recipes_are_found() -> None:
    """A moved folder would make every test over recipes pass on nothing."""
    on_disk = [
        path for path in RECIPES.rglob("*.yaml") if "\ntask:" in path.read_text(encoding="utf-8")
    ]
    assert len(FILES) == len(on_disk) == 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_is_valid(path: Path) -> None:
    """A renamed key, objective or argument breaks recipes that nobody runs that day."""
    found = read(path)
    assert objectives_of(found)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 45
    header = path.read_text(encoding="utf-8").splitlines()[:3]
    assert [line[:2] for line in header] == ["# ", "# ", "# "]
    named = path.relative_to(RECIPES.parent).as_posix()
    assert f"hf-distill train {named}" in header[2], "a command that was copied from another recipe"


def test_table_names_every_recipe() -> None:
    """A list that is kept by hand forgets the newest."""
    table = (RECIPES / "README.md").read_text(encoding="utf-8")
    named = [path.relative_to(RECIPES).as_posix() for path in RECIPES.rglob("*.yaml")]
    assert [name for name in named if f"({name})" not in table] == []


def test_faults_are_reported_together(tmp_path: Path) -> None:
    """One fault at a time costs one start of torch for each."""
    text = """\
task: text-classification
data: {pth: x, max_length: long, stride: 3}
teacher: {model: t, training: {learning_rat: 1, seed: 4}}
student: {size: 13M, model: other}
objectives:
  a: {type: KLDivergense}
  b: {type: KLDivergence, temperature: -1, weight: -2}
  c: {type: HiddenMSE, normalise: true, mapping: unform}
training: {learning_rate: much, output_dir: here}
sed: 1
"""
    path = _written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        read(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") and " must " in line for line in lines)
    found = {fault.key: fault.text for fault in caught.value.faults}
    assert set(found) == {
        "data.path", "data.pth", "data.max_length", "data.stride", "student", "sed",
        "teacher.training.learning_rat", "teacher.training.seed", "objectives.a.type",
        "objectives.b.temperature", "objectives.b.weight", "objectives.c.normalise",
        "objectives.c.mapping", "training.learning_rate", "training.output_dir",
    }  # fmt: skip
    assert found["sed"] == "must be a known key, got 'sed'. Did you mean 'seed'?"
    assert "Did you mean 'KLDivergence'?" in found["objectives.a.type"]
    assert "Did you mean 'learning_rate'?" in found["teacher.training.learning_rat"]
    assert "Did you mean 'normalize'?" in found["objectives.c.normalise"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("seed=7", 7),
        ("training.learning_rate=5e-5", 5e-5),
        ("training.bf16=true", True),
        ("training.report_to=none", "none"),
        ("data.name=null", None),
        ("data.text=[a, b]", ["a", "b"]),
        ("data.path=a=b", "a=b"),
        ("student.layers=[1, 3]", [1, 3]),
    ],
)
def test_set_reads_values_as_yaml(tmp_path: Path, change: str, expected: object) -> None:
    """YAML 1.1 takes 5e-5 for a text, which would reach the optimizer as one."""
    found: Any = plain(read(_written(tmp_path), [change]))
    for key in change.partition("=")[0].split("."):
        found = found[key]
    assert found == expected
    assert type(found) is type(expected)


def test_set_is_checked_like_the_file(tmp_path: Path) -> None:
    """A misspelt change that is ignored runs for hours with the old value."""
    path = _written(tmp_path)
    assert set(_faults(path, "data.pth=x", "seed=-1")) == {"data.pth", "seed"}
    assert "must be path.to.key=value" in _faults(path, "seed")["--set"]
    assert "task is a value" in _faults(path, "task.name=x")["--set"]


def test_keys_stand_once(tmp_path: Path) -> None:
    """YAML's own loader takes the last of two values without a word."""
    (text,) = _faults(_written(tmp_path, LEAST + "seed: 1\nseed: 2\n")).values()
    assert "seed must be given once, got it again in line 6" in text


@pytest.mark.parametrize("text", ["", "- a", "a: [", "just words"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    """An empty file is None to YAML, and an AttributeError to whoever reads on."""
    assert set(_faults(_written(tmp_path, text))) == {"recipe"}


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A traceback of `open` hides that only the path is wrong."""
    with pytest.raises(FileNotFoundError, match=r"recipe must be a YAML file, got .*nowhere"):
        read(tmp_path / "nowhere.yaml")


def test_written_recipe_is_read_again(tmp_path: Path) -> None:
    """recipe.yaml in a run's folder must make the same run."""
    for path in FILES:
        found = read(path, ["data.path=elsewhere", "training.max_steps=5"])
        again = tmp_path / "again.yaml"
        again.write_text(written(found), encoding="utf-8")
        assert plain(read(again)) == plain(found)


def test_keys_of_other_tasks_are_refused(tmp_path: Path) -> None:
    """A column that is named for another task would be ignored, and the default taken."""
    found = _faults(_written(tmp_path), "task=token-classification", "data.label=topic")
    assert found["data.label"].startswith("must be left out for task token-classification")


def test_names_become_objectives(tmp_path: Path) -> None:
    """Weights, settings and layers must reach the objective that they stand beside."""
    text = """
mapping: last
objectives:
  kl: {type: KLDivergence, weight: 0.5, temperature: 4.0}
  mine: {type: hf_distill.objectives.hidden.HiddenMSE, mapping: [[1, 2], [2, 4]]}
"""
    found = read(_written(tmp_path, LEAST + text))
    assert objectives_of(found) == {"kl": (0.5, KLDivergence(4.0)), "mine": (1.0, HiddenMSE())}
    assert mapping_of(found) == {"kl": "last", "mine": [[1, 2], [2, 4]]}


@pytest.mark.parametrize("name", ["os.path.join", "nowhere.Thing", "hf_distill.objectives.Thing"])
def test_dotted_paths_lead_to_objectives(tmp_path: Path, name: str) -> None:
    """Any callable could be named, and would be called."""
    found = _faults(_written(tmp_path), f"objectives={{a: {{type: {name}}}}}")
    assert set(found) == {"objectives.a.type"}


def test_arguments_are_typed_and_resumable(tmp_path: Path) -> None:
    """Epochs as a text fail inside the Trainer; without checkpoints nothing can be resumed."""
    found = arguments_of({"num_train_epochs": "3"}, "training", tmp_path, 5)
    assert (found.num_train_epochs, found.seed) == (3.0, 5)
    assert (found.save_strategy, found.save_total_limit) == ("epoch", 1)
    assert found.use_cpu, "else processes on CPUs would not find each other"
    assert arguments_of({"save_steps": 2}, "training", tmp_path, 5).save_strategy == "steps"


def test_contradicting_arguments_are_a_fault(tmp_path: Path) -> None:
    """The Trainer's own errors do not say which of a recipe's two trainings is meant."""
    with pytest.raises(RecipeError, match=r"teacher\.training must be arguments that go together"):
        arguments_of({"fp16": True, "bf16": True}, "teacher.training", tmp_path, 0)


def test_plain_data_is_checked_too() -> None:
    """Searches change recipes without a file."""
    with pytest.raises(RecipeError, match="search: task must be given, got nothing"):
        checked(
            {"data": {"path": "x"}, "teacher": {"model": "t"}, "student": {"size": "L1"}}, "search"
        )


SCHEDULED = (
    LEAST
    + """\
objectives:
  kl: {type: KLDivergence, weight: {start: 1.0, end: 0.2, kind: cosine},
       temperature: {start: 4.0, end: 1.0}}
  mi: {type: MIAlpha, alpha: 0.5, critic: {queue: 64, pooling: tokens}}
"""
)


def test_schedules_and_critics_are_read(tmp_path: Path) -> None:
    """A mapping that stays a dict is compared with 0 in the first step, or never used."""
    made = objectives_of(read(_written(tmp_path, SCHEDULED)))
    assert made == {
        "kl": (Schedule(1.0, 0.2, "cosine"), KLDivergence(Schedule(4.0, 1.0))),
        "mi": (1.0, MIAlpha(alpha=0.5, critic=Critic(queue=64, pooling="tokens"))),
    }


@pytest.mark.parametrize(
    ("change", "key", "told"),
    [
        ("objectives.kl.weight={start: 1, end: -1}", "objectives.kl.weight", ">= 0"),
        ("objectives.kl.weight={start: 1, end: 0, knd: step}", "objectives.kl.weight", "knd"),
        ("objectives.kl.weight=heavy", "objectives.kl.weight", "got 'heavy'"),
        ("objectives.kl.temperature={start: 1, end: 0}", "objectives.kl.temperature", "> 0"),
        ("objectives.mi.critic={qeue: 1}", "objectives.mi.critic", "qeue"),
    ],
)
def test_wrong_schedules_and_critics(tmp_path: Path, change: str, key: str, told: str) -> None:
    """A fault inside a nested setting must be told with its place, before anything is loaded."""
    faults = _faults(_written(tmp_path, SCHEDULED), change)
    assert list(faults) == [key]
    assert told in faults[key]
