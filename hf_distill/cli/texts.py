"""Texts that a command reads: to score a teacher by, and to trim a vocabulary to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_PLAIN = (".txt", ".md", "")
_BATCH = 16


def read_texts(paths: Sequence[Path], key: str) -> list[str]:
    """The texts of files: each line of a plain one, the column `text` of a table.

    Args:
        paths: txt, md, parquet, csv, json or jsonl.
        key: The option that named them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The kind is unknown, there is no column of that name, or there is no text.
    """
    from hf_distill.quickstart.text import column

    found: list[str] = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{key} must be a file, got {str(path)!r}. Correct the name.")
        if path.suffix in _PLAIN:
            found += path.read_text(encoding="utf-8").splitlines()
        else:
            found += column(str(path), path.suffix.lstrip("."))
    texts = [text for text in found if text and text.strip()]
    if not texts:
        raise ValueError(f"{key} must hold text, got none in {[str(each) for each in paths]}.")
    return texts


def batches(texts: Sequence[str], tokenizer: Any, loss: str) -> Iterator[Any]:
    """Texts as a model takes them, those of like length together: padding is computed for nothing.

    Args:
        texts: The texts.
        tokenizer: The teacher's.
        loss: As `importance` takes it; its labels are made of the texts, where it needs any.
    """
    from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

    if tokenizer.pad_token is None:
        # Of a copy: the student is given the teacher's tokenizer as it is.
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token
    collator: Any = DataCollatorWithPadding(tokenizer)
    if loss != "hidden":
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=loss == "masked-lm")
    ordered = sorted(texts, key=len)
    for first in range(0, len(ordered), _BATCH):
        yield collator(
            [tokenizer(each, truncation=True) for each in ordered[first : first + _BATCH]]
        )
