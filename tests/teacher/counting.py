"""A teacher of which each number can be told by hand, and caches that are written of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from hf_distill.cache.about import About, Shown, Taught
from hf_distill.cache.cache import Cache
from hf_distill.cache.folder import Folder
from hf_distill.cache.keys import example_keys
from hf_distill.signals.head import Head, SequenceClassification, Targets
from hf_distill.signals.signals import Signals
from hf_distill.teacher.plan import Batches, Read
from hf_distill.teacher.writing import Crew, Writer, Written
from tests.training.runs import Example, collate

COLUMNS = ["input_ids", "attention_mask"]
CLASSES = 3


def head() -> Head:
    """Of a classifier."""
    return SequenceClassification(transformers.BertConfig(num_labels=CLASSES))


def sentences(count: int, first: int = 0) -> list[Example]:
    """Examples of 1 to 5 tokens, no two alike."""
    made = []
    for number in range(first, first + count):
        ids = [number + 3, *range(3, 3 + number % 5)]
        made.append({"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids)).int()})
    return made


def logits_of(ids: Sequence[int]) -> list[float]:
    """What the teacher says of a sentence."""
    return [float(sum(ids)), float(ids[0]), float(len(ids))]


def state_of(token: int) -> list[float]:
    """What it shows of a token."""
    return [float(token), float(token * token), 1.0, -float(token)]


class CountingTeacher:
    """Counts what it is asked, and answers with whole numbers."""

    def __init__(self, pause: float = 0.0) -> None:
        """Nobody has asked yet."""
        self.seen: list[int] = []
        """The first token of each example."""
        self._pause = pause

    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """Logits, and hidden states of layer 1."""
        time.sleep(self._pause)
        ids = inputs["input_ids"]
        rows = [row[real].tolist() for row, real in zip(ids, targets.mask, strict=True)]
        self.seen += [row[0] for row in rows]
        states = torch.stack([ids, ids**2, torch.ones_like(ids), -ids], -1).float()
        return Signals(
            targets.mask,
            logits=torch.tensor([logits_of(row) for row in rows]),
            rows=targets.rows,
            hidden={1: states},
        )


def about(name: str = "counting", **changes: Any) -> About:
    """What the cache of such a teacher says."""
    taught = Taught(name=name, model_class="BertModel", config={}, weights=f"of {name}")
    shown = {"logits": True, "layers": {"hidden": [1]}, "storage": "float32"}
    said: dict[str, Any] = {
        "teachers": [taught],
        "precision": "as loaded",
        "columns": COLUMNS,
        "head": "ForSequenceClassification",
        "problem": "single_label",
        "heads": 1,
        "shown": Shown(**{**shown, **changes.pop("shown", {})}),
    }
    return About(**{**said, **changes})


def reader(examples: Sequence[Example]) -> Read:
    """Reads batches of examples."""

    def read(batches: Batches) -> Iterable[Mapping[str, Tensor]]:
        return (collate([examples[index] for index in batch]) for batch in batches)

    return read


def writer(
    folder: Folder | str | Path, examples: Sequence[Example], teacher: Any, **changes: Any
) -> Writer:
    """Writes batches of 4, a file for each."""
    given: dict[str, Any] = {
        "about": about(),
        "read": reader(examples),
        "count": len(examples),
        "device": torch.device("cpu"),
        "batch_size": 4,
        "crew": Crew(),
        "shard_bytes": 1,
        "head": head(),
    }
    place = folder if isinstance(folder, Folder) else Folder(folder)
    return Writer(place, teacher=teacher, **{**given, **changes})


def write(
    folder: Folder | str | Path, examples: Sequence[Example], teacher: Any = None, **changes: Any
) -> Written:
    """Write a cache."""
    return writer(folder, examples, teacher or CountingTeacher(), **changes).write()


def write_slowly(folder: str, count: int) -> None:
    """The same with time to be stopped in; what a process of its own runs."""
    torch.set_num_threads(1)
    write(folder, sentences(count), CountingTeacher(pause=0.004))


def check_held(cache: Cache, examples: Sequence[Example]) -> None:
    """Each example is there, and every one of its rows is its own."""
    for example in examples:
        batch = collate([example])
        keys = example_keys(batch, head().targets(batch), COLUMNS, rows=True)
        places = cache.find(keys).tolist()
        ids = example["input_ids"].tolist()
        assert places[0] >= 0, ids
        assert cache.rows("logits", "sequence", places).tolist() == [logits_of(ids)]
        assert cache.rows("hidden.1", "token", places).tolist() == [state_of(one) for one in ids]
