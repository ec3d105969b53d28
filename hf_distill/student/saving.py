"""A student as an ordinary checkpoint: written whole, or not at all."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.release.tokenizer import save_tokenizer
from hf_distill.student.indices import IndexSets
from hf_distill.student.report import REPORT_FILE

_TYPES = "token_type_ids"


def check_free(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: It does, or it is no folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(
            f"--out must be a new or an empty folder, got {str(folder)!r}. Name another."
        )


def save_student(
    folder: Path,
    model: PreTrainedModel,
    indices: IndexSets,
    report: str,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    """Write config, weights, tokenizer, extraction.json and report.md.

    Args:
        folder: Where; it is there whole, or not at all.
        model: The student.
        indices: What was kept of the teacher.
        report: The text of report.md.
        tokenizer: The one that the student reads with, where there is one. It is made to give no
            token types if the student takes none.

    Raises:
        ValueError: The folder holds something.
    """
    check_free(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    if tokenizer is not None:
        if _TYPES not in inspect.signature(model.forward).parameters:
            names = [name for name in tokenizer.model_input_names if name != _TYPES]
            tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names
        save_tokenizer(tokenizer, partial)
    indices.save(partial)
    (partial / REPORT_FILE).write_text(report, encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
