"""Names in a recipe become objectives and arguments, here and nowhere else."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import TrainingArguments

from hf_distill import objectives as catalogue
from hf_distill.mapping import check_mapping
from hf_distill.objectives.base import Objective
from hf_distill.objectives.schedule import Schedule, extremes
from hf_distill.recipe.faults import Fault, RecipeError, nearest, unknown_key
from hf_distill.recipe.schema import Recipe
from hf_distill.training.defaults import LayerMapping, Objectives
from hf_distill.training.resuming import LENGTH_GROUPED

_OWN_KEYS = ("type", "weight", "mapping")
_SAID_ELSEWHERE = {
    "output_dir": "Name the run's folder with --output or the key output.",
    "seed": "Use the recipe's own key seed.",
}
_SAMPLING = ("train_sampling_strategy", "group_by_length")
"""What newer and older transformers call length grouping."""


def objectives_of(recipe: Recipe) -> Objectives | None:
    """Name -> (weight, objective), None for the head's default."""
    if recipe.objectives is None:
        return None
    return {
        name: (_scheduled(term.get("weight", 1.0)), _build(term))
        for name, term in recipe.objectives.items()
    }


def mapping_of(recipe: Recipe) -> LayerMapping | None:
    """The layer mapping, for all terms or by the term's name."""
    named = {
        name: term["mapping"]
        for name, term in (recipe.objectives or {}).items()
        if term.get("mapping") is not None
    }
    if not named or recipe.objectives is None:
        return recipe.mapping
    if recipe.mapping is None:
        return named
    return {name: named.get(name, recipe.mapping) for name in recipe.objectives}


def arguments_of(given: dict[str, Any], key: str, output: Path, seed: int) -> TrainingArguments:
    """The arguments of one training; it can be resumed, unless the recipe says otherwise.

    Raises:
        RecipeError: The fields contradict each other.
    """
    types = _argument_types()
    typed = {name: TypeAdapter(types[name]).validate_python(each) for name, each in given.items()}
    no_accelerator = not torch.accelerator.is_available()
    usual: dict[str, Any] = {
        "save_total_limit": 1,
        "logging_steps": 50,
        # Without it several processes on CPUs would each train by itself: `accelerate launch` does
        # not hand the `use_cpu` of its configuration on.
        "use_cpu": no_accelerator,
        "dataloader_pin_memory": not no_accelerator,
        # Sentences of like length share a batch: less padding.
        **LENGTH_GROUPED,
    }
    if "save_steps" not in given:
        usual["save_strategy"] = "epoch"
    try:
        return TrainingArguments(output_dir=str(output), seed=seed, **usual | typed)
    except (ValueError, ImportError) as error:
        told = str(error).rstrip(".")
        text = f"must be arguments that go together, got: {told}. Correct the fields named."
        raise RecipeError("recipe", [Fault(key, text)]) from error


def objective_faults(found: Any, mapping: Any, place: str = "") -> list[Fault]:
    """What is wrong with the terms of a recipe's mixture, and with its layer mapping.

    Args:
        found: The terms.
        mapping: The layer mapping.
        place: What their keys begin with, as in `assistants.0.`.
    """
    # What is no name was checked with the other values of the recipe.
    faults = list(_mapping_faults(mapping, f"{place}mapping")) if isinstance(mapping, str) else []
    if not isinstance(found, dict):
        return faults
    if not found:
        text = "must name at least one term, got none. Leave it out for the head's default."
        faults.append(Fault(f"{place}objectives", text))
    for name, term in found.items():
        if isinstance(term, dict):
            faults += _term_faults(term, f"{place}objectives.{name}")
    return faults


def training_faults(found: Any, path: str) -> list[Fault]:
    """What is wrong with the fields of `TrainingArguments`, each by itself."""
    if not isinstance(found, dict):
        return []
    types, faults = _argument_types(), []
    for name, value in found.items():
        key = f"{path}.{name}"
        if name in _SAID_ELSEWHERE:
            text = f"must be left out, got {value!r}. {_SAID_ELSEWHERE[name]}"
            faults.append(Fault(key, text))
        elif name not in types:
            text = f"must be a field of TrainingArguments, got {name!r}. {_meant(name, types)}"
            faults.append(Fault(key, text))
        else:
            faults += _value_faults(types[name], value, key)
    return faults


def _meant(name: Any, types: dict[str, Any]) -> str:
    if name in _SAMPLING:
        ((field, value),) = LENGTH_GROUPED.items()
        said = f"{field}: {str(value).lower()}"
        return f"This transformers says {said}, which recipes do without being told."
    return nearest(str(name), types) or "See transformers' documentation."


def _value_faults(hint: Any, value: Any, key: str) -> Iterator[Fault]:
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        rule = error.errors()[0]["msg"].removeprefix("Input should be ").rstrip(".")
        yield Fault(key, f"must be {rule}, got {value!r}. See TrainingArguments.")


def _mapping_faults(mapping: Any, key: str) -> Iterator[Fault]:
    try:
        check_mapping(mapping)
    except ValueError as error:
        yield Fault(key, str(error).removeprefix("mapping "))


def _term_faults(term: dict[str, Any], path: str) -> Iterator[Fault]:
    if term.get("mapping") is not None:
        yield from _mapping_faults(term["mapping"], f"{path}.mapping")
    yield from _weight_faults(term.get("weight", 1.0), f"{path}.weight")
    try:
        kind = _objective_class(term.get("type"))
    except ValueError as error:
        yield Fault(f"{path}.type", str(error))
        return
    settings = {field.name for field in fields(kind)}
    unknown = set(term) - settings - set(_OWN_KEYS)
    for key in sorted(map(str, unknown)):
        yield unknown_key(key, [*_OWN_KEYS, *settings], path=f"{path}.{key}")
    if not unknown:
        try:
            _build(term)
        except (ValueError, TypeError) as error:
            setting, _, rest = str(error).partition(" ")
            if setting in settings:
                yield Fault(f"{path}.{setting}", rest)
            else:
                yield Fault(path, f"must have settings that fit, got: {error}")


def _weight_faults(weight: Any, path: str) -> Iterator[Fault]:
    try:
        numbers = extremes(_scheduled(weight))
    except (ValueError, TypeError) as error:
        yield Fault(path, f"must be a number or a schedule, got {weight!r}. {error}")
        return
    if any(isinstance(n, bool) or not isinstance(n, int | float) or n < 0 for n in numbers):
        text = f"must be a number >= 0, got {weight!r}. Leave a term out instead of subtracting it."
        yield Fault(path, text)


def _scheduled(value: Any) -> Any:
    """A schedule where a mapping with a start stands; anything else as it is."""
    is_schedule = isinstance(value, dict) and {"start", "end"} <= set(value)
    return Schedule(**value) if is_schedule else value


def _objective_class(name: Any) -> type[Objective]:
    """The class of that name in the catalogue, or at that dotted path."""
    if name in catalogue.__all__:
        found: type[Objective] = getattr(catalogue, name)
        return found
    known = ", ".join(catalogue.__all__)
    if not isinstance(name, str) or "." not in name:
        remedy = nearest(str(name), catalogue.__all__) or "Or give a dotted path to a class."
        raise ValueError(f"must be one of {known}, got {name!r}. {remedy}")
    module, _, attribute = name.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        told = str(error).rstrip(".")
        raise ValueError(f"must be importable, got {name!r}. It failed with: {told}.") from error
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise ValueError(f"must be a subclass of Objective, got {name!r}. Derive it.")
    return kind


def _build(term: dict[str, Any]) -> Objective:
    settings = {name: _scheduled(value) for name, value in term.items() if name not in _OWN_KEYS}
    return _objective_class(term.get("type"))(**settings)


@cache
def _argument_types() -> dict[str, Any]:
    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: hints[field.name] for field in fields(TrainingArguments) if field.init}
