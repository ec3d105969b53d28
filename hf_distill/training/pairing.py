"""Do these two models fit each other? Everything that can be known before the first step."""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from torch import nn

from hf_distill.architectures import base_model, plain_model
from hf_distill.objectives.base import Shape
from hf_distill.objectives.mixture import Mixture
from hf_distill.signals.head import Head, Headless, MaskedLM, QuestionAnswering, head_of

_AUTO = {"Model": "AutoModel"}


def load_teacher(path: str | os.PathLike[str], head: Head) -> nn.Module:
    """Load a teacher with the student's kind of head.

    Raises:
        ValueError: The checkpoint has no trained head of that kind.
    """
    auto = getattr(transformers, _AUTO.get(head.suffix, f"AutoModel{head.suffix}"))
    model, report = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    # A headless encoder's pooler may well be missing; nothing reads it.
    untrained = [] if isinstance(head, Headless) else sorted(report["missing_keys"])
    if untrained:
        raise ValueError(
            f"teacher must be fine-tuned with a head {head.suffix}, got {str(path)!r}, whose "
            f"{', '.join(untrained)} would be random. Fine-tune it on the task first."
        )
    return model


def shape_of(model: nn.Module) -> Shape:
    """Layers, width and attention heads of a model."""
    return shape_in(base_model(model).config)


def shape_in(config: Any) -> Shape:
    """The same, in a config."""
    return Shape(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)


def check_pair(
    student: nn.Module, teacher: nn.Module, mixture: Mixture, tokenizer: Any = None
) -> None:
    """Check that the mixture can compare this student with this teacher.

    Raises:
        ValueError: One model twice, different vocabularies, a head that an objective cannot serve,
            or shapes that it cannot compare.
    """
    if plain_model(teacher) is plain_model(student):
        raise ValueError(
            "teacher must be another model than the student, got the same object. Load it again."
        )
    _check_vocabulary(student, teacher, tokenizer)
    head, taught = head_of(student), head_of(teacher)
    for name, term in mixture.terms.items():
        objective = term.objective
        if objective.needs & {"logits", "labels"} and head.problem not in objective.problems:
            raise ValueError(
                f"objective {name!r} must serve a head of kind {head.problem}, got "
                f"{type(objective).__name__}, which serves "
                f"{', '.join(sorted(objective.problems))}. Choose another objective for this head."
            )
        if objective.needs & {"logits", "labels"} and isinstance(head, Headless):
            raise ValueError(
                f"objective {name!r} must be given logits, got a student without a head. Compare "
                "hidden states or relations, or give the student a head."
            )
        objective.check(shape_of(student), shape_of(teacher))
    ours, theirs = (
        f"{type(plain_model(model)).__name__}, {kind.problem}"
        for model, kind in ((student, head), (teacher, taught))
    )
    if mixture.demands()[1].logits and not _same_task(head, taught):
        raise ValueError(
            f"teacher must have the student's kind of head ({ours}) for objectives on logits, got "
            f"{theirs}. Take a teacher of the same task, or compare hidden states or relations "
            "only."
        )


def _same_task(head: Head, taught: Head) -> bool:
    return head.suffix == taught.suffix and head.problem == taught.problem


def match_classes(student: nn.Module, teacher: nn.Module) -> list[int] | None:
    """For each class of the student, the teacher's index of the class of that name.

    Returns:
        None where the order is the same, and where outputs have no names: numbers, tokens.

    Raises:
        ValueError: The names differ, or the numbers of a regression are not as many.
    """
    head = head_of(student)
    if isinstance(head, Headless | QuestionAnswering | MaskedLM):
        return None
    ours, theirs = _class_names(student), _class_names(teacher)
    if ours == theirs or (head.problem == "regression" and len(ours) == len(theirs)):
        return None
    if sorted(ours) != sorted(theirs):
        raise ValueError(
            f"labels of student and teacher must have the same names, got student {ours} and "
            f"teacher {theirs}. Build the student with the teacher's id2label and label2id."
        )
    return [theirs.index(name) for name in ours]


def _class_names(model: nn.Module) -> list[str]:
    names = plain_model(model).config.id2label
    return [names[index] for index in sorted(names)]


def _check_vocabulary(student: nn.Module, teacher: nn.Module, tokenizer: Any) -> None:
    ours, theirs = (base_model(model).config.vocab_size for model in (student, teacher))
    remedy = (
        "Student and teacher must share a tokenizer; take a teacher of the student's vocabulary."
    )
    read = _vocabulary_of(student) if tokenizer is None else tokenizer.get_vocab()
    known = None if read is None else _vocabulary_of(teacher)
    if known is not None and known != read:
        raise ValueError(
            f"teacher's vocabulary must be that of the student's tokenizer, got another one. "
            f"{remedy}"
        )
    if ours != theirs and (known is None or isinstance(head_of(student), MaskedLM)):
        raise ValueError(
            f"teacher's vocabulary must be of the student's size {ours}, got {theirs}. {remedy}"
        )


def _vocabulary_of(model: nn.Module) -> dict[str, int] | None:
    """The vocabulary saved beside a locally loaded model, None where there is none."""
    folder = plain_model(model).name_or_path
    if not os.path.isfile(os.path.join(folder, "tokenizer_config.json")):
        return None
    return transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
