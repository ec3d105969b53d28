"""Do these two models fit each other? Everything that can be known before the first step."""

from __future__ import annotations

import os
from typing import Any

import torch
import transformers
from torch import nn

from hf_distill.architectures import architecture, base_model, plain_model
from hf_distill.objectives.base import Objective, Shape
from hf_distill.objectives.mixture import Mixture
from hf_distill.signals.head import (
    Head,
    Headless,
    LanguageModel,
    QuestionAnswering,
    Seq2SeqLM,
    SequenceClassification,
    head_of,
)


def load_teacher(path: str | os.PathLike[str], head: Head) -> nn.Module:
    """Load a teacher with the student's kind of head.

    Raises:
        ValueError: The checkpoint has no trained head of that kind.
    """
    auto = _auto_class(path, head)
    model, report = auto.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    # A headless encoder's pooler may well be missing; nothing reads it.
    untrained = [] if isinstance(head, Headless) else sorted(report["missing_keys"])
    if untrained:
        raise ValueError(
            f"teacher must be fine-tuned with a head {head.suffix}, got {str(path)!r}, whose "
            f"{', '.join(untrained)} would be random. Fine-tune it on the task first."
        )
    return model


def _auto_class(path: str | os.PathLike[str], head: Head) -> Any:
    """The class of transformers that loads a checkpoint with a head."""
    if isinstance(head, Seq2SeqLM):
        return transformers.AutoModelForSeq2SeqLM
    if not isinstance(head, Headless):
        return getattr(transformers, f"AutoModel{head.suffix}")
    config = transformers.AutoConfig.from_pretrained(path)
    # AutoModel would give T5 a random decoder.
    encodes = type(config) in transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    return transformers.AutoModelForTextEncoding if encodes else transformers.AutoModel


def shape_of(model: nn.Module) -> Shape:
    """Layers, width and attention heads of a model; the encoder's, where it has a decoder too."""
    return shape_in(base_model(model).config)


def shape_in(config: Any) -> Shape:
    """The same, in a config."""
    heads = config.num_attention_heads
    # T5's heads are as wide as its config says, whatever the model's width.
    channels = heads * getattr(config, "d_kv", 0)
    return Shape(config.num_hidden_layers, config.hidden_size, heads, channels)


def check_pair(
    student: nn.Module,
    teacher: nn.Module,
    mixture: Mixture,
    tokenizer: Any = None,
    *,
    layers: bool = True,
) -> None:
    """Check that the mixture can compare this student with this teacher.

    Args:
        student: The student.
        teacher: The teacher.
        mixture: What is compared.
        tokenizer: The student's.
        layers: Whether it is this teacher whose layers are compared.

    Raises:
        ValueError: Different vocabularies or special tokens, layers that are not always run, a
            head that an objective cannot serve, or shapes that it cannot compare.
    """
    _check_vocabulary(student, teacher, tokenizer)
    _check_special_tokens(student, teacher)
    if mixture.demands()[0].layers:
        _check_layers_are_run(student)
    head, taught = head_of(student), head_of(teacher)
    for name, term in mixture.terms.items():
        if term.objective.needs & {"logits", "labels"}:
            _check_head(name, term.objective, student, head)
        if layers:
            term.objective.check(shape_of(student), shape_of(teacher))
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


def _check_head(name: str, objective: Objective, student: nn.Module, head: Head) -> None:
    """Raise ValueError unless an objective on logits can learn from this kind of head."""
    kind = type(objective).__name__
    if isinstance(head, Headless):
        raise ValueError(
            f"objective {name!r} must be given logits, got a student without a head. Compare "
            "hidden states or relations, or give the student a head."
        )
    if head.problem not in objective.problems:
        raise ValueError(
            f"objective {name!r} must serve a head of kind {head.problem}, got {kind}, which "
            f"serves {', '.join(sorted(objective.problems))}. Choose another objective for this "
            "head."
        )
    spans = isinstance(head, QuestionAnswering)
    if spans and not objective.serves_spans:
        raise ValueError(
            f"objective {name!r} must serve spans, got {kind}, which compares classes that all "
            "rows share. Take KLDivergence or another divergence."
        )
    names = class_names(student)
    if names is not None and head.problem == "single_label" and len(names) < 2:
        raise ValueError(
            "labels of the student must be at least two exclusive classes, got 1: a softmax over "
            "one class is always 1. Set problem_type to regression, or num_labels to 2."
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
    ours, theirs = class_names(student), class_names(teacher)
    if ours is None or theirs is None or ours == theirs:
        return None
    if head_of(student).problem == "regression" and len(ours) == len(theirs):
        return None
    if sorted(ours) != sorted(theirs):
        raise ValueError(
            f"labels of student and teacher must have the same names, got student {ours} and "
            f"teacher {theirs}. Build the student with the teacher's id2label and label2id."
        )
    return [theirs.index(name) for name in ours]


def class_names(model: nn.Module) -> list[str] | None:
    """The names of a head's classes, in order; None where outputs have none: numbers, tokens."""
    if isinstance(head_of(model), Headless | QuestionAnswering | LanguageModel):
        return None
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
    if ours == theirs:
        return
    if isinstance(head_of(student), LanguageModel):
        larger = "student" if ours > theirs else "teacher"
        raise ValueError(
            f"teacher's vocabulary must be of the student's size {ours}, got {theirs}. Where both "
            f"know the same tokens, and the larger one is filled up, cut it: "
            f"{larger}.resize_token_embeddings({min(ours, theirs)}). Otherwise: {remedy}"
        )
    if known is None:
        raise ValueError(
            f"teacher's vocabulary must be of the student's size {ours}, got {theirs}. {remedy}"
        )


def _check_special_tokens(student: nn.Module, teacher: nn.Module) -> None:
    """What heads of decoders need to know, and what both must be given alike."""
    configs = [plain_model(model).config for model in (student, teacher)]
    heads = [head_of(model) for model in (student, teacher)]
    for side, config, head in zip(("student", "teacher"), configs, heads, strict=True):
        pooled = isinstance(head, SequenceClassification) and architecture(config).causal
        if pooled and config.pad_token_id is None:
            raise ValueError(
                f"pad_token_id of the {side}'s config must be set to classify sequences by their "
                "last token, got None. Set it to the tokenizer's pad_token_id."
            )
    if isinstance(heads[0], Seq2SeqLM):
        compared = configs if isinstance(heads[1], Seq2SeqLM) else configs[:1]
        for name in ("decoder_start_token_id", "pad_token_id"):
            found = [getattr(config, name, None) for config in compared]
            if None in found or len(set(found)) > 1:
                raise ValueError(
                    f"{name} must be set, and the same for student and teacher, whose decoders are "
                    f"given the same tokens, got {' and '.join(map(repr, found))}. Set it in their "
                    "configs."
                )


def _check_layers_are_run(student: nn.Module) -> None:
    config = base_model(student).config
    dropped = getattr(config, "encoder_layerdrop", 0)
    if dropped:
        raise ValueError(
            f"encoder_layerdrop of the student must be 0 to compare its layers, got {dropped!r}: a "
            "layer that is left out shows nothing. Set it in the student's config before it is "
            "built."
        )


def _vocabulary_of(model: nn.Module) -> dict[str, int] | None:
    """The vocabulary saved beside a locally loaded model, None where there is none."""
    folder = plain_model(model).name_or_path
    if not os.path.isfile(os.path.join(folder, "tokenizer_config.json")):
        return None
    return transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
