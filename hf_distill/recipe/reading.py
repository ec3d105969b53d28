"""YAML in, a checked recipe out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hf_distill.recipe.classes import objective_faults, training_faults
from hf_distill.recipe.faults import Fault, RecipeError, from_pydantic
from hf_distill.recipe.schema import TASKS, Recipe

_COMMAND_LINE = "--set"


class _Loader(yaml.SafeLoader):
    """YAML as it is meant: 5e-5 is a number, and no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse what YAML's own loader answers with the last of two values."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise ValueError(
                    f"{key.value} must be given once, got it again in line "
                    f"{key.start_mark.line + 1}. Remove one."
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file.

    Args:
        path: The file.
        changes: "path.to.key=value", each as in YAML; they replace what the file says.

    Raises:
        FileNotFoundError: There is no such file.
        RecipeError: With every fault.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"recipe must be a YAML file, got {str(path)!r}, which is none. "
            "`hf-distill list recipes` shows those at hand."
        )
    found = _parsed(file.read_text(encoding="utf-8"), str(path))
    if not isinstance(found, dict):
        text = f"must be a mapping of keys, got {found!r}. Begin with `task:`."
        raise RecipeError(str(path), [Fault("recipe", text)])
    for change in changes:
        _apply(found, change)
    return checked(found, str(path))


def checked(found: dict[str, Any], file: str) -> Recipe:
    """The recipe in plain data.

    Raises:
        RecipeError: With every fault.
    """
    recipe, faults = None, []
    try:
        recipe = Recipe.model_validate(found)
    except ValidationError as error:
        faults = from_pydantic(error, Recipe)
    for place, section in _trainings(found):
        faults += training_faults(section.get("training"), f"{place}training")
        if place != "teacher.":
            faults += objective_faults(section.get("objectives"), section.get("mapping"), place)
    faults += _task_faults(found)
    if recipe is None or faults:
        raise RecipeError(file, faults)
    return recipe


def _trainings(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sections that can say how something is trained, with the beginning of their keys."""
    assistants = found.get("assistants")
    numbered = enumerate(assistants if isinstance(assistants, list) else [])
    sections = [("", found), ("teacher.", found.get("teacher"))]
    sections += [(f"assistants.{index}.", section) for index, section in numbered]
    yield from ((place, section) for place, section in sections if isinstance(section, dict))


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data: what was said, and the seed."""
    return {**recipe.model_dump(mode="json", exclude_unset=True), "seed": recipe.seed}


def written(recipe: Recipe) -> str:
    """The recipe as YAML that `read` takes."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=100)


def _parsed(text: str, file: str) -> Any:
    try:
        # A subclass of the safe loader: plain data only.
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise RecipeError(file, [Fault("recipe", f"must be YAML, got: {told}.")]) from error
    except ValueError as error:
        raise RecipeError(file, [Fault("recipe:", str(error))]) from error


def _apply(found: dict[str, Any], change: str) -> None:
    path, equals, value = change.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        text = f"must be path.to.key=value, got {change!r}. Such as training.learning_rate=1e-4."
        raise RecipeError("command line", [Fault(_COMMAND_LINE, text)])
    section: Any = found
    for depth, key in enumerate(keys):
        slot = _slot(section, key)
        if slot is None:
            told = f"a list of {len(section)}" if isinstance(section, list) else "a value"
            text = f"must lead to a key, got {change!r}. {'.'.join(keys[:depth])} is {told}."
            raise RecipeError("command line", [Fault(_COMMAND_LINE, text)])
        if depth == len(keys) - 1:
            section[slot] = _parsed(value, f"{_COMMAND_LINE} {path}")
        elif isinstance(section, dict) and section.get(slot) is None:
            section[slot] = {}
        section = section[slot]


def _slot(section: Any, key: str) -> str | int | None:
    """Where a key's value stands in a section or a list of them; None where it cannot."""
    if isinstance(section, dict):
        return key
    listed = isinstance(section, list) and key.isdecimal() and int(key) < len(section)
    return int(key) if listed else None


def _task_faults(found: dict[str, Any]) -> list[Fault]:
    """Keys that other tasks read, and this one would not."""
    name, data = found.get("task"), found.get("data")
    if not isinstance(name, str) or name not in TASKS:
        return []
    read_by_some = frozenset().union(*(task.columns for task in TASKS.values()))
    given = set(data) if isinstance(data, dict) else set()
    keys = {f"data.{key}" for key in (given & read_by_some) - TASKS[name].columns}
    if name != "text-classification" and "metrics" in found:
        keys.add("metrics")
    text = f"must be left out for task {name}, got a value. Nothing reads it there."
    pair = name == "text" and isinstance(data, dict) and isinstance(data.get("text"), list)
    single = Fault("data.text", "must be one column for task text, got several. Name one of them.")
    faults = [Fault(key, text) for key in sorted(keys)] + ([single] if pair else [])
    teacher = found.get("teacher")
    if name == "text" and isinstance(teacher, dict) and teacher.get("models") is not None:
        text = "must be one model for task text, got several. Encoders predict nothing to average."
        faults.append(Fault("teacher.models", text))
    return faults
