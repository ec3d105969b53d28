"""Ordinary checkpoints: written whole or not at all, and without traces of how they were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import PreTrainedTokenizerBase, Trainer

from hf_distill.release.tokenizer import save_tokenizer
from hf_distill.student.factorised import FACTORS_FILE

_TRACES = ("training_args.bin", "_distillation_heads.safetensors", FACTORS_FILE)
"""What the trainers write beside a model for themselves."""


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole, or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


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
