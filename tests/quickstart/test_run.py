"""The quickstart on a tiny teacher: every file, every figure."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from hf_distill.quickstart import run as quickstart

WORDS = "the a small large model student teacher layer learns reads shows keeps its own weights now"
KEYS = {
    "parameters",
    "megabytes",
    "sentences_per_second_1",
    "sentences_per_second_32",
    "fidelity",
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved BERT of four layers, with a tokenizer of a few words."""
    folder = tmp_path_factory.mktemp("teacher")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS.split()]
    backend = Tokenizer(models.WordPiece({n: i for i, n in enumerate(names)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=10**30
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random sentences of known words."""
    rng, words = random.Random(0), WORDS.split()
    lines = {" ".join(rng.choices(words, k=rng.randint(6, 12))).capitalize() for _ in range(300)}
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"{line}." for line in sorted(lines)))
    return path


@pytest.fixture
def options(teacher: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a run that takes seconds."""
    monkeypatch.setattr(quickstart, "HELD_OUT", 64)
    return {
        "teacher": str(teacher),
        "text": str(text),
        "student": "L2-H16-A4-F32",
        "steps": 3,
        "seed": 0,
        "overwrite": False,
    }


def test_it_writes_what_it_promises(options: dict[str, Any], tmp_path: Path) -> None:
    """A missing file or figure is noticed by the user only after minutes of waiting."""
    out = tmp_path / "out"
    results = quickstart.run(**options, output_dir=out)
    assert json.loads((out / "results.json").read_text()) == results
    for name in ("teacher", "student", "student_before", "control"):
        assert set(results[name]) >= KEYS
    assert {"seconds", "steps", "seed", "versions"} <= set(results)
    assert results["teacher"]["fidelity"] == pytest.approx(1.0)
    assert results["student"]["parameters"] < results["teacher"]["parameters"]
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "curves.png",
        "results.json",
        "student",
    ]
    student, report = AutoModel.from_pretrained(out / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert student.num_parameters() == results["student"]["parameters"]
    assert AutoTokenizer.from_pretrained(out / "student").model_max_length == 40
    files = {path.name for path in (out / "student").iterdir()}
    assert {"extraction.json", "vocab.txt", "model.safetensors"} <= files
    assert not {name for name in files if name.startswith("_") or name.endswith(".bin")}


def test_the_card_says_what_results_say(options: dict[str, Any], tmp_path: Path) -> None:
    """A card with figures of its own is not honest, and a local path in it is nobody's business."""
    out = tmp_path / "out"
    results = quickstart.run(**options, output_dir=out)
    content = (out / "README.md").read_text()
    assert ModelCard(content).data.to_dict()["library_name"] == "transformers"
    assert str(tmp_path) not in content
    assert str(Path(options["teacher"]).parent) not in content
    assert f"{results['student']['parameters']:,}" in content
    assert "HiddenMSE" in content


def test_a_finished_run_is_kept(options: dict[str, Any], tmp_path: Path) -> None:
    """Minutes of training would be lost to a repeated command."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"output_dir must be new.*--overwrite"):
        quickstart.run(**options, output_dir=out)
    assert (out / "results.json").read_text() == "{}"
    quickstart.run(**{**options, "overwrite": True}, output_dir=out)
    assert "student" in json.loads((out / "results.json").read_text())


def test_other_files_are_never_deleted(options: dict[str, Any], tmp_path: Path) -> None:
    """`--overwrite` in a folder of somebody's work would wipe it out."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="new or hold a finished run"):
        quickstart.run(**{**options, "overwrite": True}, output_dir=out)
    assert (out / "thesis.tex").read_text() == "years of work"


def test_a_failed_run_leaves_no_output(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-written folder would pass for a finished one."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("interrupted")

    monkeypatch.setattr(quickstart, "measure", fail)
    with pytest.raises(RuntimeError, match="interrupted"):
        quickstart.run(**options, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_zero_steps_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """The Trainer would take 0 or -1 steps for epochs without end."""
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        quickstart.run(**{**options, "steps": 0}, output_dir=tmp_path / "out")
