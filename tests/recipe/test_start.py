"""What a student begins with, where the recipe's own examples decide on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked
from hf_distill.recipe.run import Request, run
from hf_distill.recipe.start import SCORED_ON
from hf_distill.student.indices import IndexSets
from tests.recipe import examples

SIZE = "L2-H16-A2-F24"


def _sets(found: dict[str, Any], output: Path, student: dict[str, Any]) -> IndexSets:
    """What a run with this student keeps of its teacher."""
    recipe = checked({**found, "student": {"size": SIZE, **student}}, "recipe.yaml")
    run(Request(recipe=recipe, name="tiny", output=output))
    return IndexSets.load(output / "student")


@pytest.mark.parametrize(
    "task", ["text-classification", "token-classification", "question-answering", "text"]
)
def test_importance_is_taken_from_the_recipes_examples(task: str, tmp_path: Path) -> None:
    """A student by importance that is cut by magnitude is published under the wrong name."""
    found = examples.recipe(tmp_path, task)
    scored = _sets(found, tmp_path / "scored", {"how": "importance"})
    again = _sets(found, tmp_path / "again", {"how": "importance", "scored_on": SCORED_ON})
    fewer = _sets(found, tmp_path / "fewer", {"how": "importance", "scored_on": 2})
    plain = _sets(found, tmp_path / "plain", {"how": "magnitude"})
    assert scored == again
    assert scored not in (plain, fewer)
    card = (tmp_path / "scored" / "student" / "README.md").read_text(encoding="utf-8")
    assert "by importance" in card


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ({"how": "magnitude", "scored_on": 5}, "free of scored_on beside how magnitude, got 5"),
        ({"init": "random", "how": "stride"}, "free of how beside init random"),
        ({"init": "random", "rescale_qk": True}, "free of rescale_qk beside init random"),
        ({"how": "importance", "scored_on": 0}, "scored_on"),
    ],
)
def test_settings_that_could_only_be_ignored_are_refused(
    student: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A control from random weights that seems to be cut by some rule."""
    found = examples.recipe(tmp_path, "text-classification", student={"size": SIZE, **student})
    with pytest.raises(RecipeError, match=message):
        checked(found, "recipe.yaml")


@pytest.mark.parametrize("embeddings", [{"rank": 4}, {"rank": 4, "freeze": True}])
def test_factorised_embeddings_are_an_ordinary_table_in_the_end(
    embeddings: dict[str, Any], tmp_path: Path
) -> None:
    """A student that plain transformers loads with random words, or a setting without effect."""
    found = examples.recipe(tmp_path, "text-classification")
    found["student"] = {"size": SIZE, "embeddings": embeddings}
    recipe = checked(found, "recipe.yaml")
    run(Request(recipe=recipe, name="tiny", output=tmp_path / "out", baseline=True))
    folder = tmp_path / "out" / "student"
    assert not [path.name for path in folder.iterdir() if path.name.startswith("_")]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    table = model.get_input_embeddings().weight.detach()
    rows = table[[row for row in range(len(table)) if row != model.config.pad_token_id]]
    assert torch.linalg.matrix_rank(rows - rows.mean(dim=0), tol=1e-4) == 4


def test_frozen_embeddings_are_the_ones_that_were_cut(tmp_path: Path) -> None:
    """A table that is still trained costs the time that freezing was to save."""
    found = examples.recipe(tmp_path, "text-classification")

    def words(folder: Path) -> torch.Tensor:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        return model.get_input_embeddings().weight.detach()

    for name, asked in {"frozen": {"freeze": True}, "trained": None}.items():
        student = {"size": SIZE, "embeddings": asked}
        sets = _sets(found, tmp_path / name, student)
        start = words(tmp_path / name / "teacher")[:, list(sets.hidden)]
        assert torch.equal(words(tmp_path / name / "student"), start) == (name == "frozen")


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ({}, "must name a rank, or freeze: true, got neither"),
        ({"freeze": True, "center": False}, "must be free of center without a rank"),
        ({"rank": 0}, "rank"),
    ],
)
def test_embeddings_that_say_nothing_are_refused(
    embeddings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A section that changes nothing looks like one that did."""
    found = examples.recipe(tmp_path, "text-classification")
    found["student"] = {"size": SIZE, "embeddings": embeddings}
    with pytest.raises(RecipeError, match=message):
        checked(found, "recipe.yaml")
