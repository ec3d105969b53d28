"""With nothing else said: what an expert would compare for each kind of head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_distill.mapping import period, resolve
from hf_distill.objectives import (
    BinaryCrossEntropy,
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    LogitMSE,
    SigmoidKL,
    SimilarityKL,
    SquaredError,
)
from hf_distill.objectives.base import Objective, Pairs, Shape
from hf_distill.objectives.mixture import Mixture, Term
from hf_distill.objectives.schedule import Number
from hf_distill.signals.head import Head, Headless
from hf_distill.signals.signals import LAYERED, Problem

Objectives = Mapping[str, tuple[Number, Objective]]
LayerMapping = str | Sequence[tuple[int, int]] | Mapping[str, str | Sequence[tuple[int, int]]]

_HIDDEN_WEIGHT = 10.0
TASK = "task"
"""The name of the term on gold labels."""


def task_objective(problem: Problem, label_smoothing: float = 0.0) -> Objective:
    """The loss of a head against gold labels; evaluation reports it too."""
    return {
        "single_label": CrossEntropy(label_smoothing),
        "multi_label": BinaryCrossEntropy(),
        "regression": SquaredError(),
    }[problem]


def default_objectives(
    head: Head,
    *,
    labelled: bool,
    teaches_logits: bool,
    same_width: bool,
    label_smoothing: float = 0.0,
) -> dict[str, tuple[float, Objective]]:
    """The mixture for one head.

    Args:
        head: The student's.
        labelled: Whether the training examples have gold labels.
        teaches_logits: Whether the teacher has the same kind of head.
        same_width: Whether student and teacher are equally wide.
        label_smoothing: For the gold labels' cross-entropy.
    """
    if isinstance(head, Headless):
        # A low temperature would look at each sentence's nearest neighbours only.
        return {"hidden": (1.0, HiddenMSE()), "similarity": (4.0, SimilarityKL(temperature=0.2))}
    # Hidden states may pull as hard as logits where they are compared as they are; through a
    # projection, which must be learnt first, that costs more than it gives (docs/objectives.md).
    terms: dict[str, tuple[float, Objective]] = {
        "hidden": (_HIDDEN_WEIGHT if same_width else 1.0, HiddenMSE())
    }
    if teaches_logits:
        distil: dict[Problem, tuple[str, Objective]] = {
            "single_label": ("kl", KLDivergence(temperature=2.0)),
            "multi_label": ("kl", SigmoidKL()),
            "regression": ("mse", LogitMSE()),
        }
        name, objective = distil[head.problem]
        terms[name] = (1.0, objective)
    if labelled:
        terms[TASK] = (1.0, task_objective(head.problem, label_smoothing))
    return terms


def build_mixture(
    objectives: Objectives, layer_mapping: LayerMapping | None, student: Shape, teacher: Shape
) -> Mixture:
    """Give each term its layers.

    Args:
        objectives: name -> (weight, objective).
        layer_mapping: For all terms, or by the term's name; each objective's own default where
            nothing is said.
        student: The student's shape.
        teacher: The teacher's shape.

    Raises:
        ValueError: A mapping is named for an unknown term, or does not fit the models.
    """
    by_name = layer_mapping if isinstance(layer_mapping, Mapping) else None
    if by_name and (unknown := set(by_name) - set(objectives)):
        raise ValueError(
            f"layer_mapping must name terms of objectives {sorted(objectives)}, got "
            f"{sorted(unknown)}. "
            "Correct the name."
        )
    terms = {}
    for name, (weight, objective) in objectives.items():
        chosen: Any = layer_mapping if by_name is None else by_name.get(name)
        pairs = _pairs(objective, chosen, student, teacher)
        renewed = period(chosen) if pairs and chosen is not None else None
        terms[name] = Term(weight, objective, pairs, renewed or 0)
    return Mixture(terms)


def _pairs(objective: Objective, chosen: Any, student: Shape, teacher: Shape) -> Pairs:
    if not objective.needs.intersection(LAYERED):
        return ()
    mapping = objective.default_mapping if chosen is None else chosen
    embeddings = compares_embeddings(objective)
    return resolve(mapping, student.layers, teacher.layers, embeddings=embeddings)


def compares_embeddings(objective: Objective) -> bool:
    """Whether embedding outputs can be compared: hidden states alone exist outside layers."""
    return objective.needs.intersection(LAYERED) == {"hidden"}
