"""Language models: which token's logits speak of which label."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from hf_distill.signals.head import IGNORED, Targets, head_of
from tests import tiny

NONE = IGNORED
DECODERS = ["GPT2", "Llama", "Qwen2", "Qwen3"]
ENCODER_DECODERS = ["T5", "Bart"]
CAUSAL, SEQ2SEQ = "ForCausalLM", "ForConditionalGeneration"

IDS = torch.tensor([[11, 12, 13, 14], [21, 22, 0, 0]])
MASK = (IDS > 0).long()
PLACES = torch.arange(8.0).view(2, 4, 1).expand(2, 4, 3)
"""Logits that name their place."""


def rows(head: Any, found: Targets) -> list[int]:
    """The places whose logits are rows."""
    return [int(row[0]) for row in head.logits({"logits": PLACES}, found)]


def counts(found: Targets) -> tuple[int, ...]:
    """Tokens, rows, labels."""
    return tuple(int(found.counts()[unit]) for unit in ("token", "row", "label"))


def said(found: Targets) -> list[int]:
    assert found.labels is not None
    return found.labels.tolist()


def test_logits_of_a_token_are_of_the_next_label() -> None:
    """Unshifted, a model learns to repeat its input: the loss falls to 0, and so does its worth."""
    head = head_of(tiny.model("GPT2", CAUSAL))
    labels = torch.tensor([[NONE, 12, 13, 14], [21, 22, NONE, NONE]])
    found = head.targets({"input_ids": IDS, "attention_mask": MASK, "labels": labels})
    assert rows(head, found) == [0, 1, 2, 4]
    assert said(found) == [12, 13, 14, 22]
    assert counts(found) == (6, 4, 4)


def test_ignored_labels_are_ignored_at_the_token_before() -> None:
    """A prompt's last token predicts the answer's first: -100 belongs to the label, not to it."""
    head = head_of(tiny.model("Llama", CAUSAL))
    labels = torch.tensor([[NONE, NONE, 13, NONE], [NONE, NONE, NONE, NONE]])
    found = head.targets({"input_ids": IDS, "attention_mask": MASK, "labels": labels})
    assert rows(head, found) == [1]
    assert said(found) == [13]


def test_unlabelled_texts_predict_every_real_next_token() -> None:
    """A row after the last token has nothing to predict; one from padding has seen nothing."""
    head = head_of(tiny.model("GPT2", CAUSAL))
    found = head.targets({"input_ids": IDS, "attention_mask": MASK})
    assert rows(head, found) == [0, 1, 2, 4]
    assert counts(found) == (6, 4, 0)
    assert found.labels is None


@pytest.mark.parametrize("labelled", [True, False])
def test_padding_on_the_left_gives_the_same_rows(labelled: bool) -> None:
    """The last padding would predict the first token from nothing, on the left only."""
    head = head_of(tiny.model("GPT2", CAUSAL))
    left = torch.tensor([[11, 12, 13, 14], [0, 0, 21, 22]])
    for ids, expected in ((IDS, [0, 1, 2, 4]), (left, [0, 1, 2, 6])):
        # Labels on padding too, as from a collator that only copies the tokens.
        labels = {"labels": ids} if labelled else {}
        mask = (ids > 0).long()
        found = head.targets({"input_ids": ids, "attention_mask": mask, **labels})
        assert rows(head, found) == expected
        if labelled:
            assert said(found) == [12, 13, 14, 22]


def ragged(*lengths: int) -> dict[str, Tensor]:
    ids = [torch.randint(3, tiny.VOCABULARY, (length,)) for length in lengths]
    padded = pad_sequence(ids, batch_first=True)
    mask = (padded > 0).long()
    return {"input_ids": padded, "attention_mask": mask}


@pytest.mark.parametrize("family", DECODERS)
def test_causal_loss_is_the_models_own(family: str) -> None:
    """The one number that a shift too few or too many always moves."""
    model: Any = tiny.model(family, CAUSAL, initializer_range=0.2)
    batch = ragged(7, 3, 5)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
    labels[0, :3] = IGNORED
    own = model(**batch, labels=labels)
    head = head_of(model)
    found = head.targets({**batch, "labels": labels})
    logits = head.logits(own, found)
    assert logits is not None
    assert found.labels is not None
    torch.testing.assert_close(F.cross_entropy(logits, found.labels), own.loss)


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForTokenClassification"])
def test_classifiers_are_not_shifted(head: str) -> None:
    """Shifted like a language model, a classifier loses the last example of every batch."""
    kind = head_of(tiny.model("Bert", head, num_labels=3))
    logits = torch.randn(2, 3) if head == "ForSequenceClassification" else torch.randn(2, 4, 3)
    labels = torch.zeros(logits.shape[:-1]).long()
    for given in ({"labels": labels}, {}):
        found = kind.targets({"input_ids": IDS, "attention_mask": torch.ones_like(IDS), **given})
        assert kind.logits({"logits": logits}, found) is logits
        assert found.rows is not None
        assert found.rows.all()
        assert found.rows.shape == logits.shape[:-1]
        assert found.labels is None or torch.equal(found.labels, labels)


TARGETS = torch.tensor([[31, 32, 33], [41, 42, NONE]])


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_decoder_inputs_are_the_models_own(family: str) -> None:
    """One place off, and the decoder is shown the very token that it must predict."""
    model: Any = tiny.model(family, SEQ2SEQ, decoder_start_token_id=5)
    head = head_of(model)
    complete = head.complete({"input_ids": IDS, "labels": TARGETS})
    expected = model.prepare_decoder_input_ids_from_labels(TARGETS)
    assert torch.equal(complete["decoder_input_ids"], expected)
    assert complete["decoder_input_ids"].tolist() == [[5, 31, 32], [5, 41, 42]]
    assert torch.equal(TARGETS, torch.tensor([[31, 32, 33], [41, 42, NONE]]))


def test_ignored_labels_are_padding_for_the_decoder() -> None:
    """-100 is no token: an embedding has no such row."""
    head = head_of(tiny.model("T5", SEQ2SEQ))
    complete = head.complete({"input_ids": IDS, "labels": torch.tensor([[31, NONE, NONE]])})
    assert complete["decoder_input_ids"].tolist() == [[0, 31, 0]]


def test_decoder_inputs_that_are_there_stay() -> None:
    """A collator that makes its own, with noise or a prefix, must not be overruled."""
    head = head_of(tiny.model("T5", SEQ2SEQ))
    inputs = {"input_ids": IDS, "labels": TARGETS, "decoder_input_ids": TARGETS.clamp(min=0)}
    assert head.complete(inputs) is inputs
    plain = {"input_ids": IDS}
    assert head_of(tiny.model("GPT2", CAUSAL)).complete(plain) is plain


def test_rows_of_a_decoder_are_its_labels() -> None:
    """Shifted once more, each row would be compared with the label after its own."""
    head = head_of(tiny.model("Bart", SEQ2SEQ))
    found = head.targets({"input_ids": IDS, "attention_mask": MASK, "labels": TARGETS})
    logits = head.logits({"logits": PLACES[:, :3]}, found)
    assert logits is not None
    assert logits[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert said(found) == [31, 32, 33, 41, 42]
    # Hidden states are the encoder's: six of its tokens are real.
    assert counts(found) == (6, 5, 5)


@pytest.mark.parametrize("masked", [True, False])
def test_unlabelled_decoder_inputs_predict_what_follows(masked: bool) -> None:
    """What the teacher generated is a target too; its padding, and what comes after it, is not."""
    head = head_of(tiny.model("T5", SEQ2SEQ))
    given = torch.tensor([[0, 31, 32, 2], [0, 41, 2, 0]])
    mask = {"decoder_attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])} if masked else {}
    inputs = {"input_ids": IDS, "decoder_input_ids": given, **mask}
    found = head.targets(inputs)
    assert rows(head, found) == [0, 1, 2, 4, 5]
    assert counts(found) == (8, 5, 0)


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_decoder_loss_is_the_models_own(family: str) -> None:
    """The loss is ours, the labels are kept from the model: both together must be its own."""
    model: Any = tiny.model(family, SEQ2SEQ, initializer_range=0.2)
    head = head_of(model)
    labels = ragged(4, 6, 2)["input_ids"]
    labels[labels == 0] = IGNORED
    batch = {**ragged(7, 3, 5), "labels": labels}
    own = model(**batch).loss
    complete = head.complete(batch)
    found = head.targets(complete)
    logits = head.logits(model(**{k: v for k, v in complete.items() if k != "labels"}), found)
    assert logits is not None
    assert found.labels is not None
    torch.testing.assert_close(F.cross_entropy(logits, found.labels), own)


def test_targets_that_are_nowhere_are_refused() -> None:
    """BART would take the source for the target, and learn to copy; T5 fails inside its decoder."""
    head = head_of(tiny.model("Bart", SEQ2SEQ))
    for read in (head.targets, head.complete):
        with pytest.raises(ValueError, match=r"must hold labels or decoder_input_ids, got \['inp"):
            read({"input_ids": IDS})


def test_decoder_inputs_of_another_length_are_refused() -> None:
    """Rows are chosen by the labels' places: another length chooses other tokens, or fails."""
    head = head_of(tiny.model("T5", SEQ2SEQ))
    with pytest.raises(ValueError, match=r"as many as labels \(2, 3\), got \(2, 4\)"):
        head.targets({"input_ids": IDS, "labels": TARGETS, "decoder_input_ids": IDS})


@pytest.mark.parametrize(
    ("family", "head", "message"),
    [
        ("Roberta", CAUSAL, r"ForCausalLM must be of a family of decoders \(gpt2, .*'roberta'"),
        ("Bart", CAUSAL, r"ForCausalLM must be of a family of decoders \(gpt2, .*'bart'"),
        ("Bart", "Model", r"without a head must have no decoder.*'bart'.*T5EncoderModel"),
    ],
)
def test_heads_that_a_family_cannot_serve_are_refused(family: str, head: str, message: str) -> None:
    """An encoder sees what it must predict; a decoder that no loss reaches stays random."""
    with pytest.raises(ValueError, match=message):
        head_of(tiny.model(family, head))
