"""Checkpoints are whole, and free of traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from transformers import AutoTokenizer

from hf_distill.recipe.checkpoints import (
    last_complete,
    write_text,
)
from hf_distill.release.tokenizer import load_tokenizer, positions, save_tokenizer
from tests import tiny
from tests.recipe import examples


def _checkpoint(folder: Path, step: int, *states: str, state: str | None = "{}") -> None:
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    for name in states:
        (place / name).write_bytes(b"")
    if state is not None:
        (place / "trainer_state.json").write_text(state, encoding="utf-8")


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """Resuming from the newest folder fails, or begins with the weights of another step."""
    assert last_complete(tmp_path / "none", 1) is None
    _checkpoint(tmp_path, 9, "rng_state.pth")
    _checkpoint(tmp_path, 10, "rng_state.pth")
    _checkpoint(tmp_path, 11, "rng_state.pth", state=None)
    _checkpoint(tmp_path, 12, "rng_state.pth", state='{"global_step": 1')
    _checkpoint(tmp_path, 13)
    _checkpoint(tmp_path / "checkpoint-best", 1)
    assert last_complete(tmp_path, 1) == str(tmp_path / "checkpoint-10")


def test_every_process_must_have_saved(tmp_path: Path) -> None:
    """A process without its random state goes on with other batches than it would have seen."""
    _checkpoint(tmp_path, 1, "rng_state_0.pth", "rng_state_1.pth")
    _checkpoint(tmp_path, 2, "rng_state_0.pth")
    assert last_complete(tmp_path, 2) == str(tmp_path / "checkpoint-1")


@pytest.mark.parametrize(("family", "most"), [("Bert", 40), ("Roberta", 39), ("DistilBert", 40)])
def test_positions_are_those_that_a_model_reads(family: str, most: int) -> None:
    """RoBERTa counts from behind the padding token: its last positions do not exist."""
    assert positions(tiny.config(family)) == most


def test_saved_tokenizer_cuts_nothing_by_itself(tmp_path: Path) -> None:
    """A tokenizer remembers where it last cut, and would cut everyone's texts there."""
    source = examples.teacher(tmp_path / "teacher")
    config = transformers.AutoConfig.from_pretrained(source)
    tokenizer = load_tokenizer(source, config)
    tokenizer(["the cat sings"], truncation=True, max_length=3, padding="max_length")
    save_tokenizer(tokenizer, tmp_path / "saved")
    held = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert (held["truncation"], held["padding"]) == (None, None)
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again("the cat sings")["input_ids"] == tokenizer("the cat sings")["input_ids"]


def test_text_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a results.json says that a run is finished."""
    path = tmp_path / "deep" / "results.json"
    write_text(path, "before")

    def cut(self: Path, text: str, **options: str) -> None:
        with self.open("w") as file:
            file.write(text[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "after all")
    assert path.read_text() == "before"
