"""How long a recipe's batches are, and how much of them is padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_distill.recipe.classes import arguments_of
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked
from hf_distill.recipe.run import Request, run
from hf_distill.training.resuming import LENGTH_GROUPED
from hf_distill.training.trainer import DistillationTrainer
from tests.recipe import examples

TASKS = ("text-classification", "token-classification", "question-answering", "text")
NEWER = "train_sampling_strategy" in LENGTH_GROUPED
UNGROUPED: dict[str, Any] = (
    {"train_sampling_strategy": "random"} if NEWER else {"group_by_length": False}
)


class Told:
    """What students' trainings logged, and how long their batches were."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.logs: list[dict[str, float]] = []
        self.lengths: set[int] = set()
        log, compute = DistillationTrainer.log, DistillationTrainer.compute_loss

        def logging(trainer: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            log(trainer, logs, *args, **kwargs)
            self.logs.append(trainer.state.log_history[-1])

        def computing(trainer: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.lengths.add(inputs["input_ids"].shape[1])
            return compute(trainer, model, inputs, *args, **kwargs)

        patch.setattr(DistillationTrainer, "log", logging)
        patch.setattr(DistillationTrainer, "compute_loss", computing)

    def values(self, name: str) -> list[float]:
        return [entry[name] for entry in self.logs if name in entry]


def told(recipe: dict[str, Any], output: Path, data: dict[str, Any], **training: Any) -> Told:
    """Carry out a recipe with changes of its data and of the student's training."""
    changed = {
        **recipe,
        "data": {**recipe["data"], **data},
        "training": {**recipe["training"], "logging_steps": 1, **training},
    }
    with pytest.MonkeyPatch.context() as patch:
        found = Told(patch)
        run(Request(checked(changed, "recipe.yaml"), "tiny", output))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_batches_are_a_multiple_long_and_learn_the_same(task: str, tmp_path: Path) -> None:
    """A task whose collator is not told pads as before; padding that is learnt changes losses."""
    recipe = examples.recipe(tmp_path, task)
    if task != "text":
        # Transformers' own loss of spans counts padding: one teacher, trained once.
        told(recipe, tmp_path / "first", {})
        recipe["teacher"] = {"model": str(tmp_path / "first" / "teacher")}
    plain = told(recipe, tmp_path / "plain", {})
    padded = told(recipe, tmp_path / "padded", {"pad_to_multiple_of": 16})
    assert any(length % 16 for length in plain.lengths)
    assert not any(length % 16 for length in padded.lengths)
    assert padded.values("loss") == pytest.approx(plain.values("loss"), rel=1e-5)
    assert sum(padded.values("padding_fraction")) > sum(plain.values("padding_fraction"))


def test_recipes_group_by_length_unless_told_otherwise(tmp_path: Path) -> None:
    """Half of the computation may be padding, and the log would not say why."""
    recipe = examples.recipe(tmp_path, "text-classification")
    recipe["data"]["path"] = examples.data(tmp_path / "more", "text-classification", train=128)
    options = {"max_steps": 16, "logging_steps": 16}
    usual = told(recipe, tmp_path / "usual", {}, **options)
    asked = told(recipe, tmp_path / "asked", {}, **options, **LENGTH_GROUPED)
    random = told(recipe, tmp_path / "random", {}, **options, **UNGROUPED)
    (grouped,) = usual.values("padding_fraction")
    assert asked.values("padding_fraction") == [grouped]
    assert grouped < random.values("padding_fraction")[0] / 2


@pytest.mark.parametrize("multiple", [0, -8, 2.5])
def test_multiples_below_one_are_refused(multiple: float, tmp_path: Path) -> None:
    """Division by zero, in the first batch."""
    recipe = examples.recipe(tmp_path, "text")
    recipe["data"]["pad_to_multiple_of"] = multiple
    with pytest.raises(RecipeError, match=r"data\.pad_to_multiple_of must be"):
        checked(recipe, "recipe.yaml")


def test_padding_beyond_the_positions_is_refused(tmp_path: Path) -> None:
    """An index error of the embeddings, at the first long text."""
    recipe = examples.recipe(tmp_path, "text")
    recipe["data"]["pad_to_multiple_of"] = 41
    with pytest.raises(ValueError, match=r"data\.pad_to_multiple_of must leave 24 tokens within"):
        told(recipe, tmp_path / "out", {})
    told(recipe, tmp_path / "fits", {"pad_to_multiple_of": 40})


def test_the_other_name_of_grouping_is_answered_with_this_one(tmp_path: Path) -> None:
    """Transformers renamed it: a recipe of the other version must say what to write."""
    recipe = examples.recipe(tmp_path, "text")
    other = {"group_by_length": True} if NEWER else {"train_sampling_strategy": "group_by_length"}
    said = "train_sampling_strategy: group_by_length" if NEWER else "group_by_length: true"
    recipe["training"] |= other
    with pytest.raises(RecipeError, match=f"This transformers says {said}"):
        checked(recipe, "recipe.yaml")
    assert arguments_of(dict(LENGTH_GROUPED), "training", tmp_path, 0)
