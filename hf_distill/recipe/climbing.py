"""The assistants of a chain: ordinary runs in the run's folder, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hf_distill.recipe.chain import links, taught_by
from hf_distill.recipe.lineage import assistant_label, assistant_name, lineages
from hf_distill.recipe.reading import plain
from hf_distill.recipe.training import Site

Say = Callable[[str], None]
Results = dict[str, Any]


def climb(
    request: Any, site: Site, run: Callable[[Any, Say], Results], say: Say
) -> tuple[Site, dict[str, Results]]:
    """Train the assistants that are not finished yet.

    Each stands in a folder of its own and can be used as it is. One that is finished is not run
    again, one that was interrupted is continued.

    Args:
        request: The `Request` of the whole chain.
        site: The whole chain's, with its teachers finished.
        run: Carries out a request.
        say: Is told what happens.

    Returns:
        The student's site, in which the last assistant teaches, and the results of each assistant
        by its label.
    """
    *assistants, student = links(site.recipe)
    told = lineages(site.recipe, request.name)
    teacher, first = _finished_teacher(site)
    found = {}
    for index, link in enumerate(assistants):
        label, folder = assistant_label(index), site.folder.assistant(index)
        asked = replace(
            request,
            recipe=taught_by(link, teacher, first),
            name=assistant_name(request.name, index),
            output=folder.path,
            baseline=False,
            overwrite=False,
            resume=True,
            lineage=told[index],
        )
        found[label] = run(asked, _announcing(say, label))
        kept = {key: each for key, each in teacher.items() if key == "dtype"}
        teacher = {"model": str(folder.student.resolve()), **kept}
    return site._replace(recipe=taught_by(student, teacher, first)), found


def _announcing(say: Say, label: str) -> Say:
    return lambda line: say(f"{label.capitalize()}: {line}")


def _finished_teacher(site: Site) -> tuple[dict[str, Any], str]:
    """The recipe's teacher after its fine-tuning, and the path of the one that leads."""
    asked = site.recipe.teacher
    names = asked.names
    if asked.training is not None:
        names = [str(site.folder.teacher_at(at, len(names)).resolve()) for at in range(len(names))]
    said = {key: each for key, each in plain(site.recipe)["teacher"].items() if key != "training"}
    if asked.models is None:
        return {**said, "model": names[0]}, names[0]
    return {**said, "models": names}, names[asked.lead or 0]
