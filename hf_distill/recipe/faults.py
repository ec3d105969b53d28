"""What is wrong with a recipe: all of it at once, each with file and key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError


class Fault(NamedTuple):
    """One thing to correct."""

    key: str
    """Dotted path in the recipe, as `--set` takes it."""
    text: str
    """What follows the key: "must be <rule>, got <value!r>. <remedy>."."""


class RecipeError(ValueError):
    """A recipe that cannot be run, with every fault that was found."""

    def __init__(self, file: str, faults: Sequence[Fault]) -> None:
        """One line per fault."""
        self.faults = list(faults)
        super().__init__("\n".join(f"{file}: {fault.key} {fault.text}" for fault in self.faults))


def unknown_key(key: str, known: Iterable[str], *, path: str) -> Fault:
    """A key that means nothing there, with the name that was likely meant."""
    known = sorted(known)
    remedy = nearest(key, known) or f"Known keys: {', '.join(known)}."
    return Fault(path, f"must be a known key, got {key!r}. {remedy}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The question which of the known names was meant, empty where none is near."""
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f"Did you mean {folded[near[0]]!r}?" if near else ""


def from_pydantic(error: ValidationError, model: Any) -> list[Fault]:
    """The faults that pydantic found in data for `model`."""
    found: dict[str, Fault] = {}
    for each in error.errors():
        fault = _translated(each, model)
        # Where a key may be of several kinds, pydantic says what is wrong with each of them.
        found.setdefault(fault.key, fault)
    return list(found.values())


def _translated(error: Any, model: Any) -> Fault:
    place = [str(part) for part in error["loc"] if not _is_branch(part)]
    path, value = ".".join(place) or "recipe", error["input"]
    section = _section(model, place[:-1])
    fields = getattr(section, "model_fields", {})
    if error["type"] == "extra_forbidden":
        return unknown_key(place[-1], fields, path=path)
    field = fields.get(place[-1]) if place else None
    about = (getattr(field, "description", None) or "Correct it").rstrip(".")
    if error["type"] == "missing":
        return Fault(path, f"must be given, got nothing. It is: {about}.")
    if error["type"] == "value_error":
        return Fault(path, str(error["ctx"]["error"]))
    rule = error["msg"].removeprefix("Input should be ").rstrip(".")
    options = str(error.get("ctx", {}).get("expected", "")).replace("'", " ").replace(",", " ")
    hint = nearest(value, options.split()) if isinstance(value, str) else ""
    return Fault(path, f"must be {rule}, got {value!r}. {hint or f'It is: {about}.'}")


def _is_branch(part: int | str) -> bool:
    """Whether pydantic names the branch of a union here, and not a key."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)


def _section(model: Any, place: Sequence[str]) -> Any:
    for part in place:
        if part.isdecimal():
            # Of a list of sections, each is one.
            model = next(iter(get_args(model)), None)
            continue
        field = getattr(model, "model_fields", {}).get(part)
        model = None if field is None else field.annotation
    return model
