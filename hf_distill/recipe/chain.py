"""A chain of teacher assistants: one recipe, taken apart into ordinary ones.

The teacher teaches the first assistant, each assistant the next, and the last one the student
(Mirzadeh et al.: Improved Knowledge Distillation via Teacher Assistant. 2019. arXiv:1902.03393).
"""

from __future__ import annotations

from typing import Any

from hf_distill.recipe.reading import checked, plain
from hf_distill.recipe.schema import Recipe

FIRST = "teacher"
"""What `cut_from` calls the first teacher of a chain."""
_OWN = ("training", "objectives", "mapping")
"""What an assistant can have of its own; the recipe's otherwise."""


def links(recipe: Recipe) -> list[Recipe]:
    """The recipe of every assistant, and of the student, as if the teacher taught each of them."""
    said = plain(recipe)
    assistants = said.pop("assistants", [])
    found = []
    for index, asked in enumerate(assistants):
        own = {key: asked.pop(key) for key in _OWN if key in asked}
        found.append(checked({**said, **own, "student": asked}, f"assistants.{index}"))
    return [*found, checked(said, "recipe")]


def taught_by(link: Recipe, teacher: dict[str, Any], first: str) -> Recipe:
    """A link's recipe with its own teacher.

    Args:
        link: One of `links`.
        teacher: What its recipe says of who teaches it.
        first: The path of the chain's first teacher.
    """
    said = {**plain(link), "teacher": teacher}
    if said["student"].get("cut_from") == FIRST:
        said["student"] = {**said["student"], "cut_from": first}
    return checked(said, "recipe")
