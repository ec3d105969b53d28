"""The method cards say what the code does, and their examples run."""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

import hf_distill
from hf_distill import objectives
from hf_distill.cli.main import app
from hf_distill.mapping import resolve
from hf_distill.objectives.critic import Critic
from hf_distill.recipe.classes import mapping_of, objectives_of
from hf_distill.recipe.reading import plain, read
from hf_distill.recipe.schema import Recipe
from hf_distill.signals.signals import LAYERED
from hf_distill.training.defaults import build_mixture
from hf_distill.training.pairing import shape_of
from tests.contract import test_objectives as contract
from tests.training import runs

ROOT = Path(__file__).parent.parent
METHODS = ROOT / "docs" / "methods"
INDEX = METHODS / "README.md"
FAULTS = ROOT / "docs" / "faults.md"
STUDENTS = ROOT / "docs" / "students.md"
CACHE = ROOT / "docs" / "cache.md"
CARDS = sorted(path for path in METHODS.glob("*.md") if path != INDEX)
PARTS = {"Critic": Critic, "Ensemble": hf_distill.Ensemble, "Adapter": hf_distill.Adapter}
"""What cards have settings of beside objectives."""
SECTIONS = ("Cost", "When to take which", "In the papers", "What is different here", "Use")
LEAST: dict[str, Any] = {
    "task": "text-classification",
    "data": {"path": "some/data"},
    "teacher": {"model": "some/teacher"},
    "student": {"size": "13M"},
}

every_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)


def _tables(path: Path) -> list[dict[str, str]]:
    """The rows of all tables of a file, by the names of their columns."""
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line[:1] == "|" else []
        if cells and head and not set(cells[0]) <= set("-"):
            rows.append(dict(zip(head, cells, strict=True)))
        head = head or cells if cells else []
    return rows


def _blocks(card: Path, language: str) -> list[str]:
    text = card.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _of_objectives() -> list[tuple[str, dict[str, str]]]:
    """Name and row of each objective in a card's table."""
    rows = [row for card in CARDS for row in _tables(card) if "counted in" in row]
    return [(row["objective"].strip("`"), row) for row in rows]


def _settings(cell: str) -> dict[str, Any]:
    """The settings that a cell shows with their defaults; None for one without."""
    call = ast.parse(f"shown({cell.strip('`').replace('none', '')})", mode="eval").body
    assert isinstance(call, ast.Call)
    required = {ast.unparse(each): dataclasses.MISSING for each in call.args}
    shown = {str(each.arg): eval(ast.unparse(each.value), dict(PARTS)) for each in call.keywords}
    return {**required, **shown}


def _defaults(kind: Any) -> dict[str, Any]:
    """The settings of a dataclass with their defaults."""
    return {
        field.name: field.default
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(kind)
    }


def test_every_objective_has_a_card() -> None:
    """An objective that nobody can read of is not used, or is used wrongly."""
    assert sorted(name for name, _ in _of_objectives()) == sorted(objectives.__all__)
    indexed = [row for row in _tables(INDEX) if "card" in row]
    assert [row["objective"].strip("`") for row in indexed] == objectives.__all__
    for row in indexed:
        (named,) = re.findall(r"\((\w+\.md)\)", row["card"])
        assert f"\n| {row['objective']} |" in (METHODS / named).read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "row"), _of_objectives())
def test_tables_say_what_the_code_has(name: str, row: dict[str, str]) -> None:
    """A default that was changed since, in the one place where a user looks for it."""
    kind = getattr(objectives, name)
    assert _settings(row["settings"]) == _defaults(kind)
    assert row["counted in"].replace(";", " ").split()[0] == kind().unit
    assert row["compares the batch"] == ("yes" if kind.compares_batch else "no")
    if kind.needs.intersection(LAYERED):
        assert row["layers"] == kind.default_mapping
        assert row["widths"] == ("projected" if kind.equal_width else "any")
    else:
        heads = {"single_label", "multi_label", "regression"} if row["heads"] == "all" else None
        assert (heads or {row["heads"]}) == kind.problems


def test_parts_have_the_settings_that_are_shown() -> None:
    """A critic or an ensemble is set by names: one that is no more is an error for the reader."""
    shown = {
        next(iter(row.values())).strip("`"): row["settings"]
        for card in CARDS
        for row in _tables(card)
        if "settings" in row and "counted in" not in row
    }
    assert set(shown) == set(PARTS)
    for name, settings in shown.items():
        assert _settings(settings) == _defaults(PARTS[name])


@every_card
def test_cards_have_the_same_sections(card: Path) -> None:
    """A reader who knows one card finds his way in all."""
    titles = re.findall(r"^## (.*)$", card.read_text(encoding="utf-8"), re.MULTILINE)
    assert [title for title in titles if title in SECTIONS] == [
        title for title in SECTIONS if title != "Cost" or card.stem != "layer_mappings"
    ]
    assert titles[-1] == "Measured here"


def test_mappings_are_those_of_the_code() -> None:
    """Pairs that were worked out by hand are wrong where it matters: where depths do not divide."""
    for row in _tables(METHODS / "layer_mappings.md"):
        for depth in (4, 5):
            shown = re.findall(r"(\d+)-(\d+)", row[f"{depth} of 12"])
            for name in re.findall(r"`([\w-]+)`", row["name"]):
                pairs = resolve(name, depth, 12, embeddings=False)
                if shown:
                    assert [(int(mine), int(theirs)) for mine, theirs in shown] == list(pairs)
                else:
                    assert row[f"{depth} of 12"] == f"all {len(pairs)} pairs"


def test_the_command_says_what_is_shown() -> None:
    """A command that was renamed, or says something else since."""
    card = METHODS / "layer_mappings.md"
    (command,) = re.findall(
        r"^    hf-distill (.*)$", card.read_text(encoding="utf-8"), re.MULTILINE
    )
    told = CliRunner().invoke(app, command.split())
    assert told.exit_code == 0, told.output
    (shown,) = _blocks(card, "text")
    said = iter(told.stdout.splitlines())
    assert all(line in said for line in shown.splitlines())


def _adapted() -> Any:
    """A student of two adapters."""
    model = runs.lora(runs.student(), target_modules=["query", "value"])
    model.add_adapter("expert", model.peft_config["default"])
    return model


def _given(folder: Path) -> dict[str, Any]:
    """What the examples take for granted."""
    return {
        "student": runs.student(hidden_size=48, num_hidden_layers=4),
        "teacher": runs.teacher(hidden_size=96, num_hidden_layers=12),
        "other_teacher": runs.teacher(num_hidden_layers=2),
        "peft_model": _adapted(),
        "args": runs.arguments(folder, max_steps=1),
        "dataset": runs.examples(8),
    }


@every_card
def test_examples_run(card: Path, tmp_path: Path) -> None:
    """An example that fails is the last thing a user tries."""
    for number, code in enumerate(_blocks(card, "python")):
        names = _given(tmp_path / str(number))
        exec(code, names)
        trainer = names["trainer"]
        trainer.data_collator = runs.collate
        trainer.train()
        assert trainer.state.global_step == 1


def _recipe(folder: Path, text: str) -> Recipe:
    """A recipe that says what a fragment says, and beside it the least that there must be."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **yaml.safe_load(text)}), encoding="utf-8")
    return read(path)


@every_card
def test_recipes_are_read(card: Path, tmp_path: Path) -> None:
    """A fragment with a key that was renamed since is a fault in every recipe that copies it."""
    fragments = _blocks(card, "yaml")
    assert fragments
    for text in fragments:
        assert yaml.safe_load(text).keys() <= plain(_recipe(tmp_path, text)).keys()


@every_card
def test_the_first_recipe_says_the_same_as_the_code_above_it(card: Path, tmp_path: Path) -> None:
    """Two spellings of one mixture that differ: a user copies the one that was not tried."""
    recipe = _recipe(tmp_path, _blocks(card, "yaml")[0])
    names = _given(tmp_path / "run")
    exec(_blocks(card, "python")[0], names)
    shapes = shape_of(names["student"]), shape_of(names["teacher"])
    found = objectives_of(recipe)
    assert found is not None
    mixture = build_mixture(found, mapping_of(recipe), *shapes)
    assert mixture.terms == names["trainer"].mixture.terms


def test_the_guide_to_students_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that fails is the last thing a user tries."""
    monkeypatch.chdir(tmp_path)
    batches = [runs.collate(runs.examples(8))]
    for code in _blocks(STUDENTS, "python"):
        teacher = runs.teacher(hidden_size=32, num_hidden_layers=4)
        exec(code, {"teacher": teacher, "batches": batches})


def test_the_guide_to_students_names_options_and_keys_that_exist(tmp_path: Path) -> None:
    """A command that was renamed since it was written down."""
    text = STUDENTS.read_text(encoding="utf-8")
    known = {option for each in _options("extract") for option in each.opts}
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known
    for fragment in re.findall(r"`(student: \{.*\})`", text):
        assert _recipe(tmp_path, fragment).student.size == "13M"


def test_the_guide_to_caches_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that fails is the last thing a user tries."""
    monkeypatch.chdir(tmp_path)
    for code in _blocks(CACHE, "python"):
        names = {**_given(tmp_path / "run"), "collator": runs.collate}
        exec(code, names)
        assert names["written"].computed == 8
        assert names["trainer"].state.global_step == 1
        assert names["trainer"].describe().teacher_cache == "bfloat16"
    for text in _blocks(CACHE, "yaml"):
        assert yaml.safe_load(text).items() <= plain(_recipe(tmp_path, text)).items()


def test_the_guide_to_caches_names_options_that_exist() -> None:
    """A command that was renamed since it was written down."""
    text = CACHE.read_text(encoding="utf-8")
    known = {
        option for name in ("cache", "train") for each in _options(name) for option in each.opts
    }
    assert set(re.findall(r"(?<=[ `])--[a-z][a-z-]+", text)) <= known
    for path in re.findall(r"recipes/[\w./-]+\.yaml", text):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize(("storage", "size"), [("float32", 4), ("bfloat16", 2), ("int8", 1)])
@pytest.mark.parametrize("signal", ["hidden", "attention", "logits", "likeliest"])
def test_the_guide_to_caches_says_how_large_they_are(
    tmp_path: Path, signal: str, storage: Any, size: int
) -> None:
    """A table of sizes that is wrong fills a disk overnight."""
    given = _given(tmp_path / "run")
    lengths = [len(one["input_ids"]) for one in given["dataset"]]
    config, count = given["teacher"].config, len(lengths)
    tokens, pairs = sum(lengths), sum(length * length for length in lengths)
    objective, row, rows = {
        "hidden": (objectives.HiddenMSE(), size * config.hidden_size, 2 * tokens),
        "attention": (objectives.AttentionKL(), size * config.num_attention_heads, 2 * pairs),
        "logits": (objectives.KLDivergence(), size * config.num_labels, count),
        "likeliest": (objectives.KLDivergence(), (size + 4) * 2 + 4, count),
    }[signal]
    trainer = hf_distill.DistillationTrainer(
        given["student"],
        given["args"],
        teacher=given["teacher"],
        objectives={"it": (1.0, objective)},
        layer_mapping=[(1, 3), (4, 12)] if signal in ("hidden", "attention") else None,
        train_dataset=given["dataset"],
        data_collator=runs.collate,
    )
    top = 2 if signal == "likeliest" else None
    trainer.write_teacher_cache(tmp_path / "cached", storage=storage, top=top)
    (file,) = (tmp_path / "cached").glob("*.safetensors")
    held = {name: tensor.nbytes for name, tensor in load_file(file).items()}
    keys = [held.pop(name) for name in list(held) if name.startswith(("keys", "starts"))]
    assert sum(held.values()) == rows * (row + (4 if storage == "int8" else 0))
    assert sum(keys) == 48 * count + 32


def _options(command: str) -> list[Any]:
    """The options of a command."""
    found: Any = typer.main.get_command(app)
    return list(found.commands[command].params)


def test_links_lead_somewhere() -> None:
    """A card that was renamed leaves dead ends behind."""
    for path in (INDEX, STUDENTS, CACHE, *CARDS):
        for link in re.findall(r"\]\(([\w./]+\.md)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).is_file(), f"{path.name}: {link}"


def test_faults_name_tests_that_exist() -> None:
    """A renamed test leaves a fault that the table calls guarded, and nobody finds its guard."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", FAULTS.read_text(encoding="utf-8"))
    assert len(named) > 100
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_the_worked_example_keeps_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds an objective begins by copying the one that contributors are shown."""
    written, tested, smallest = _blocks(ROOT / "CONTRIBUTING.md", "python")[1:]
    module = ModuleType("hf_distill.objectives.huber")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(written, vars(module))
    names: dict[str, Any] = {}
    exec(tested, names)
    for test in [each for name, each in names.items() if name.startswith("test_")]:
        test()
    exec(smallest, names)
    ((name, arguments),) = names["SMALLEST"].items()
    objective = getattr(module, name)(**arguments)
    contract.test_zero_for_equal_inputs(objective, {})
    contract.test_never_negative(objective, {})
    contract.test_padding_changes_nothing(objective, {}, "left")
    contract.test_gradient_reaches_the_student_and_not_the_teacher(objective, {})
    contract.test_reads_no_signal_outside_needs(objective, {})
    contract.test_micro_batches_add_up_to_the_big_batch(objective, {})
