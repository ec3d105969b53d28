"""A tokenizer as it is handed over: with a length limit, without traces of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TRACES = ("is_local", "local_files_only", "name_or_path", "_commit_hash")


def save_tokenizer(tokenizer: Any, folder: Path, positions: int) -> None:
    """Save a tokenizer beside its model.

    Args:
        tokenizer: A Hugging Face tokenizer. It is not changed.
        folder: The model's folder.
        positions: The model's number of positions: texts are cut there where `truncation=True` is
            asked for. Without it some published tokenizers do not cut at all.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for trace in _TRACES:
        config.pop(trace, None)
    config["model_max_length"] = min(positions, tokenizer.model_max_length)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and type(backend.model).__name__ == "WordPiece":
        # What tools outside transformers read.
        backend.model.save(str(folder))
