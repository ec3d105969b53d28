"""A tokenizer as it is handed over: with a length limit, without traces of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

_UNLIMITED = 10**9
_AFTER_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta"}
"""Families whose positions are counted from the one after the padding token's."""


def positions(config: Any) -> int | None:
    """Tokens that a model can read, None where its family has no limit of its own."""
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and config.model_type in _AFTER_PADDING:
        most -= (config.pad_token_id or 0) + 1
    return most


def load_tokenizer(source: str, config: Any) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, cutting at what that model can read.

    Raises:
        ValueError: It is not a fast one.
    """
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer must be a fast one, got {type(tokenizer).__name__!r}. "
            "Save its fast version beside the model."
        )
    most = positions(config)
    if most is not None and tokenizer.model_max_length > _UNLIMITED:
        # Without a limit of its own, `truncation=True` alone would cut nothing.
        tokenizer.model_max_length = most
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer without what it remembers of this machine, for readers of vocab.txt too."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for trace in ("is_local", "local_files_only", "name_or_path"):
        settings.pop(trace, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if json.loads(backend.to_str())["model"]["type"] == "WordPiece":
        vocabulary = backend.get_vocab(with_added_tokens=False)
        pieces = sorted(vocabulary, key=vocabulary.__getitem__)
        (folder / "vocab.txt").write_text("".join(f"{each}\n" for each in pieces), encoding="utf-8")
