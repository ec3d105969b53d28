"""Where a student comes from: what its card says of teachers, assistants and first weights."""

from __future__ import annotations

from typing import NamedTuple

from hf_distill.recipe.chain import FIRST, links
from hf_distill.recipe.models import published
from hf_distill.recipe.schema import Recipe, Student
from hf_distill.release.names import shown_name
from hf_distill.training.teaching import described


class Lineage(NamedTuple):
    """Of one student."""

    teacher_name: str
    teachers: list[str]
    """Their names, where there are several."""
    assistants: list[str]
    """Their labels, first to last."""
    origin: str
    """Who its weights were cut out of, where they were."""
    base_model: str | None
    """The model whose weights it began with."""


def assistant_label(index: int) -> str:
    """What results and cards call the assistant of that index, from 0."""
    return f"assistant {index + 1}"


def assistant_name(name: str, index: int) -> str:
    """The name of that assistant's own run, in the run of a name."""
    return f"{name}-assistant-{index + 1}"


def lineages(recipe: Recipe, name: str) -> list[Lineage]:
    """Of every assistant as its own run tells it, and last of the student.

    Args:
        recipe: The recipe.
        name: Of the run.
    """
    chain = links(recipe)
    first = published(recipe.teacher.leading)
    base: str | None = first
    labels = [assistant_label(index) for index in range(len(chain) - 1)]
    found = []
    for index, link in enumerate(chain):
        is_student = index == len(labels)
        base = _base_model(link.student, base, first)
        origin = labels[-1] if is_student and labels else "the teacher"
        told = Lineage(
            _teacher_name(recipe),
            [] if recipe.teacher.models is None else list(map(published, recipe.teacher.names)),
            labels if is_student else [],
            _origin(link.student, origin),
            base,
        )
        if 0 < index < len(labels):
            told = told._replace(teacher_name=assistant_name(name, index - 1), teachers=[])
        found.append(told)
    return found


def _teacher_name(recipe: Recipe) -> str:
    asked = recipe.teacher
    names = list(map(published, asked.names))
    name = names[0] if asked.models is None else described(asked, names)
    if asked.training is None:
        return name
    seeds = "" if asked.models is None else ", each with another seed"
    return f"{shown_name(name).rpartition('/')[2]} fine-tuned on the same examples{seeds}"


def _base_model(student: Student, teacher: str | None, first: str) -> str | None:
    if student.model is not None:
        return student.model
    if student.init == "random":
        return None
    return {None: teacher, FIRST: first}.get(student.cut_from, student.cut_from)


def _origin(student: Student, teacher: str) -> str:
    named = {None: teacher, FIRST: "the teacher"}.get(student.cut_from)
    return shown_name(str(student.cut_from)) if named is None else named
