"""`hf-distill layers`: which layers answer to which, and why?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hf_distill.cli.errors import Debug, user_errors
from hf_distill.cli.tables import aligned

_NUMBERS = (
    "Layers are counted from 1, and 0 is the embedding output: layer n is hidden_states[n] and "
    "attentions[n - 1] in transformers (of an encoder-decoder, the encoder's)."
)


@dataclass(frozen=True)
class Side:
    """What is known of one of the two models."""

    name: str
    layers: int
    shape: Any = None
    """None where a depth is all that was given."""
    shows: frozenset[str] = frozenset()
    """The layered signals that the family can show."""


def layers(
    teacher: Annotated[
        str, typer.Option(metavar="MODEL_OR_DEPTH", help="A folder, a Hub id, or a depth: 12.")
    ],
    student: Annotated[
        str,
        typer.Option(
            metavar="MODEL_OR_SIZE_OR_DEPTH",
            help="The same, or a size such as 13M or L3-H384. A folder so named is ./13M.",
        ),
    ],
    mapping: Annotated[
        str | None,
        typer.Option(
            help="A name as in uniform, last-4 or uniform:no-embeddings, or pairs as in "
            "[[1, 2], [2, 4]]; the objective's own without."
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What is compared: not all can compare embedding outputs.")
    ] = "HiddenMSE",
    debug: Debug = False,
) -> None:
    """Show which student layer answers to which teacher layer, why, and what can be compared.

    Of models only the configs are read.
    """
    with user_errors(debug):
        ours, theirs = _sides(student, teacher)
        chosen = None if mapping is None else _read(mapping)
        for part in _report(ours, theirs, chosen, objective):
            typer.echo(part)


def _sides(student: str, teacher: str) -> tuple[Side, Side]:
    from hf_distill.recipe.models import load_config
    from hf_distill.student import PRESETS, student_config

    if teacher.isdecimal():
        theirs, config = Side("teacher", int(teacher)), None
    else:
        config = load_config(teacher, "--teacher")
        theirs = _side("teacher", config)
    if student.isdecimal():
        return Side("student", int(student)), theirs
    # No model of the Hub is named like a size.
    if student not in PRESETS and not re.match(r"L?\d[^/]*$", student):
        return _side("student", load_config(student, "--student")), theirs
    if config is None:
        raise ValueError(
            f"--teacher must be a model where --student is a size, got {teacher!r}. What a size "
            "does not say is the teacher's: name the teacher, or give two depths."
        )
    return _side("student", student_config(student, config)), theirs


def _side(name: str, config: Any) -> Side:
    from hf_distill.architectures import architecture
    from hf_distill.training.pairing import shape_in

    shows, shape = architecture(config).shows, shape_in(config)
    return Side(name, shape.layers, shape, shows)


def _read(mapping: str) -> Any:
    """A name as it stands, pairs as YAML writes them."""
    import yaml

    if not mapping.startswith("["):
        return mapping
    try:
        return yaml.safe_load(mapping)
    except yaml.YAMLError as error:
        raise ValueError(
            f"--mapping must be a name or pairs, got {mapping!r}. Write pairs as in "
            "[[1, 2], [2, 4]], the student's layer first."
        ) from error


def _report(student: Side, teacher: Side, chosen: Any, name: str) -> Iterator[str]:
    from hf_distill.mapping import explain
    from hf_distill.training.defaults import compares_embeddings

    objective = _objective(name)
    mapping = objective.default_mapping if chosen is None else chosen
    told = explain(
        mapping, student.layers, teacher.layers, embeddings=compares_embeddings(objective)
    )
    yield f"{name}, mapping {mapping}. {told.rule}"
    yield f"Student: M = {student.layers} layers. Teacher: N = {teacher.layers} layers.\n"
    yield aligned(
        [
            {"student": str(each.student), "teacher": _spans(each.teacher), "why": each.why}
            for each in told.matches
        ]
    )
    yield f"\n{_NUMBERS}\n"
    yield f"Teacher layers that nobody answers to: {_spans(told.teacher_left_out)}."
    yield f"Student layers that answer to none: {_spans(told.student_left_out)}."
    if told.steps is not None:
        yield f"The pairs are weighed anew every {told.steps} optimizer steps."
    yield from _shapes(student, teacher)
    yield f"\n{aligned(list(_verdicts(student, teacher, chosen)))}"
    yield "\nAll other objectives compare no layers."


def _objective(name: str) -> Any:
    from hf_distill import objectives
    from hf_distill.recipe.faults import nearest

    if name not in objectives.__all__:
        remedy = nearest(name, objectives.__all__) or "`hf-distill list objectives` shows them."
        raise ValueError(f"--objective must be in the catalogue, got {name!r}. {remedy}")
    known = _layered()
    if name not in known:
        raise ValueError(
            f"--objective must compare layers, got {name!r}, which serves any depths. "
            f"Choose one of {', '.join(known)}."
        )
    return known[name]


def _layered() -> dict[str, Any]:
    """The catalogue's objectives that compare layers, with their own settings."""
    from hf_distill import objectives
    from hf_distill.signals.signals import LAYERED

    kinds = {name: getattr(objectives, name) for name in objectives.__all__}
    return {name: kind() for name, kind in kinds.items() if kind.needs.intersection(LAYERED)}


def _shapes(student: Side, teacher: Side) -> Iterator[str]:
    if student.shape is None or teacher.shape is None:
        yield "Widths and heads are not known of depths alone: name two models to compare them."
        return
    ours, theirs = student.shape, teacher.shape
    if ours.width == theirs.width:
        yield f"Widths: {ours.width} in both; nothing is projected."
    else:
        yield (
            f"Widths: student {ours.width}, teacher {theirs.width}. Where hidden states are "
            f"compared coordinate by coordinate, a projection {ours.width} -> {theirs.width} is "
            "learnt beside the student."
        )
    if ours.heads == theirs.heads:
        yield f"Attention heads: {ours.heads} in both."
    else:
        yield f"Attention heads: student {ours.heads}, teacher {theirs.heads}."


def _verdicts(student: Side, teacher: Side, chosen: Any) -> Iterator[dict[str, str]]:
    """For each objective that compares layers: whether it can compare those of these two."""
    for name, objective in _layered().items():
        mapping = objective.default_mapping if chosen is None else chosen
        row = {"objective": name, "mapping": str(mapping)}
        try:
            why = _fit(objective, mapping, student, teacher)
        except ValueError as error:
            yield {**row, "legal": "no", "why": str(error)}
        else:
            yield {**row, "legal": "yes", "why": why}


def _fit(objective: Any, mapping: Any, student: Side, teacher: Side) -> str:
    """How an objective compares the two; ValueError where it cannot."""
    from hf_distill.mapping import period, resolve
    from hf_distill.objectives.mixture import Mixture, Term
    from hf_distill.signals.signals import LAYERED
    from hf_distill.training.defaults import compares_embeddings

    embeddings = compares_embeddings(objective)
    pairs = resolve(mapping, student.layers, teacher.layers, embeddings=embeddings)
    Mixture({type(objective).__name__: Term(1.0, objective, pairs, period(mapping) or 0)})
    for side in (student, teacher):
        hidden = objective.needs.intersection(LAYERED) - side.shows
        if side.shape is not None and hidden:
            raise ValueError(
                f"{side.name} must show {', '.join(sorted(hidden))}, got a family that shows "
                f"{', '.join(sorted(side.shows))}. Compare what both show."
            )
    if student.shape is None or teacher.shape is None:
        return "by depth; widths and heads are not known"
    objective.check(student.shape, teacher.shape)
    ours, theirs = student.shape.width, teacher.shape.width
    if objective.critic is not None:
        return "scored by a critic, at any widths"
    return f"projected {ours} -> {theirs}" if objective.equal_width and ours != theirs else "as is"


def _spans(found: Sequence[int]) -> str:
    """Layers in their order, neighbours drawn together: 1-3, 7."""
    spans: list[list[int]] = []
    for layer in found:
        if spans and layer == spans[-1][-1] + 1:
            spans[-1].append(layer)
        else:
            spans.append([layer])
    return ", ".join("-".join(map(str, dict.fromkeys((s[0], s[-1])))) for s in spans) or "none"
