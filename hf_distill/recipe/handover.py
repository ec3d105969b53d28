"""The model card of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_distill.recipe.lineage import Lineage
from hf_distill.recipe.schema import Data, Recipe
from hf_distill.recipe.start import Start
from hf_distill.release.card import DataFacts, Measured, ModelFacts, render
from hf_distill.release.names import shown_name
from hf_distill.training.trainer import DistillationTrainer

_LABELS = {
    "start": "student before training",
    "baseline": "the same start, trained without a teacher",
}


def card(
    recipe: Recipe,
    lineage: Lineage,
    start: Start,
    trainer: DistillationTrainer,
    results: Mapping[str, Any],
) -> str:
    """The README of the student.

    Args:
        recipe: The recipe.
        lineage: Where the student comes from.
        start: How the student began.
        trainer: What trained it.
        results: What stands in results.json.
    """
    sized = {label: _model(each) for label, each in results["sizes"].items()}
    sizes = {label: sized[label] for label in lineage.assistants}
    shown = _LABELS | {
        label: f"{label} (L{size.layers}-H{size.width})" for label, size in sizes.items()
    }
    data, examples = recipe.data, results["examples"]
    facts = trainer.describe(
        name=results["name"],
        student=sized["student"],
        teacher_name=lineage.teacher_name,
        teacher=sized["teacher"],
        teachers=lineage.teachers,
        assistants=[shown[label] for label in lineage.assistants],
        baselines={
            shown[label]: each
            for label, each in sized.items()
            if label not in ("student", "teacher")
        },
        initialisation=_initialisation(recipe, lineage, start),
        base_model=lineage.base_model,
        data=[_data(data, data.train, examples["train"])],
        evaluated_on=_data(data, results["evaluated_on"], examples["evaluation"]),
        scores={shown.get(label, label): each for label, each in results["scores"].items()},
        speeds={
            shown.get(label, label): {size: _speed(each) for size, each in found.items()}
            for label, found in results["speeds"].items()
        },
        machine=results["machine"],
        versions=results["versions"],
        command=results["command"],
    )
    return render(facts)


def _model(found: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(**{key: found[key] for key in ModelFacts.model_fields if key in found})


def _speed(found: Mapping[str, Any]) -> Measured:
    median, low, high = found["median"], found["lowest"], found["highest"]
    return Measured(value=median, low=low, high=high, runs=found["rounds"])


def _data(data: Data, split: str, examples: int) -> DataFacts:
    return DataFacts(
        name=data.path, dataset=data.path, config=data.name, split=split, examples=examples
    )


def _initialisation(recipe: Recipe, lineage: Lineage, start: Start) -> str:
    if recipe.student.model is not None:
        return f"the weights of {shown_name(recipe.student.model)}"
    if start.indices is None:
        return "random weights"
    kept = ", ".join(map(str, start.indices.sources))
    return f"cut out of {lineage.origin}: layers {kept}, by {recipe.student.how}"
