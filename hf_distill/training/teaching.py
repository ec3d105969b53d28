"""Who teaches: from what a user names, one or several, to what shows signals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from hf_distill.architectures import plain_model
from hf_distill.cache.about import Taught
from hf_distill.objectives.base import Objective, Shape
from hf_distill.objectives.mixture import Mixture
from hf_distill.release.names import shown_name
from hf_distill.signals.head import Head, head_of
from hf_distill.signals.signals import LAYERED, Demand
from hf_distill.teacher.adapters import (
    Adapter,
    AdapterTeacher,
    check_adapter,
    without_adapters,
)
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.identity import taught_by
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.several import Ensemble, SeveralTeachers
from hf_distill.teacher.waiting import WaitingTeacher
from hf_distill.teacher.weights import (
    Dtype,
    cast_in_place,
    check_dtype,
    dtype_on,
    is_movable,
    spelt,
)
from hf_distill.training import card
from hf_distill.training.defaults import Objectives
from hf_distill.training.pairing import check_pair, load_teacher, match_classes, shape_of

_log = logging.get_logger(__name__)


class Teaching:
    """Who teaches one student: a model, an adapter of the student's own, or several together."""

    def __init__(self, teacher: Any, student: Any, head: Head, dtype: Dtype | None = None) -> None:
        """Load what is named by its path.

        Args:
            teacher: A model, a path or Hub id, an `Adapter`, or an `Ensemble` of these.
            student: The student.
            head: The student's head.
            dtype: What the teachers are run in; as they are without.

        Raises:
            ValueError: There is no such teacher, or it cannot be run in that type.
        """
        check_dtype(dtype)
        self._student, self._head, self._dtype = student, head, dtype
        self._ensemble = teacher if isinstance(teacher, Ensemble) else None
        self._named: Sequence[Any] = [teacher] if self._ensemble is None else teacher.teachers
        self._models: list[nn.Module] = []
        for index, one in enumerate(self._named):
            with self._blamed(index):
                self._models.append(self._model(one))
                if dtype is not None:
                    _check_castable(one, self._models[-1], dtype)
        self._lead = 0 if self._ensemble is None else self._ensemble.lead

    def usual(self, objectives: Objectives) -> Objectives:
        """Of a head's default objectives, those that these teachers can serve."""
        if self._lead is not None:
            return objectives
        return {name: term for name, term in objectives.items() if not _layered(term[1])}

    @property
    def shape(self) -> Shape:
        """The shape of the teacher whose layers are compared, if any are."""
        return shape_of(self._models[self._lead or 0])

    def check_objectives(self, objectives: Objectives) -> None:
        """Raise ValueError where several teachers cannot serve these objectives."""
        if self._ensemble is not None:
            check_together(objectives, self._lead)

    def teaches_logits(self) -> bool:
        """Whether all teachers have the student's kind of head."""
        return all(head_of(model).suffix == self._head.suffix for model in self._models)

    def check(self, mixture: Mixture, tokenizer: Any = None) -> None:
        """Check that the mixture can compare the student with every teacher.

        Raises:
            ValueError: With a remedy; of several teachers it names the one that does not fit.
        """
        logits = mixture.demands()[1].logits
        self._classes: list[list[int] | None] = []
        for index, model in enumerate(self._models):
            with self._blamed(index):
                leads = index == (self._lead if self._ensemble else 0)
                check_pair(self._student, model, mixture, tokenizer, layers=leads)
                self._classes.append(match_classes(self._student, model) if logits else None)

    def begin(
        self,
        demand: Demand,
        place: Callable[..., nn.Module],
        device: torch.device,
        *,
        sharded: bool = False,
    ) -> LiveTeacher | SeveralTeachers | CachedTeacher:
        """What shows the teachers' signals; after `check`.

        Args:
            demand: What the objectives need.
            place: Prepares a model on the accelerator; told `autocast=False`, in its own type.
            device: The accelerator. One of several teachers is on it at a time; on a CPU none is
                moved.
            sharded: Whether the student's weights are spread over processes.

        Raises:
            ValueError: A teacher cannot show what is demanded, or cannot be moved; or an adapter of
                a student that is sharded teaches.
        """
        if sharded and any(isinstance(one, Adapter) for one in self._named):
            raise ValueError(
                "an Adapter must teach a student that each process holds whole, got FSDP or "
                "DeepSpeed. Load the teacher as a model of its own."
            )
        how: dict[str, Any] = {"prepare": place}
        if self._dtype is not None:
            dtype = dtype_on(device, self._dtype)
            _log.info(f"Teachers are run in {spelt(dtype)}.")
            how = {"prepare": partial(place, autocast=False), "dtype": dtype}
        many = self._ensemble
        if many is None:
            return self._live(0, demand, how)
        if device.type != "cpu":
            how["device"] = device
        demands = [
            demand if index == many.lead else Demand(logits=True)
            for index in range(len(self._models))
        ]
        live = [self._live(index, asked, how) for index, asked in enumerate(demands)]
        return SeveralTeachers(
            live, self._head.problem, weights=many.weights, combine=many.combine, lead=many.lead
        )

    def saved_without(self) -> AbstractContextManager[None]:
        """A context in which the student is saved, without adapters that teach it."""
        own = [one.name for one in self._named if isinstance(one, Adapter) and one.name]
        return without_adapters(self._student, own) if own else nullcontext()

    def members(self) -> list[Taught]:
        """Who teaches, for a cache: weights as they were loaded, before any cast.

        Raises:
            ValueError: An adapter of the student's own teaches.
        """
        found = []
        for named, model in zip(self._named, self._models, strict=True):
            if isinstance(named, Adapter):
                raise ValueError(
                    f"a cached teacher must be a model of its own, got {named!r}. Load it as one, "
                    "or teach without a cache."
                )
            given = isinstance(named, nn.Module)
            # What was loaded from a path was cast in place.
            cast = not given and self._dtype is not None
            whole = load_teacher(named, self._head) if cast else model
            found.append(taught_by(whole, None if given else named))
        return found

    def together(self) -> dict[str, Any] | None:
        """How several teachers are combined, as `Ensemble` takes it."""
        return None if self._ensemble is None else self._ensemble.how

    def dismiss(self) -> None:
        """Let go of the teachers: a cache stands in for them."""
        self._models, self._named, self._ensemble = [], [], None

    def facts(self, device: torch.device) -> dict[str, Any]:
        """The fields of `CardFacts` that are about the teachers, who are run on a device."""
        dtype = None if self._dtype is None else spelt(dtype_on(device, self._dtype))
        return {**self._who(), "teacher_dtype": dtype}

    def _who(self) -> dict[str, Any]:
        pairs = list(zip(self._named, self._models, strict=True))
        names = [_name(one, model) for one, model in pairs]
        counted = [(model, _adapters(one)) for one, model in pairs]
        if self._ensemble is None:
            return {"teacher_name": names[0], "teacher": card.model_facts(*counted[0])}
        name = described(self._ensemble, names)
        return {"teacher_name": name, "teachers": names, "teacher": card.joint_facts(counted)}

    def _model(self, named: Any) -> nn.Module:
        if isinstance(named, Adapter):
            check_adapter(self._student, named)
            return self._student
        if not isinstance(named, nn.Module):
            return load_teacher(named, self._head)
        if plain_model(named) is plain_model(self._student):
            raise ValueError(
                "teacher must be another model than the student, got the same object. Load it "
                "again, or name another adapter of it: Adapter(name)."
            )
        return named

    def _live(self, index: int, demand: Demand, how: dict[str, Any]) -> LiveTeacher:
        named, model = self._named[index], self._models[index]
        with self._blamed(index):
            if isinstance(named, Adapter):
                return AdapterTeacher(model, demand, self._head, named)
            if "dtype" in how and not isinstance(named, nn.Module):
                cast_in_place(model, how["dtype"])
            kind = WaitingTeacher if "device" in how else LiveTeacher
            return kind(model, demand, self._head, classes=self._classes[index], **how)

    @contextmanager
    def _blamed(self, index: int) -> Iterator[None]:
        """Name the teacher that an error is about, where there are several."""
        try:
            yield
        except ValueError as error:
            if self._ensemble is None:
                raise
            named = self._named[index]
            name = card.named(named) if isinstance(named, nn.Module) else named
            raise ValueError(f"teachers[{index}] ({name}): {error}") from error


def check_together(objectives: Objectives, lead: int | None) -> None:
    """Check that several teachers can serve these objectives.

    Raises:
        ValueError: Layers are compared and no teacher leads; or nothing that the others say is.
    """
    kinds = {name: objective for name, (_, objective) in objectives.items()}
    layered = [name for name, objective in kinds.items() if _layered(objective)]
    if lead is None and (layered or not kinds):
        raise ValueError(
            "an Ensemble must name a lead where layers are compared, got none for objectives "
            f"{layered}. Give the index of one teacher, lead: 0, or compare logits alone."
        )
    if not any(each.reads_teacher and "logits" in each.needs for each in kinds.values()):
        raise ValueError(
            "objectives must compare logits where several teachers teach, got "
            f"{sorted(kinds)}: only the lead would be heard. Give it by itself."
        )


def _check_castable(named: Any, model: nn.Module, dtype: Dtype) -> None:
    """Raise ValueError unless a teacher can be run in a type of its own."""
    if isinstance(named, Adapter):
        raise ValueError(
            f"teacher_dtype must be left out for {named!r}, got {dtype!r}: the weights are the "
            "student's own. Load the teacher as a model of its own."
        )
    if not is_movable(model):
        raise ValueError(
            f"teacher_dtype must be left out for a model that is quantized or spread over devices, "
            f"got {dtype!r}. Load it in the type that it is to have."
        )


def described(how: Any, names: Sequence[str]) -> str:
    """In words, who teaches together and how: `how` has an Ensemble's weights and combine."""
    weights = "" if how.weights is None else f" weighted {', '.join(f'{w:g}' for w in how.weights)}"
    confident = " by confidence" if how.combine == "confidence" else ""
    # An organisation's name would make it look like a path.
    short = [shown_name(name).rpartition("/")[2] for name in names]
    return f"the mean{weights}{confident} of {', '.join(short[:-1])} and {short[-1]}"


def _layered(objective: Objective) -> bool:
    return bool(objective.needs.intersection(LAYERED))


def _name(named: Any, model: nn.Module) -> str:
    name = card.named(model)
    if not isinstance(named, Adapter):
        return name
    return f"{name} without adapters" if named.name is None else f"{name} with {named.name}"


def _adapters(named: Any) -> list[str] | None:
    """The adapters by which a teacher speaks; None where it is a model of its own."""
    if not isinstance(named, Adapter):
        return None
    return [] if named.name is None else [named.name]
