"""`teacher: {dtype: ...}`: what the teachers of a recipe are run in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill.recipe import training
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked, read
from hf_distill.recipe.run import Request, run
from hf_distill.training.trainer import DistillationTrainer
from tests.recipe import examples

HIDDEN = {"hidden": {"type": "HiddenMSE"}}


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """Of every teacher that a student was trained with, in order."""
    found: list[torch.dtype] = []

    def watched(*args: Any, **given: Any) -> DistillationTrainer:
        made = DistillationTrainer(*args, **given)
        found.append(next(made.teacher._model.parameters()).dtype)
        return made

    monkeypatch.setattr(training, "DistillationTrainer", watched)
    return found


def test_teachers_are_run_in_the_type_that_is_named(
    tmp_path: Path, types: list[torch.dtype]
) -> None:
    """A key that is read and forgotten; or a teacher that is measured, or cut, after rounding."""
    found = examples.recipe(tmp_path, "text-classification", objectives=HIDDEN)
    plain = run(Request(checked(found, "it.yaml"), "tiny", tmp_path / "plain"))
    found["teacher"]["dtype"] = "bfloat16"
    narrow = run(Request(checked(found, "it.yaml"), "tiny", tmp_path / "narrow"))
    assert types == [torch.float32, torch.bfloat16]
    assert narrow["scores"]["teacher"] == plain["scores"]["teacher"]
    assert narrow["sizes"]["teacher"] == plain["sizes"]["teacher"]
    card = (tmp_path / "narrow" / "student" / "README.md").read_text(encoding="utf-8")
    assert "run in bfloat16" in card


def test_every_teacher_of_a_chain_is_run_in_it(tmp_path: Path, types: list[torch.dtype]) -> None:
    """The assistant teaches the student: in another type, the recipe says what is not so."""
    found = examples.recipe(tmp_path, "text-classification", objectives=HIDDEN)
    found["assistants"] = [{"size": "L4-H16-A2-F24"}]
    found["teacher"]["dtype"] = "float16"
    run(Request(checked(found, "it.yaml"), "tiny", tmp_path / "out"))
    assert types == [torch.float16] * 2
    assistant = read(tmp_path / "out" / "assistants" / "1" / "recipe.yaml")
    assert assistant.teacher.dtype == "float16"


def test_other_types_are_refused(tmp_path: Path) -> None:
    """A type that is ignored is a teacher in float32, and nobody knows."""
    found = examples.recipe(tmp_path, "text-classification")
    found["teacher"]["dtype"] = "int8"
    with pytest.raises(RecipeError, match=r"teacher\.dtype.*'int8'"):
        checked(found, "it.yaml")
