"""What a student begins with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from hf_distill.recipe.chain import FIRST
from hf_distill.recipe.models import loaded
from hf_distill.recipe.training import Site
from hf_distill.student import (
    Importance,
    IndexSets,
    extract,
    factorise_embeddings,
    freeze_embeddings,
    fresh,
    importance,
)

SCORED_ON = 2048
"""Examples that importance is taken from, unless a recipe says how many."""
_BATCH = 32


class Start(NamedTuple):
    """A student before its first step."""

    model: PreTrainedModel
    indices: IndexSets | None
    """What was cut out of the teacher, where it was."""


def begin_student(site: Site, teacher: PreTrainedModel) -> Start:
    """The student: cut out of a model, random in its shape, or loaded. The same every time.

    Args:
        site: Of its training.
        teacher: The one whose weights are cut, unless the recipe names another.

    Raises:
        ValueError: A loaded model has the classes in another order, or embeddings that cannot be
            factorised so.
    """
    start = _begun(site, teacher)
    asked = site.recipe.student.embeddings
    if asked is not None and asked.rank is not None:
        factorise_embeddings(start.model, asked.rank, center=asked.center, freeze=asked.freeze)
    elif asked is not None:
        freeze_embeddings(start.model)
    return start


def _begun(site: Site, teacher: PreTrainedModel) -> Start:
    recipe, asked = site.recipe, site.recipe.student
    if asked.size is None:
        return Start(loaded(recipe, str(asked.model), site.labels, "student.model"), None)
    if asked.cut_from not in (None, FIRST):
        teacher = loaded(recipe, str(asked.cut_from), site.labels, "student.cut_from")
    if asked.init == "random":
        return Start(fresh(teacher, asked.size, recipe.seed, dropout=asked.dropout), None)
    cut = extract(
        teacher,
        asked.size,
        how=_scores(site, teacher) if asked.how == "importance" else asked.how,
        layers=asked.layers,
        seed=recipe.seed,
        rescale_qk=asked.rescale_qk,
        dropout=asked.dropout,
    )
    return Start(cut.model, cut.indices)


def _scores(site: Site, teacher: PreTrainedModel) -> Importance:
    """What each unit of the teacher is worth to its loss on examples of the recipe's data."""
    return importance(teacher, _batches(site), seed=site.recipe.seed)


def _batches(site: Site) -> Iterator[Any]:
    """Training examples, drawn by seed: a data set may be sorted."""
    count = min(site.recipe.student.scored_on or SCORED_ON, len(site.data.train))
    drawn = site.data.train.shuffle(seed=site.recipe.seed).select(range(count))
    for first in range(0, count, _BATCH):
        yield site.data.collator([drawn[row] for row in range(first, min(first + _BATCH, count))])
