"""Tiny teachers and made-up data, as folders that a recipe can name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import BertWordPieceTokenizer

from tests import tiny

WORDS = ["red", "blue", "green", "cat", "dog", "bird", "runs", "sleeps", "sings", "the", "a"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *WORDS, "?", ".", "who"]
ANIMALS = ("bird", "cat", "dog")

TRAINING = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 8,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
}


def teacher(folder: Path, head: str = "Model", **changes: Any) -> str:
    """A BERT of 4 layers and width 32 with its tokenizer; returns its path."""
    sizes = {"num_hidden_layers": 4, "vocab_size": len(VOCABULARY), **changes}
    tiny.model("Bert", head, **sizes).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    pieces = {piece: number for number, piece in enumerate(VOCABULARY)}
    BertWordPieceTokenizer(pieces, lowercase=True).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return str(folder)


def sentence(chance: random.Random) -> list[str]:
    """Four to twelve words, one animal among them."""
    words = [chance.choice(WORDS[:3] + WORDS[6:]) for _ in range(chance.randint(4, 12))]
    words[chance.randrange(len(words))] = chance.choice(ANIMALS)
    return words


def _row(task: str, chance: random.Random) -> dict[str, Any]:
    words = sentence(chance)
    text = " ".join(words)
    (at,) = [place for place, word in enumerate(words) if word in ANIMALS]
    if task == "text-classification":
        return {"text": text, "label": words[at]}
    if task == "token-classification":
        tags = ["B-animal" if word in ANIMALS else "O" for word in words]
        return {"tokens": words, "ner_tags": tags}
    if task == "question-answering":
        answer = {"text": [words[at]], "answer_start": [text.index(words[at])]}
        return {"question": "who sings ?", "context": text, "answers": answer}
    return {"text": text}


def data(folder: Path, task: str, train: int = 32, test: int = 12) -> str:
    """JSON lines for both splits; returns the folder."""
    chance = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        rows = [json.dumps(_row(task, chance)) for _ in range(count)]
        (folder / f"{split}.json").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(folder)


def recipe(place: Path, task: str, **changes: Any) -> dict[str, Any]:
    """A recipe as plain data, with its teacher and data written below `place`."""
    found: dict[str, Any] = {
        "task": task,
        "data": {
            "path": data(place / f"data-{task}", task),
            "evaluation": "test",
            "max_length": 24,
        },
        "teacher": {"model": teacher(place / "teacher"), "training": dict(TRAINING)},
        "student": {"size": "L2-H16-A2-F24", "init": "extract"},
        "training": dict(TRAINING),
        "seed": 3,
    }
    if task == "text":
        del found["teacher"]["training"]
    return {**found, **changes}


def interrupt(patch: pytest.MonkeyPatch, kind: Any, step: int) -> None:
    """Let a kind of trainer be stopped after so many steps."""
    plain = kind.training_step

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    patch.setattr(kind, "training_step", cut)
