"""Which rows of a batch count, before any model has seen it."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor

from hf_distill.signals.head import IGNORED, Targets, head_of
from hf_distill.signals.signals import PADDING_LOGIT
from tests import tiny

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
INPUTS = {"input_ids": MASK * 5, "attention_mask": MASK}
NONE = IGNORED


def targets(head: str, *, num_labels: int = 3, **inputs: Tensor) -> Targets:
    changes = {} if head in ("Model", "ForMaskedLM") else {"num_labels": num_labels}
    return head_of(tiny.model("Bert", head, **changes)).targets({**INPUTS, **inputs})


def counts(found: Targets) -> tuple[int, ...]:
    """Sequences, tokens, rows, labels."""
    return tuple(int(found.counts()[unit]) for unit in ("sequence", "token", "row", "label"))


def test_sequences_without_label_still_learn_from_the_teacher() -> None:
    """-100 taken as class 0 or -100 teaches nonsense; dropping the row loses the teacher's part."""
    found = targets("ForSequenceClassification", labels=torch.tensor([2, NONE]))
    assert found.rows is not None
    assert found.labelled is not None
    assert found.rows.tolist() == [True, True]
    assert found.labelled.tolist() == [True, False]
    assert counts(found) == (2, 6, 2, 1)


def test_unlabelled_sequences() -> None:
    """A transfer set without labels must count its rows, and no label."""
    found = targets("ForSequenceClassification")
    assert (found.labels, found.labelled) == (None, None)
    assert counts(found) == (2, 6, 2, 0)


def test_regression_labels_are_numbers_of_the_logits_shape() -> None:
    """Labels [B] against logits [B, 1] broadcast to [B, B]: a loss over all pairs."""
    found = targets("ForSequenceClassification", num_labels=1, labels=torch.tensor([0.5, 2.0]))
    assert found.labels is not None
    assert found.labels.tolist() == [[0.5], [2.0]]
    assert counts(found) == (2, 6, 2, 2)


def test_multi_label_labels_are_floats() -> None:
    """Integer yes/no labels fail in, or are truncated by, binary cross-entropy."""
    model = tiny.model(
        "Bert",
        "ForSequenceClassification",
        num_labels=3,
        problem_type="multi_label_classification",
    )
    head = head_of(model)
    found = head.targets({**INPUTS, "labels": torch.tensor([[1, 0, 1], [0, 0, 0]])})
    assert head.problem == "multi_label"
    assert found.labels is not None
    assert found.labels.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert counts(found) == (2, 6, 2, 2)


def test_several_labels_per_sequence_need_a_multi_label_student() -> None:
    """The Trainer's models guess the problem from the labels' type, once; a distribution cannot."""
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match=r"labels must be.*problem_type"):
        targets("ForSequenceClassification", labels=labels)


def test_token_rows_are_the_labelled_ones() -> None:
    """Sub-words and special tokens at -100 would pull the student as much as real words."""
    labels = torch.tensor([[NONE, 1, NONE, 2], [NONE, 0, NONE, NONE]])
    found = targets("ForTokenClassification", labels=labels)
    assert found.rows is not None
    assert torch.equal(found.rows, labels != NONE)
    assert counts(found) == (2, 6, 3, 3)


def test_unlabelled_tokens_count_without_padding() -> None:
    """Padding has logits too, and most batches have more padding than text."""
    found = targets("ForTokenClassification")
    assert found.rows is not None
    assert torch.equal(found.rows, MASK.bool())
    assert counts(found) == (2, 6, 6, 0)


def test_masked_lm_keeps_predicted_rows_only() -> None:
    """Logits of the wrong tokens beside the right labels: each row is checked by its place."""
    labels = torch.tensor([[NONE, 7, NONE, 8], [9, NONE, NONE, NONE]])
    head = head_of(tiny.model("Bert", "ForMaskedLM"))
    found = head.targets({**INPUTS, "labels": labels})
    logits = torch.arange(2 * 4 * 3.0).view(2, 4, 3)
    kept = head.logits({"logits": logits}, found)
    assert found.labels is not None
    assert found.labels.tolist() == [7, 8, 9]
    assert kept is not None
    assert kept.tolist() == [logits[0, 1].tolist(), logits[0, 3].tolist(), logits[1, 0].tolist()]
    assert counts(found) == (2, 6, 3, 3)
    assert counts(targets("ForMaskedLM")) == (2, 6, 6, 0)


def test_spans_out_of_the_window_are_not_labelled() -> None:
    """A position cut off by truncation, or -1, would index another token or crash."""
    found = targets(
        "ForQuestionAnswering",
        num_labels=2,
        start_positions=torch.tensor([0, 4]),
        end_positions=torch.tensor([3, -1]),
    )
    assert found.labelled is not None
    assert found.labels is not None
    assert found.labelled.tolist() == [[True, True], [False, False]]
    assert found.labels[0].tolist() == [0, 3]
    assert counts(found) == (2, 6, 4, 2)


def test_span_logits_on_padding_are_filled() -> None:
    """A student could put its whole answer on padding, at no cost."""
    head = head_of(tiny.model("Bert", "ForQuestionAnswering", num_labels=2))
    found = head.targets(INPUTS)
    start, end = torch.randn(2, 4), torch.randn(2, 4)
    logits = head.logits({"start_logits": start, "end_logits": end}, found)
    assert logits is not None
    assert logits.shape == (2, 2, 4)
    assert torch.equal(logits[0, 1], end[0])
    assert logits[1, :, 2:].unique().tolist() == [PADDING_LOGIT]
    assert counts(found) == (2, 6, 4, 0)


def test_headless_models_have_no_rows() -> None:
    """Hidden states are counted by token, also when the batch happens to carry labels."""
    assert counts(targets("Model", labels=torch.tensor([0, 1]))) == (2, 6, 0, 0)


def test_without_a_mask_every_token_is_real() -> None:
    """A batch without attention_mask is what `transformers` reads it as: no padding."""
    found = head_of(tiny.model()).targets({"input_ids": MASK})
    assert counts(found) == (2, 8, 0, 0)


def test_inputs_without_tokens_are_refused() -> None:
    """A dataset that was not tokenized fails deep inside the model, far from its cause."""
    with pytest.raises(ValueError, match=r"inputs must hold input_ids, got .*'text'.*Tokenize"):
        head_of(tiny.model()).targets({"text": MASK})


@pytest.mark.parametrize("name", ["BertForNextSentencePrediction", "BertLMHeadModel"])
def test_unsupported_heads_are_refused(name: str) -> None:
    """A language model's class also ends in `Model`: as an encoder its head would not learn."""
    model = getattr(transformers, name)(tiny.config(is_decoder=True))
    with pytest.raises(ValueError, match=f"model must be one whose class ends in.*{name}"):
        head_of(model)
