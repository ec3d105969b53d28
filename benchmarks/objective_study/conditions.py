"""The questions that are asked: which tasks, which students, which terms beside the labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from studies.tasks import TASKS, Task
from transformers import AutoConfig

from hf_distill.objectives import (
    CKA,
    DIST,
    FSP,
    NST,
    PKD,
    AttentionKL,
    AttentionScoresMSE,
    DecoupledKD,
    HiddenCosine,
    HiddenInfoNCE,
    HiddenKL,
    HiddenMSE,
    InfoNCE,
    JensenShannon,
    MIAlpha,
    MiniLMv2,
    ReverseKL,
    RKDAngle,
    RKDDistance,
    SimilarityKL,
    TokenGramMSE,
)
from hf_distill.objectives.base import Objective
from hf_distill.student import student_config
from hf_distill.teacher.embedded import embedded_teacher
from hf_distill.training.defaults import LayerMapping
from hf_distill.training.pairing import shape_in

SETTINGS: tuple[tuple[str, str], ...] = (
    ("trec", "L3-H384"),
    ("stsb", "L3-H384"),
    ("mrpc", "L3-H384"),
    ("trec", "13M"),
    ("rte", "L3-H384"),
)
"""Task and student: first what costs little for what it tells; the scores of RTE, of 277 examples,
tell least."""
AHEAD = 6
"""Conditions by which one of them is ahead of the next."""


@dataclass(frozen=True)
class Condition:
    """What a student learns from.

    Args:
        extra: Terms beside labels and logits, by name.
        labels: Whether gold labels are learnt from, with weight 1.
        logits: Whether the teacher's logits are learnt from, with weight 1.
        mapping: The layers of the extra terms; each objective's own default without.
        weight: Of the extra terms; found by the one rule (`balance`) without.
    """

    extra: Mapping[str, Objective] = field(default_factory=dict)
    labels: bool = True
    logits: bool = True
    mapping: LayerMapping | None = None
    weight: float | None = None


def beside(
    objective: Objective, mapping: LayerMapping | None = None, weight: float | None = None
) -> Condition:
    """Labels, logits and one objective more."""
    return Condition({"extra": objective}, mapping=mapping, weight=weight)


def instead(objective: Objective) -> Condition:
    """Labels, and one objective where the term on logits would stand."""
    return Condition({"extra": objective}, logits=False)


# As many relation heads as divide the width of every student.
_RELATIONS = MiniLMv2(relation_heads=16)

# A critic that has learnt nothing pulls at nothing: the rule would give it a weight in the
# hundreds. 1 is that of the authors' published scripts.
_CRITIC = 1.0

CONTROL, LOGITS = "labels", "labels + logits"
CONDITIONS: Mapping[str, Condition] = {
    CONTROL: Condition(logits=False),
    LOGITS: Condition(),
    "+ HiddenMSE": beside(HiddenMSE()),
    "+ MIAlpha": beside(MIAlpha(), weight=_CRITIC),
    "+ MiniLMv2": beside(_RELATIONS),
    "+ PKD": beside(PKD()),
    "+ AttentionKL": beside(AttentionKL()),
    "+ SimilarityKL": beside(SimilarityKL()),
    "+ CKA": beside(CKA()),
    "+ RKDDistance": beside(RKDDistance()),
    "+ HiddenCosine": beside(HiddenCosine()),
    "+ InfoNCE": beside(InfoNCE(), weight=_CRITIC),
    "+ HiddenInfoNCE": beside(HiddenInfoNCE()),
    "+ NST": beside(NST()),
    "logits, no labels": Condition(labels=False),
    "+ HiddenMSE + MiniLMv2": Condition({"hidden": HiddenMSE(), "relations": _RELATIONS}),
    "+ HiddenMSE, no labels": Condition({"extra": HiddenMSE()}, labels=False),
    "labels + JensenShannon": instead(JensenShannon()),
    "labels + ReverseKL": instead(ReverseKL()),
    "labels + DIST": instead(DIST()),
    "labels + DecoupledKD": instead(DecoupledKD()),
    "labels + HiddenMSE": instead(HiddenMSE()),
    "+ HiddenMSE, last layer": beside(HiddenMSE(), "last"),
    "+ HiddenMSE, top layers": beside(HiddenMSE(), "top"),
    "+ HiddenMSE, emd": beside(HiddenMSE(), "emd"),
    "+ MIAlpha, last layer": beside(MIAlpha(), "last", weight=_CRITIC),
    "+ AttentionScoresMSE": beside(AttentionScoresMSE()),
    "+ HiddenKL": beside(HiddenKL()),
    "+ RKDAngle": beside(RKDAngle()),
    "+ TokenGramMSE": beside(TokenGramMSE()),
    "+ FSP": beside(FSP()),
}
"""The most important first: an unfinished study is the upper part of the table."""


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    task: str
    student: str
    condition: str
    seed: int

    @property
    def name(self) -> str:
        """As a file name."""
        words = "".join(sign if sign.isalnum() else " " for sign in self.condition).split()
        return "-".join([self.task, self.student, *words, str(self.seed)]).lower()

    def definition(self) -> dict[str, object]:
        """What the run is, as JSON reads it back: where any of it changes, it is another run."""
        condition = CONDITIONS[self.condition]
        terms = [[type(each).__name__, _own_settings(each)] for each in condition.extra.values()]
        said = {"labels": condition.labels, "logits": condition.logits, "extra": terms}
        weight = {} if condition.weight is None else {"weight": condition.weight}
        whole = {**vars(self), **said, **weight, "mapping": condition.mapping}
        return dict(json.loads(json.dumps(whole)))


def _own_settings(objective: Objective) -> dict[str, object]:
    """The settings that are not the default: a setting that is new is no new run."""
    usual = type(objective)().settings()
    return {name: each for name, each in objective.settings().items() if each != usual[name]}


def serves(condition: Condition, task: Task, student: str) -> bool:
    """Whether every term can serve the task's kind of head, and the shapes of the two models."""
    problem = "regression" if task.regression else "single_label"
    config = AutoConfig.from_pretrained(embedded_teacher())
    shapes = shape_in(student_config(student, config)), shape_in(config)
    try:
        for each in condition.extra.values():
            each.check(*shapes)
    except ValueError:
        return False
    return all(problem in each.problems for each in condition.extra.values())


def cells(seeds: int, tasks: list[str] | None, conditions: list[str] | None) -> list[Cell]:
    """Every run, in the order in which they are done.

    Args:
        seeds: How many, from 1.
        tasks: Only these; all where it is None.
        conditions: Only these; all where it is None.
    """
    found = []
    for at, name in enumerate(conditions or CONDITIONS):
        for place, (task, student) in enumerate(SETTINGS):
            asked = tasks is None or task in tasks
            if asked and serves(CONDITIONS[name], TASKS[task], student):
                for seed in range(1, seeds + 1):
                    found.append((at + AHEAD * place, place, Cell(task, student, name, seed)))
    return [cell for *_, cell in sorted(found, key=lambda each: each[:2])]
