"""The README's examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests import tiny

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[str]:
    """The Python in the README."""
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the examples take for granted: a fine-tuned teacher in its folder, and data."""
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    teacher = tiny.model(
        "Bert", "ForSequenceClassification", num_hidden_layers=4, num_labels=3, **sizes
    )
    teacher.save_pretrained("my-fine-tuned-bert")
    names = {f"w{index}": index for index in range(tiny.VOCABULARY)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="w1")), pad_token="w0"
    ).save_pretrained("my-fine-tuned-bert")
    data = [{"input_ids": torch.randint(3, 60, (6,)), "labels": index % 3} for index in range(16)]
    return {"train_dataset": data, "eval_dataset": data[:4]}


def test_the_drop_in_example_runs(prepared: dict[str, Any]) -> None:
    """A first example that fails is the last thing a user tries."""
    code = blocks()[0].replace('"student", num', '"student", use_cpu=True, report_to=[], num')
    exec(code, prepared)
    student = AutoModelForSequenceClassification.from_pretrained("student")
    assert student.config.num_hidden_layers == 3


def test_the_objectives_example_makes_a_mixture(prepared: dict[str, Any]) -> None:
    """Weights and mappings shown in a form that the trainer does not take would mislead."""
    example: dict[str, Any] = {}
    exec(blocks()[1], example)
    more = ", report_to=[]), objectives=objectives, layer_mapping=layer_mapping,"
    code = blocks()[0].replace(", learning_rate=2e-4),", f", use_cpu=True{more}")
    exec(code, {**prepared, **example})


def test_every_command_is_known() -> None:
    """A command in the README that was renamed since."""
    text = README.read_text(encoding="utf-8")
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"(recipes/[\w./-]+\.yaml)", text):
        assert (README.parent / path).is_file(), path
