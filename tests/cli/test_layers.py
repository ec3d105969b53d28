"""What `hf-distill layers` says of two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hf_distill import objectives
from hf_distill.cli.main import app
from hf_distill.mapping import MAPPINGS, resolve
from hf_distill.objectives.base import Shape
from hf_distill.signals.signals import LAYERED
from hf_distill.training.defaults import build_mixture
from tests import tiny

LAYERED_KINDS = [
    name for name in objectives.__all__ if getattr(objectives, name).needs.intersection(LAYERED)
]


def _ask(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["layers", *map(str, arguments)])


def _told(teacher: object, student: object, *more: object) -> str:
    done = _ask("--teacher", teacher, "--student", student, *more)
    assert done.exit_code == 0, done.output
    return str(done.stdout)


def _table(told: str, first: str) -> list[dict[str, str]]:
    """The rows of the table whose first column is named so."""
    lines = told.splitlines()
    head = next(at for at, line in enumerate(lines) if line.split()[:1] == [first])
    rule = lines[head + 1]
    starts = [at for at in range(len(rule)) if rule[at] == "-" and (at == 0 or rule[at - 1] == " ")]
    cuts = [slice(a, b) for a, b in zip(starts, [*starts[1:], None], strict=True)]
    rows: list[dict[str, str]] = []
    for line in lines[head + 2 :]:
        if not line:
            break
        rows.append({lines[head][cut].strip(): line[cut].strip() for cut in cuts})
    return rows


def _config(folder: Path, family: str = "Bert", **changes: Any) -> Path:
    """A folder with a config and no weights."""
    tiny.config(family, **changes).save_pretrained(folder)
    return folder


def test_pairs_are_shown_with_their_reasons() -> None:
    """Which layers do I match, and why? A table of numbers answers half of it."""
    told = _told(5, 2)
    assert _table(told, "student") == [
        {"student": "0", "teacher": "0", "why": "embedding outputs"},
        {"student": "1", "teacher": "3", "why": "m * N / M = 1 * 5 / 2 = 2.5, halves go up"},
        {"student": "2", "teacher": "5", "why": "m * N / M = 2 * 5 / 2 = 5"},
    ]
    assert told.startswith("HiddenMSE, mapping uniform. Every student layer, with teacher layers")
    assert "Student: M = 2 layers. Teacher: N = 5 layers." in told
    assert "Teacher layers that nobody answers to: 1-2, 4.\n" in told
    assert "Student layers that answer to none: none.\n" in told
    assert "not known of depths alone" in told


@pytest.mark.parametrize("name", sorted(MAPPINGS))
@pytest.mark.parametrize("objective", ["HiddenMSE", "AttentionMSE"])
def test_every_mapping_is_shown_as_it_trains(name: str, objective: str) -> None:
    """The command's own arithmetic would agree on the depths that somebody tried."""
    told = _told(7, 3, "--mapping", name, "--objective", objective)
    shown = []
    for row in _table(told, "student"):
        first, _, last = row["teacher"].partition("-")
        shown += [(int(row["student"]), n) for n in range(int(first), int(last or first) + 1)]
    assert tuple(shown) == resolve(name, 3, 7, embeddings=objective == "HiddenMSE")
    assert ("weighed anew every 100 optimizer steps" in told) == (name == "emd")


def test_pairs_may_be_given() -> None:
    """What a recipe takes and the command refuses cannot be asked for."""
    told = _told(12, 4, "--mapping", "[[4, 12], [4, 9], [4, 10], [1, 0]]")
    assert [(row["student"], row["teacher"]) for row in _table(told, "student")] == [
        ("4", "12, 9-10"),
        ("1", "0"),
    ]
    assert "Student layers that answer to none: 0, 2-3." in told


def test_the_objectives_own_mapping_is_shown() -> None:
    """`uniform` for all would explain MiniLM by layers that it never compares."""
    told = _told(12, 6, "--objective", "MiniLM")
    assert _table(told, "student") == [
        {"student": "6", "teacher": "12", "why": "the last layer of both"}
    ]
    mappings = {row["objective"]: row["mapping"] for row in _table(told, "objective")}
    assert (mappings["MiniLM"], mappings["HiddenMSE"]) == ("last", "uniform")


def test_numbers_are_those_of_transformers_outputs() -> None:
    """hidden_states begins with the embeddings and attentions does not: one index is one off."""
    told = _told(4, 2, "--mapping", "uniform")
    assert "layer n is hidden_states[n] and attentions[n - 1] in transformers" in told
    last = int(_table(told, "student")[-1]["teacher"])
    model: Any = tiny.model(num_hidden_layers=4, attn_implementation="eager")
    shown = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True, output_attentions=True)
    assert torch.equal(shown.hidden_states[last], shown.last_hidden_state)
    assert shown.attentions[last - 1] is shown.attentions[-1]
    assert torch.equal(shown.hidden_states[0], model.embeddings(torch.tensor([[5, 6, 7]])))


def test_models_are_read_from_their_configs(tmp_path: Path) -> None:
    """Weights of a large teacher would be loaded to look at three numbers."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    student = _config(tmp_path / "student", hidden_size=16)
    told = _told(teacher, student)
    assert "Student: M = 2 layers. Teacher: N = 4 layers." in told
    assert "Widths: student 16, teacher 32." in told
    assert "a projection 16 -> 32 is learnt" in told
    assert "Attention heads: 4 in both." in told
    rows = {row["objective"]: row for row in _table(told, "objective")}
    assert rows["HiddenMSE"]["why"] == "projected 16 -> 32"
    assert rows["SimilarityKL"]["why"] == "as is"
    assert rows["InfoNCE"]["why"] == "scored by a critic, at any widths"
    assert {row["legal"] for row in rows.values()} == {"yes"}


def test_equal_widths_are_not_projected(tmp_path: Path) -> None:
    """A projection that is promised and not there is looked for in vain."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    told = _told(teacher, teacher)
    assert "Widths: 32 in both; nothing is projected." in told
    assert "projected" not in _table(told, "objective")[0]["why"]


def test_sizes_are_read_beside_a_teacher(tmp_path: Path) -> None:
    """A size that the student room reads in another way is another student."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    assert "M = 3 layers" in _told(teacher, "L3")
    told = _told(teacher, "L2-H16")
    assert "Widths: student 16, teacher 32." in told
    assert "Attention heads: student 2, teacher 4." in told
    large = _config(
        tmp_path / "large",
        num_hidden_layers=12,
        hidden_size=384,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    assert "Widths: student 256, teacher 384." in _told(large, "13M")


def test_illegal_objectives_say_why_and_what_else(tmp_path: Path) -> None:
    """What is found out after the teacher was fine-tuned for hours could be known before."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    rows = _table(_told(teacher, "L2-H16"), "objective")
    by_name = {row["objective"]: row for row in rows}
    assert list(by_name) == LAYERED_KINDS
    for name in ("AttentionMSE", "AttentionKL", "MiniLM"):
        assert by_name[name]["legal"] == "no"
        assert "must be the teacher's 4" in by_name[name]["why"]
        assert "or use MiniLMv2." in by_name[name]["why"]
    assert by_name["HiddenMSE"]["legal"] == "yes"


def test_verdicts_are_those_of_training(tmp_path: Path) -> None:
    """A yes that the trainer takes back, or a no that it never says."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    for mapping in ("uniform", "last:embeddings", "first:no-embeddings"):
        given = ("--objective", "HiddenMSE", "--mapping", mapping)
        for row in _table(_told(teacher, "L2-H16", *given), "objective"):
            fault = _fault(row["objective"], mapping)
            assert (row["legal"] == "no") == bool(fault), row
            assert fault in row["why"]


def _fault(name: str, mapping: str) -> str:
    """What training says against an objective between 2 layers of 16 and 4 of 32."""
    shapes = Shape(2, 16, 2), Shape(4, 32, 4)
    objective = getattr(objectives, name)()
    try:
        build_mixture({"only": (1.0, objective)}, mapping, *shapes)
        objective.check(*shapes)
    except ValueError as error:
        return str(error)
    return ""


def test_families_show_what_they_can(tmp_path: Path) -> None:
    """ModernBERT has no attention maps to show, whatever the numbers of heads are."""
    folder = _config(tmp_path / "modern", "ModernBert")
    rows = {row["objective"]: row for row in _table(_told(folder, folder), "objective")}
    assert rows["HiddenMSE"]["legal"] == rows["MiniLMv2"]["legal"] == "yes"
    assert rows["AttentionMSE"]["legal"] == "no"
    assert "student must show attention, got a family that shows" in rows["AttentionMSE"]["why"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 12), r"student_layers must be at most teacher_layers (6), got 12."),
        ((12, 0), r"student_layers must be a positive int, got 0."),
        ((12, 6, "--mapping", "unifrom"), "Did you mean 'uniform'?"),
        ((12, 6, "--mapping", "last-7"), "mapping must ask for 1 to 6 last layers"),
        ((12, 6, "--mapping", "[[1, 13]]"), "mapping must be within the teacher's layers 0 to 12"),
        ((12, 6, "--mapping", "[[1, 2"), "--mapping must be a name or pairs, got '[[1, 2'."),
        ((12, 6, "--objective", "HidenMSE"), "Did you mean 'HiddenMSE'?"),
        ((12, 6, "--objective", "zzz"), "`hf-distill list objectives` shows them."),
        ((12, 6, "--objective", "KLDivergence"), "--objective must compare layers"),
        (
            (12, 6, "--objective", "AttentionMSE", "--mapping", "top:embeddings"),
            "mapping must be free of ':embeddings' here, got 'top:embeddings'.",
        ),
        ((12, "L3"), "--teacher must be a model where --student is a size, got '12'."),
        (("./nowhere", 6), "--teacher must be a model that can be loaded, got './nowhere'"),
        ((12, "./nowhere"), "--student must be a model that can be loaded, got './nowhere'"),
    ],
)
def test_wrong_input_ends_with_a_sentence(arguments: tuple[object, ...], message: str) -> None:
    """A traceback of forty lines hides the one that says what to do."""
    teacher, student, *more = arguments
    done = _ask("--teacher", teacher, "--student", student, *more)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not done.stdout


def test_wrong_sizes_and_families_are_named(tmp_path: Path) -> None:
    """A size read as a Hub id is a failed download."""
    teacher = _config(tmp_path / "teacher", num_hidden_layers=4, intermediate_size=64)
    done = _ask("--teacher", teacher, "--student", "14M")
    assert done.exit_code == 2
    assert "size must be one of 13M, 22M, 33M" in done.stderr
    assert "layers of size must be at most" in _ask("--teacher", teacher, "--student", "L5").stderr
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "config.json").write_text('{"model_type": "vit"}', encoding="utf-8")
    done = _ask("--teacher", tmp_path / "vision", "--student", 2)
    assert done.exit_code == 2
    assert "model must be of a known family" in done.stderr


def test_every_layered_objective_has_settings_of_its_own() -> None:
    """One that must be given some would end the command for all others."""
    assert set(LAYERED_KINDS) >= {"HiddenMSE", "MiniLM"}
    for name in LAYERED_KINDS:
        getattr(objectives, name)()
