"""Every objective learns from a cache what it learns from the live teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from hf_distill.cache import folder as folder_room
from hf_distill.cache.about import About, Shown, Taught
from hf_distill.cache.cache import Cache
from hf_distill.cache.encoding import Storage
from hf_distill.cache.folder import Folder
from hf_distill.objectives.base import Objective
from hf_distill.objectives.mixture import Mixture, Term
from hf_distill.signals.head import (
    Head,
    QuestionAnswering,
    SequenceClassification,
    Targets,
    TokenClassification,
)
from hf_distill.signals.signals import LAYERED, Demand, Signals
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.plan import Batches
from hf_distill.teacher.writing import Crew, Writer
from tests.contract.test_objectives import every_case, grads, sides
from tests.objectives.examples import PAIRS, Sentence, cast, loss_of, tracked
from tests.objectives.examples import collate as collated

LENGTHS = (5, 3, 4, 1, 4, 2)
ORDERS = ([0, 1, 2, 3, 4, 5], [4, 1, 5], [2, 0, 3, 1])
WIDTH, HEADS = 8, 2
BOUNDS: dict[Storage, float] = {"bfloat16": 0.02, "int8": 0.04}
"""How much of a loss may be lost to rounding; what is measured stands in docs/performance.md."""
HEAD: dict[str, Callable[[Any], Head]] = {
    "sequence": SequenceClassification,
    "token": TokenClassification,
    "span": QuestionAnswering,
}


class Remembering:
    """A teacher that shows what was drawn for each sentence, whatever batch it is in."""

    def __init__(self, sentences: Sequence[Sentence], demand: Demand) -> None:
        """The sentence at place i begins with token i + 1."""
        self._sentences, self._demand = sentences, demand

    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """Of what was drawn, what is demanded."""
        chosen = [self._sentences[first - 1] for first in inputs["input_ids"][:, 0].tolist()]
        whole = cast(collated(chosen), torch.float32)
        layered: dict[str, Any] = {
            signal: {layer: getattr(whole, signal)[layer] for layer in self._demand.of(signal)}
            for signal in LAYERED
        }
        logits = whole.logits if self._demand.logits else None
        return Signals(targets.mask, logits=logits, rows=targets.rows, **layered)


def inputs_of(order: Sequence[int]) -> dict[str, Tensor]:
    """Token ids and mask of these sentences."""
    total = max(LENGTHS[index] for index in order)
    ids = [[index + 1, *[9] * (LENGTHS[index] - 1)] for index in order]
    mask = [[1] * len(row) + [0] * (total - len(row)) for row in ids]
    padded = [row + [0] * (total - len(row)) for row in ids]
    return {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}


@cache
def head_for(settings: tuple[tuple[str, str], ...]) -> Head:
    said = dict(settings)
    config = transformers.BertConfig(num_labels=5)
    return HEAD[said.get("head", "token")](config)


def taught(
    objective: Objective, settings: dict[str, Any], storage: Storage
) -> tuple[Remembering, CachedTeacher, list[Sentence]]:
    """A live teacher and the cache of it, as a trainer with this one term would have them."""
    students, teachers = sides(objective, settings, LENGTHS)
    pairs = PAIRS if objective.needs.intersection(LAYERED) else ()
    demand = Mixture({"term": Term(1.0, objective, pairs)}).demands()[1]
    live = Remembering(teachers, demand)
    head = head_for(tuple(sorted(settings.items())))
    about = About(
        teachers=[Taught(name="drawn", model_class="", config={}, weights="")],
        precision="as loaded",
        columns=["input_ids", "attention_mask"],
        head=head.suffix,
        problem="single_label",
        heads=HEADS,
        shown=Shown(
            logits=demand.logits,
            layers={signal: sorted(found) for signal, found in demand.layers.items()},
            pooled=dict(demand.pooled),
            storage=storage,
        ),
    )
    folder = Folder("memory://contract/cache")
    for name in folder.names(""):
        folder.remove(name)
    Writer(
        folder,
        about,
        live,
        head,
        read=_read,
        count=len(LENGTHS),
        device=torch.device("cpu"),
        batch_size=4,
        crew=Crew(),
    ).write()
    return live, CachedTeacher(Cache(folder), demand, head), students


def _read(batches: Batches) -> list[dict[str, Tensor]]:
    return [inputs_of(batch) for batch in batches]


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_room, "HOME", tmp_path_factory.mktemp("home"))


def learnt(
    objective: Objective, teacher: Any, students: Sequence[Sentence], order: Sequence[int]
) -> tuple[Tensor, list[Tensor]]:
    """The loss of one batch, and its gradients."""
    chosen = collated([students[index] for index in order])
    student, leaves = tracked(cast(chosen, torch.float32))
    targets = Targets(chosen.mask, chosen.rows)
    shown = replace(teacher.show(inputs_of(order), targets), rows=student.rows)
    loss = loss_of(objective, student, shown)
    return loss, grads(loss, leaves)


@every_case
def test_exact_caches_teach_exactly(objective: Objective, settings: dict[str, Any]) -> None:
    """What is pooled or laid out otherwise than the objective reads it is another lesson."""
    live, cached, students = taught(objective, settings, "float32")
    for order in ORDERS:
        expected, their_gradients = learnt(objective, live, students, order)
        found, our_gradients = learnt(objective, cached, students, order)
        assert torch.equal(found, expected)
        for mine, theirs in zip(our_gradients, their_gradients, strict=True):
            assert torch.equal(mine, theirs)


@every_case
@pytest.mark.parametrize("storage", BOUNDS)
def test_rounded_caches_teach_nearly_that(
    storage: Storage, objective: Objective, settings: dict[str, Any]
) -> None:
    """An objective that takes differences of what was rounded would learn the rounding."""
    live, cached, students = taught(objective, settings, storage)
    expected, _ = learnt(objective, live, students, ORDERS[0])
    found, gradients = learnt(objective, cached, students, ORDERS[0])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=BOUNDS[storage], abs=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)
