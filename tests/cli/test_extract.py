"""`hf-distill extract`: what a user sees, and what lies in the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

from hf_distill.cli.main import app
from hf_distill.student import Importance, IndexSets, extract
from tests import tiny

SIZE = "L1-H16-A2-F20"


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["extract", *map(str, arguments)])


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A folder with a model and its tokenizer."""
    return saved(tmp_path / "teacher", "Bert", "ForSequenceClassification", num_labels=3)


def saved(folder: Path, family: str, head: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    model: Any = tiny.model(family, head, **changes)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("w1 w2 w3\n\nw4 w5 one\nw1 w7\n" * 4, encoding="utf-8")
    return path


def test_a_student_is_an_ordinary_checkpoint(teacher: Path, tmp_path: Path) -> None:
    """A folder that only we can read, or whose weights are not those that were cut."""
    out = tmp_path / "models" / "student"
    done = call("--teacher", teacher, "--student", SIZE, "--layers", "last", "--out", out)
    assert done.exit_code == 0, done.output
    kind = transformers.AutoModelForSequenceClassification
    model, report = kind.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    expected = extract(teacher, SIZE, layers="last")
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert IndexSets.load(out) == expected.indices
    words = transformers.AutoTokenizer.from_pretrained(out)("w1 one")["input_ids"]
    assert words == tiny.tokenizer()("w1 one")["input_ids"]
    told = (out / "report.md").read_text(encoding="utf-8")
    assert "| `classifier.weight` | 3 x 16 | cut | `classifier.weight` | 3 x 32 |  |" in told
    assert str(tmp_path) not in told
    assert "The teacher's layers 2 were taken" in done.stdout
    assert f"{model.num_parameters():,}" in done.stdout
    assert not list(out.parent.glob("*.partial"))


def test_without_a_folder_nothing_is_written(teacher: Path, tmp_path: Path) -> None:
    """A look at the size leaves files behind."""
    before = sorted(tmp_path.rglob("*"))
    done = call("--teacher", teacher, "--student", SIZE)
    assert done.exit_code == 0, done.output
    assert "Nothing was written: name a folder by --out." in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_holds_something_is_left_alone(teacher: Path, tmp_path: Path) -> None:
    """Half of one checkpoint and half of another."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    done = call("--teacher", teacher, "--student", SIZE, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--out must be a new or an empty folder" in done.stderr
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_interruption_leaves_no_half_student(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without its tokenizer is taken for a whole one."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_distill.student.saving.save_tokenizer", interrupted)
    call("--teacher", teacher, "--student", SIZE, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert call("--teacher", teacher, "--student", SIZE, "--out", tmp_path / "out").exit_code == 0


def test_scores_are_taken_saved_drawn_and_used_again(
    teacher: Path, texts: Path, tmp_path: Path
) -> None:
    """Scored anew for every size, a search over sizes takes hours; by other scores, it misleads."""
    scores, plot = tmp_path / "scores.safetensors", tmp_path / "plot.png"
    options = ("--teacher", teacher, "--how", "importance", "--scores", scores)
    done = call(
        *options, "--student", SIZE, "--texts", texts, "--plot", plot, "--out", tmp_path / "a"
    )
    assert done.exit_code == 0, done.output
    assert plot.stat().st_size > 1000
    found = Importance.load(scores)
    assert IndexSets.load(tmp_path / "a") == extract(teacher, SIZE, how=found).indices
    written = scores.stat().st_mtime_ns
    done = call(*options, "--student", "L2-H24-A3-F30", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert scores.stat().st_mtime_ns == written
    expected = extract(teacher, "L2-H24-A3-F30", how=found).indices
    assert IndexSets.load(tmp_path / "b") == expected


@pytest.mark.parametrize(
    ("family", "head", "loss"),
    [("Bert", "ForMaskedLM", "masked-lm"), ("Llama", "ForCausalLM", "causal-lm")],
)
def test_language_models_are_scored_by_their_own_loss(
    family: str, head: str, loss: str, texts: Path, tmp_path: Path
) -> None:
    """By the hidden states alone, nothing says what the head needs."""
    folder = saved(tmp_path / "teacher", family, head)
    held = []
    for asked in ("auto", loss, "hidden"):
        scores = tmp_path / f"{asked}.safetensors"
        done = call(
            *("--teacher", folder, "--student", "L1", "--how", "importance", "--texts", texts),
            *("--loss", asked, "--scores", scores, "--out", tmp_path / asked),
        )
        assert done.exit_code == 0, done.output
        held.append(Importance.load(scores).hidden)
    assert torch.equal(held[0], held[1])
    assert not torch.allclose(held[0], held[2])


def test_hidden_units_are_put_together_as_asked(teacher: Path, texts: Path, tmp_path: Path) -> None:
    """An option that is taken and not passed on: both ways would seem to agree."""
    held = []
    for asked in ("layers", "shared"):
        scores = tmp_path / f"{asked}.safetensors"
        done = call(
            *("--teacher", teacher, "--student", "L1", "--how", "importance", "--texts", texts),
            *("--hidden", asked, "--scores", scores, "--out", tmp_path / asked),
        )
        assert done.exit_code == 0, done.output
        held.append(Importance.load(scores))
    assert torch.equal(held[0].layers[0].ffn, held[1].layers[0].ffn)
    assert not torch.allclose(held[0].hidden, held[1].hidden)


def test_a_vocabulary_is_trimmed_with_the_student(
    teacher: Path, texts: Path, tmp_path: Path
) -> None:
    """A tokenizer of the old ids reads other words than the model."""
    out = tmp_path / "out"
    table = tmp_path / "more.jsonl"
    table.write_text('{"text": "w9 w9"}\n', encoding="utf-8")
    done = call(
        *("--teacher", teacher, "--student", SIZE, "--out", out),
        *("--trim-to", texts, "--trim-to", table),
    )
    assert done.exit_code == 0, done.output
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer) < 20
    assert f"trimmed from 60 tokens to {len(tokenizer)}" in done.stdout
    whole = extract(teacher, SIZE).model
    for text in ("w1 w2 w3", "w9 one"):
        ours = model(**tokenizer(text, return_tensors="pt")).logits
        theirs = whole(**tiny.tokenizer()(text, return_tensors="pt")).logits
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_config_of_another_family_gives_its_student(teacher: Path, tmp_path: Path) -> None:
    """What is new stands in no table, and a tokenizer gives what the student does not take."""
    path, out = tmp_path / "config.json", tmp_path / "out"
    tiny.config("DistilBert").to_json_file(path, use_diff=False)
    done = call("--teacher", teacher, "--student", path, "--out", out)
    assert done.exit_code == 0, done.output
    assert "new: 4 tensors" in done.stdout
    assert "  pre_classifier.weight 32 x 32" in done.stdout
    assert "token type 0 added" in done.stdout
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert type(model).__name__ == "DistilBertForSequenceClassification"
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert set(tokenizer("w1 w2")) == {"input_ids", "attention_mask"}
    assert model(**tokenizer("w1 w2", return_tensors="pt")).logits.shape == (1, 3)


def test_options_reach_the_student(teacher: Path, tmp_path: Path) -> None:
    """An option that is taken and forgotten."""
    out = tmp_path / "out"
    done = call(
        *("--teacher", teacher, "--student", "L2-H16-A4-F20", "--out", out, "--how", "random"),
        *("--seed", 7, "--layers", "1,2", "--rescale-qk", "--dropout", 0.25, "--dtype", "bfloat16"),
    )
    assert done.exit_code == 0, done.output
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["hidden_dropout_prob"] == 0.25
    assert config["dtype"] == "bfloat16"
    model = transformers.AutoModel.from_pretrained(out, add_pooling_layer=False)
    expected = extract(
        teacher, "L2-H16-A4-F20", how="random", seed=7, layers=(1, 2), rescale_qk=True
    ).model.to(torch.bfloat16)
    query = model.encoder.layer[1].attention.self.query.weight
    assert torch.equal(query, expected.bert.encoder.layer[1].attention.self.query.weight)
    assert "chosen by random, seed 7" in done.stdout


def test_a_decoder_has_layers_of_its_own(tmp_path: Path) -> None:
    """The encoder's choice applied to the decoder."""
    folder = saved(tmp_path / "t5", "T5", "ForConditionalGeneration", num_hidden_layers=3)
    done = call(
        *("--teacher", folder, "--student", "L2-D1", "--layers", "1,3"),
        *("--decoder-layers", "2", "--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    sets = IndexSets.load(tmp_path / "out")
    assert (sets.sources, sets.decoder[0].source) == ((1, 3), 2)
    assert "Of its decoder, layers 2." in done.stdout


def test_a_teacher_without_tokenizer_is_told(tmp_path: Path, texts: Path) -> None:
    """A folder without one fails only where the student is used."""
    tiny.model("Bert").save_pretrained(tmp_path / "teacher")  # type: ignore[operator]
    options = ("--teacher", tmp_path / "teacher", "--student", SIZE)
    done = call(*options)
    assert "There is no tokenizer beside the teacher" in done.stdout
    done = call(*options, "--trim-to", texts)
    assert done.exit_code == 2
    assert "--teacher must have a tokenizer beside it" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--how", "importance"], "--texts must name files where --how is importance, got none"),
        (["--plot", "x.png"], "--plot must be left out where --how is magnitude"),
        (["--texts", "x.txt"], "--texts must be left out where --how is magnitude"),
        (["--scores", "x"], "--scores must be left out where --how is magnitude"),
        (["--layers", "1,b"], "--layers must be a name or numbers, got '1,b'"),
        (["--layers", "unifrom"], "layers must be one of uniform, first, last"),
        (["--trim-to", "nowhere.txt"], "--trim-to must be a file, got 'nowhere.txt'"),
        (["--student", "14M"], "size must be one of 13M"),
        (["--student", "nowhere.json"], "--student must be a model that can be loaded"),
        (["--teacher", "./nowhere"], "--teacher must be a model that can be loaded"),
    ],
)
def test_errors_are_sentences(
    options: list[str], message: str, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback hides what is to be done; a fault found late has cost the scoring."""
    monkeypatch.chdir(tmp_path)
    done = call("--teacher", teacher, "--student", SIZE, "--out", tmp_path / "out", *options)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_labels_are_not_made_up(teacher: Path, texts: Path, tmp_path: Path) -> None:
    """A classifier's own loss needs labels, which texts have not."""
    options = ("--teacher", teacher, "--student", SIZE, "--out", tmp_path / "out")
    done = call(*options, "--how", "importance", "--texts", texts, "--loss", "masked-lm")
    assert done.exit_code == 2
    assert "--loss must be one of a BertForSequenceClassification on texts" in done.stderr
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    done = call(*options, "--how", "importance", "--texts", empty)
    assert "--texts must hold text" in done.stderr
