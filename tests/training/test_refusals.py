"""What cannot work is said before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import BertForPreTraining, PreTrainedTokenizerFast

from hf_distill.objectives import (
    DIST,
    AttentionMSE,
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    LogitMSE,
    MiniLM,
    MiniLMv2,
)
from hf_distill.signals.head import head_of
from hf_distill.training.pairing import load_teacher
from tests import tiny
from tests.training.runs import (
    HEADLESS,
    OFFERED,
    SEQUENCE,
    SPAN,
    TOKEN,
    checkpointing,
    collate,
    examples,
    student,
    teacher,
    trainer,
)

KL = {"kl": (1.0, KLDivergence())}
HIDDEN = {"hidden": (1.0, HiddenMSE())}
NAMES = {0: "bad", 1: "fair", 2: "good"}


def named(model: Any, *names: str) -> Any:
    """The same model with other names for its classes."""
    model.config.id2label = dict(enumerate(names))
    return model


def one_model() -> dict[str, Any]:
    model = student()
    return {"model": model, "teacher": model}


def adapted() -> Any:
    """A student that was given adapters by its own method, so that its class does not show it."""
    model = student()
    model.add_adapter(LoraConfig(target_modules=["query"]))
    return model


def reentrant() -> Any:
    model = student()
    method = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    method({"use_reentrant": True})
    return model


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "no teacher": (
        lambda: {"teacher": None},
        r"teacher must be a model or a path, got None\. Use transformers\.Trainer",
    ),
    "the student as teacher": (one_model, r"teacher must be another model.*the same object"),
    "model_init": (
        lambda: {"model": None, "model_init": student},
        r"model must be a transformers model.*NoneType.*model_init is not supported",
    ),
    "model_init beside a model": (
        lambda: {"model_init": student},
        r"model_init must be left out",
    ),
    "compute_loss_func": (
        lambda: {"compute_loss_func": lambda *_: None},
        r"compute_loss_func must be left out.*mixture",
    ),
    "a student with adapters": (
        lambda: {"model": adapted()},
        r"model must be a transformers model without adapters.*merge_and_unload",
    ),
    "reentrant checkpointing": (
        lambda: checkpointing(use_reentrant=True),
        r"gradient checkpointing must not be reentrant",
    ),
    "a student that checkpoints reentrantly": (
        lambda: {"model": reentrant()},
        r"gradient checkpointing must not be reentrant",
    ),
    "label smoothing beside objectives": (
        lambda: {"objectives": KL, "label_smoothing_factor": 0.1},
        r"label_smoothing_factor must be 0 beside objectives, got 0\.1",
    ),
    "vocabularies of different sizes": (
        lambda: {"teacher": teacher(vocab_size=61)},
        r"vocabulary must be of the student's size 60, got 61",
    ),
    "a teacher of another head": (
        lambda: {"teacher": teacher(TOKEN), "objectives": KL},
        r"student's kind of head \(BertForSequenceClassification, single_label\).*"
        r"got BertForTokenClassification, single_label",
    ),
    "a teacher of another problem": (
        lambda: {
            "teacher": teacher(problem_type="multi_label_classification"),
            "objectives": KL,
        },
        r"student's kind of head \(.*single_label\).*got .*multi_label",
    ),
    "other label names": (
        lambda: {
            "model": named(student(), "no", "maybe", "yes"),
            "teacher": named(teacher(), "no", "perhaps", "yes"),
        },
        r"same names, got student \['no', 'maybe', 'yes'\] and teacher \['no', 'perhaps', 'yes'\]",
    ),
    "more labels": (
        lambda: {"teacher": teacher(num_labels=4)},
        r"same names, got student \['LABEL_0', .*'LABEL_2'\] and teacher .*'LABEL_3'\]",
    ),
    "more numbers": (
        lambda: {
            "model": student(num_labels=1),
            "teacher": teacher(num_labels=2, problem_type="regression"),
        },
        r"same names, got student \['LABEL_0'\] and teacher \['LABEL_0', 'LABEL_1'\]",
    ),
    "KL on regression": (
        lambda: {
            "model": student(num_labels=1),
            "teacher": teacher(num_labels=1),
            "objectives": KL,
        },
        r"objective 'kl' must serve a head of kind regression, got KLDivergence",
    ),
    "cross-entropy on several labels": (
        lambda: {
            "model": student(problem_type="multi_label_classification"),
            "objectives": {"task": (1.0, CrossEntropy())},
        },
        r"objective 'task' must serve a head of kind multi_label, got CrossEntropy",
    ),
    "classes of spans": (
        lambda: {
            "model": student(SPAN),
            "teacher": teacher(SPAN),
            "objectives": {"dist": (1.0, DIST())},
        },
        r"objective 'dist' must serve spans, got DIST, which compares classes that all rows share",
    ),
    "one exclusive class": (
        lambda: {
            "model": student(TOKEN, num_labels=1),
            "teacher": teacher(TOKEN, num_labels=1),
            "objectives": {"kl": (1.0, KLDivergence())},
        },
        r"labels of the student must be at least two exclusive classes, got 1",
    ),
    "logits of a headless student": (
        lambda: {
            "model": student(HEADLESS),
            "teacher": teacher(HEADLESS),
            "objectives": {"logits": (1.0, LogitMSE())},
        },
        r"objective 'logits' must be given logits, got a student without a head",
    ),
    "an unsupported head": (
        lambda: {"model": BertForPreTraining(tiny.config())},
        r"class ends in one of ForSequenceClassification.*got BertForPreTraining",
    ),
    "maps of different heads": (
        lambda: {
            "teacher": teacher(num_attention_heads=6),
            "objectives": {"maps": (1.0, AttentionMSE())},
        },
        r"attention heads of the student must be the teacher's 6 for AttentionMSE, got 4",
    ),
    "MiniLM of different heads": (
        lambda: {
            "teacher": teacher(num_attention_heads=6),
            "objectives": {"minilm": (1.0, MiniLM())},
        },
        r"the teacher's 6 for MiniLM, got 4.*MiniLMv2",
    ),
    "relation heads that do not fit": (
        lambda: {"objectives": {"relations": (1.0, MiniLMv2(relation_heads=5))}},
        r"relation_heads must divide the widths",
    ),
    "maps of ModernBERT": (
        lambda: {
            "model": student(family="ModernBert"),
            "objectives": {"maps": (1.0, AttentionMSE())},
        },
        r"must show attention maps",
    ),
    "an unknown mapping": (
        lambda: {"objectives": HIDDEN, "layer_mapping": "unifrom"},
        r"mapping must be one of .*got 'unifrom'.*'uniform'",
    ),
    "a layer that there is not": (
        lambda: {"objectives": HIDDEN, "layer_mapping": [(2, 5)]},
        r"within the teacher's layers 0 to 4, got \(2, 5\)",
    ),
    "maps of the embeddings": (
        lambda: {
            "objectives": {"maps": (1.0, AttentionMSE())},
            "layer_mapping": [(0, 0)],
        },
        r"mapping must be free of layer 0",
    ),
    "a mapping of an unknown term": (
        lambda: {"objectives": HIDDEN, "layer_mapping": {"hiden": "last"}},
        r"layer_mapping must name terms of objectives \['hidden'\], got \['hiden'\]",
    ),
    "no term": (lambda: {"objectives": {}}, r"objectives must name at least one term"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_refused(asked: str, tmp_path: Path) -> None:
    """Each of these trains on nonsense, or fails at a step, if nobody looks before the first."""
    given, message = REFUSED[asked]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        trainer(tmp_path, **given())


def test_data_parallel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Trainer takes nn.DataParallel by itself on two GPUs: counts and hooks are per replica."""
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 2)
    with pytest.raises(ValueError, match=r"one process must use one device, got 2 GPUs"):
        trainer(tmp_path)


def saved(model: Any, folder: Path, beside: PreTrainedTokenizerFast | None = None) -> Any:
    """The model, loaded from a folder, with a tokenizer beside it."""
    model.save_pretrained(folder)
    if beside is not None:
        beside.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def test_other_tokens_in_a_vocabulary_of_the_same_size_are_refused(tmp_path: Path) -> None:
    """The same number means another word to the teacher: it teaches noise, and nothing fails."""
    taught = saved(teacher(), tmp_path / "teacher", tiny.tokenizer("uno"))
    ours = saved(student(), tmp_path / "student", tiny.tokenizer("one"))
    same = saved(student(), tmp_path / "same", tiny.tokenizer("uno"))
    for given in ({"processing_class": tiny.tokenizer("one")}, {"model": ours}):
        with pytest.raises(ValueError, match=r"vocabulary must be that of the student's tokenizer"):
            trainer(tmp_path, teacher=taught, **given)
    for given in ({"processing_class": tiny.tokenizer("uno")}, {"model": same}):
        trainer(tmp_path, teacher=taught, **given)


def test_same_labels_in_another_order_are_permuted(tmp_path: Path) -> None:
    """Equal names at other places: the student would learn good for bad."""
    taught = named(teacher(), "good", "bad", "fair")
    run = trainer(tmp_path, model=named(student(), *NAMES.values()), teacher=taught, objectives=KL)
    batch = collate(examples(4))
    shown = run.teacher.show(batch, run.head.targets(batch)).logits
    batch.pop("labels")
    plain = taught(**batch).logits
    assert shown is not None
    torch.testing.assert_close(shown, plain[:, [1, 2, 0]], rtol=0, atol=0)


def test_labels_match_for_a_term_on_logits_only(tmp_path: Path) -> None:
    """A teacher of other classes can still show hidden states."""
    trainer(tmp_path, teacher=teacher(num_labels=4), objectives=HIDDEN)


def test_untrained_heads_of_teachers_are_refused(tmp_path: Path) -> None:
    """A headless encoder loaded as a classifier teaches random logits, behind one warning."""
    folder = tmp_path / "encoder"
    teacher(HEADLESS).save_pretrained(folder)
    with pytest.raises(
        ValueError, match=r"teacher must be fine-tuned.*classifier.*would be random"
    ):
        trainer(tmp_path, SEQUENCE, teacher=str(folder))
    trainer(tmp_path, HEADLESS, teacher=folder)


@pytest.mark.parametrize(("family", "head"), OFFERED)
def test_trained_heads_of_teachers_are_accepted(family: str, head: str, tmp_path: Path) -> None:
    """A tied or unused weight that is missing in the file would refuse a good teacher."""
    model = teacher(head, family)
    model.save_pretrained(tmp_path)
    loaded = load_teacher(tmp_path, head_of(model))
    assert type(loaded) is type(model)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
