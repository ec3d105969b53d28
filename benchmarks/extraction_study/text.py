"""Plain text to learn from, text that is held out, and pairs whose likeness people have judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from scipy.stats import spearmanr
from transformers import AutoTokenizer, DataCollatorWithPadding

from hf_distill.evaluation.fidelity import embed, fidelity
from hf_distill.quickstart.text import held_out, python_sentences, sentences
from hf_distill.teacher.embedded import embedded_teacher

CORPORA = ("wikitext2", "gutenberg")
"""Beside the documentation of Python."""
HELD_OUT, PAIRS, MAX_LENGTH = 64, 400, 64
"""Sentences of each corpus; pairs of STS-B's validation split; tokens."""


@dataclass(frozen=True)
class Text:
    """The sentences of a study."""

    tokenizer: Any
    train: Dataset
    held_out: list[str]
    pairs: tuple[list[str], list[str]]
    gold: list[float]

    @property
    def collator(self) -> DataCollatorWithPadding:
        """Of training examples."""
        return DataCollatorWithPadding(self.tokenizer)

    def examples(self, texts: list[str]) -> Dataset:
        """As a model reads them."""
        encoded = self.tokenizer(texts, truncation=True, max_length=MAX_LENGTH)
        return Dataset.from_dict(dict(encoded))

    def embed(self, model: Any, texts: list[str]) -> torch.Tensor:
        """[texts, width], each of length 1."""
        return embed(model, self.tokenizer, texts, max_length=MAX_LENGTH)

    def fidelity(self, model: Any, taught: torch.Tensor) -> float:
        """Spearman correlation of cosines with the teacher's, over pairs of held-out sentences."""
        return fidelity(self.embed(model, self.held_out), taught)

    def similarity(self, model: Any) -> float:
        """Spearman correlation of cosines with what people said of STS-B's pairs."""
        left, right = self.pairs
        found = self.embed(model, [*left, *right])
        cosines = (found[: len(left)] * found[len(left) :]).sum(-1)
        return float(spearmanr(cosines.numpy(), self.gold).statistic)


def read_text(data: Path, limit: int | None = None) -> Text:
    """All text of the study, the same for every run.

    Args:
        data: Folder of wikitext2, gutenberg and stsb, each a folder of <split>.parquet.
        limit: Sentences of each corpus at most, for a trial.
    """
    found = [python_sentences()]
    for name in CORPORA:
        table = Dataset.from_parquet(str(data / name / "train.parquet"))
        prose = (sentence for text in table["text"] for sentence in sentences(text))
        found.append(list(dict.fromkeys(prose)))
    split = partial(held_out, count=HELD_OUT, seed=0)
    parts = [split(corpus[:limit]) for corpus in found]
    table = Dataset.from_parquet(str(data / "stsb" / "validation.parquet"))
    table = table.shuffle(seed=0).select(range(PAIRS))
    text = Text(
        AutoTokenizer.from_pretrained(embedded_teacher()),
        Dataset.from_dict({}),
        [sentence for _, kept in parts for sentence in kept],
        (list(table["sentence1"]), list(table["sentence2"])),
        list(table["label"]),
    )
    train = [sentence for rest, _ in parts for sentence in rest]
    return Text(text.tokenizer, text.examples(train), text.held_out, text.pairs, text.gold)
