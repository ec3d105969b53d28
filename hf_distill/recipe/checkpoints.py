"""Ordinary checkpoints: written whole or not at all, and without traces of how they were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, Trainer

_TRACES = ("training_args.bin", "_distillation_heads.safetensors")
"""What the trainers write beside a model for themselves."""
_UNLIMITED = 10**9
_AFTER_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta"}
"""Families whose positions are counted from the one after the padding token's."""


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


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
            f"tokenizer of teacher.model must be a fast one, got {type(tokenizer).__name__!r}. "
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


def export(
    trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path, files: dict[str, str]
) -> None:
    """Write a trained model as an ordinary checkpoint. Every process must call it.

    Args:
        trainer: Whose model it is.
        tokenizer: Goes beside it.
        folder: Where; it is there whole, or not at all.
        files: Name -> text of what else goes into it.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        for trace in _TRACES:
            (partial / trace).unlink(missing_ok=True)
        save_tokenizer(tokenizer, partial)
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    trainer.accelerator.wait_for_everyone()


def last_complete(folder: Path, processes: int) -> str | None:
    """The newest checkpoint that was written to its end; None where there is none.

    The Trainer writes trainer_state.json last, after each process wrote its random state.
    """
    found = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdecimal()]
    for checkpoint in sorted(found, key=lambda each: int(each.name[11:]), reverse=True):
        if _is_complete(checkpoint, processes):
            return str(checkpoint)
    return None


def _is_complete(checkpoint: Path, processes: int) -> bool:
    one = processes == 1
    states = ["rng_state.pth"] if one else [f"rng_state_{at}.pth" for at in range(processes)]
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / each).is_file() for each in states)
