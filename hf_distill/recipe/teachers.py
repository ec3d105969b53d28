"""The teachers of a run: loaded or fine-tuned, handed to the trainer, and measured as one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.cache.cache import read_about
from hf_distill.cache.folder import Folder
from hf_distill.recipe.checkpoints import export
from hf_distill.recipe.models import (
    base_of_teacher,
    finished_teacher,
    located,
    teacher_keys,
)
from hf_distill.recipe.reading import plain
from hf_distill.recipe.schema import Teacher
from hf_distill.recipe.training import Site, carried_out, plain_trainer, teacher_arguments
from hf_distill.release.tokenizer import load_tokenizer
from hf_distill.signals.head import Head, QuestionAnswering, head_of
from hf_distill.signals.signals import Demand
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.several import Ensemble, SeveralTeachers
from hf_distill.training.pairing import match_classes

_MADE_BY = "teacher.json"
"""Beside a teacher's weights: all that decided on them."""


def obtain_teachers(
    site: Site, say: Callable[[str], None] = lambda line: None
) -> tuple[list[PreTrainedModel], float | None]:
    """The teachers, fine-tuned first where the recipe asks for it; and the seconds that took.

    A teacher that a run left in the folder is taken if it was made of the same things.
    """
    fine_tuned = site.recipe.teacher.training is not None
    say("Teacher: fine-tuning, unless it is there already." if fine_tuned else "Teacher: loading.")
    spent = [_fine_tune(site, index) for index in untrained(site)]
    sources = teacher_sources(site)
    models = [finished_teacher(site.recipe, source, site.labels) for source in sources]
    return models, sum(spent) if spent else None


def untrained(site: Site) -> list[int]:
    """Which of the teachers are still to be fine-tuned."""
    asked = site.recipe.teacher
    if asked.training is None:
        return []
    return [index for index in range(len(asked.names)) if not _is_ours(site, index)]


def check_kept(site: Site) -> None:
    """Check that no finished teacher would be replaced: a cache may have been written of it.

    Raises:
        ValueError: One would.
    """
    count = len(site.recipe.teacher.names)
    places = (site.folder.teacher_at(index, count) for index in untrained(site))
    held = [place for place in places if place.exists()]
    if held:
        raise ValueError(
            f"output must be free of teachers that other settings made, got {str(held[0])!r}. Name "
            "another with --output, or replace it by `hf-distill train --overwrite`."
        )


def check_cache(site: Site) -> None:
    """Check that a cache that is named is there, and the teacher that it was written of.

    Raises:
        ValueError: There is no cache; or the teacher would be fine-tuned to be another.
    """
    named = site.recipe.cache_folder
    if named is None:
        return
    read_about(Folder(named))
    if untrained(site):
        raise ValueError(
            f"teacher.training must have been carried out before {named!r} was written, got no "
            f"such teacher in {str(site.folder.path)!r}. Name the --output that `hf-distill cache` "
            "was given; or the teacher that it left: --set 'teacher={model: FOLDER}'."
        )


def teacher_sources(site: Site) -> list[str]:
    """Where each finished teacher is loaded from."""
    names = site.recipe.teacher.names
    if site.recipe.teacher.training is None:
        return [located(name) for name in names]
    return [str(site.folder.teacher_at(index, len(names))) for index in range(len(names))]


def teachers_tokenizer(teacher: Teacher, configs: Sequence[Any]) -> PreTrainedTokenizerBase:
    """The tokenizer of the leading teacher.

    Raises:
        ValueError: It is not that of the others.
    """
    keys = teacher_keys(teacher)
    found = [
        load_tokenizer(located(name), config)
        for name, config in zip(teacher.names, configs, strict=True)
    ]
    lead = teacher.lead or 0
    for key, tokenizer in zip(keys, found, strict=True):
        if tokenizer.get_vocab() != found[lead].get_vocab():
            raise ValueError(
                f"{key} must have the vocabulary of {keys[lead]}, got another one. Teachers must "
                "share a tokenizer; take another teacher."
            )
    return found[lead]


def as_one(teacher: Teacher, models: Sequence[PreTrainedModel]) -> Any:
    """What a trainer takes for them."""
    if len(models) == 1:
        return models[0]
    return Ensemble(models, weights=teacher.weights, combine=teacher.combine, lead=teacher.lead)


def leading(teacher: Teacher, models: Sequence[PreTrainedModel]) -> PreTrainedModel:
    """The one whose weights a student is cut out of, and whose classes' order is the student's."""
    return models[teacher.lead or 0]


class Whole(nn.Module):
    """Several teachers as one model, which answers what they teach: to be measured as any other.

    All of them are on its device.
    """

    def __init__(self, teacher: Teacher, models: Sequence[PreTrainedModel]) -> None:
        """Take teachers of one kind of head; their classes are matched by name.

        Args:
            teacher: How they are combined.
            models: The teachers.
        """
        super().__init__()
        self.models = nn.ModuleList(models)
        lead = leading(teacher, models)
        self._head: Head = head_of(lead)
        live = [
            LiveTeacher(model, Demand(logits=True), self._head, classes=match_classes(lead, model))
            for model in models
        ]
        self._together = SeveralTeachers(
            live, self._head.problem, weights=teacher.weights, combine=teacher.combine
        )

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The head's outputs, as a model of transformers names them."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        inputs = {name: value for name, value in given.items() if value is not None}
        said: Any = self._together.show(inputs, self._head.targets(inputs)).logits
        if isinstance(self._head, QuestionAnswering):
            return {"start_logits": said[:, 0], "end_logits": said[:, 1]}
        return {"logits": said}


def measured(teacher: Teacher, models: Sequence[PreTrainedModel]) -> nn.Module:
    """The teachers as one model."""
    return models[0] if len(models) == 1 else Whole(teacher, models)


def _fine_tune(site: Site, index: int) -> float:
    """Write a teacher; the seconds that its training took."""
    recipe, folder, names = site.recipe, site.folder, site.recipe.teacher.names
    model = base_of_teacher(recipe, index, site.labels)
    arguments = teacher_arguments(recipe, folder, index)
    trained = carried_out(plain_trainer(site, model, arguments), site.resume)
    made_by = json.dumps(_made_by(site, index), indent=2) + "\n"
    place = folder.teacher_at(index, len(names))
    export(trained.trainer, site.tokenizer, place, {_MADE_BY: made_by})
    return trained.seconds


def _is_ours(site: Site, index: int) -> bool:
    folder: Path = site.folder.teacher_at(index, len(site.recipe.teacher.names))
    path = folder / _MADE_BY
    held = path.is_file() and json.loads(path.read_text(encoding="utf-8"))
    return bool(held == _made_by(site, index))


def _made_by(site: Site, index: int) -> dict[str, Any]:
    """All that decides on a teacher's weights; not how it is combined with others."""
    recipe, said = site.recipe, plain(site.recipe)
    alone = {"model": recipe.teacher.names[index], "training": said["teacher"]["training"]}
    return {
        "task": said["task"],
        "data": said["data"],
        "teacher": alone,
        "seed": recipe.teacher_seed(index),
        "labels": list(site.labels),
        "examples": len(site.data.train),
    }
