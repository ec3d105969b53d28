"""What a model's head says: its logits as rows of one distribution each, and which rows count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.architectures import plain_model
from hf_distill.signals.language import CausalLM, LanguageModel, MaskedLM, Seq2SeqLM
from hf_distill.signals.rows import IGNORED, Head, Targets
from hf_distill.signals.signals import PADDING_LOGIT, Problem

__all__ = [
    "HEADS",
    "IGNORED",
    "LABELS",
    "CausalLM",
    "Head",
    "Headless",
    "LanguageModel",
    "MaskedLM",
    "QuestionAnswering",
    "Seq2SeqLM",
    "SequenceClassification",
    "Targets",
    "TokenClassification",
    "head_of",
]


class SequenceClassification(Head):
    """One row per sequence: exclusive classes, independent classes, or numbers."""

    suffix = "ForSequenceClassification"

    def __init__(self, config: Any) -> None:
        """Reads the problem as Hugging Face does: `problem_type`, or one label for regression."""
        named: dict[Any, Problem] = {
            "single_label_classification": "single_label",
            "multi_label_classification": "multi_label",
            "regression": "regression",
        }
        inferred: Problem = "regression" if config.num_labels == 1 else "single_label"
        self.problem = named.get(getattr(config, "problem_type", None), inferred)
        self.classes: int = config.num_labels

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        rows = mask.new_ones(mask.shape[0])
        labels = inputs.get("labels")
        if labels is None:
            return Targets(mask, rows)
        if self.problem == "single_label":
            if labels.is_floating_point():
                raise ValueError(
                    f"labels must be class indices for {self.classes} exclusive classes, got "
                    f"{labels.dtype} of shape {tuple(labels.shape)}. Set problem_type of the "
                    "student's and teacher's config: multi_label_classification or regression."
                )
            labels = labels.view(-1)
            return Targets(mask, rows, labels, labels != IGNORED)
        return Targets(mask, rows, labels.view(-1, self.classes).float(), rows)


class TokenClassification(Head):
    """One row per token; with labels, only the labelled ones count."""

    suffix = "ForTokenClassification"

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        labels = inputs.get("labels")
        if labels is None:
            return Targets(mask, mask)
        labelled = labels != IGNORED
        return Targets(mask, labelled, labels, labelled)


class QuestionAnswering(Head):
    """Two rows per sequence, start and end, each a distribution over the tokens."""

    suffix = "ForQuestionAnswering"
    label_names = ("start_positions", "end_positions")

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        rows = mask.new_ones((mask.shape[0], 2))
        if not all(name in inputs for name in self.label_names):
            return Targets(mask, rows)
        labels = torch.stack([inputs[name].view(-1) for name in self.label_names], dim=1)
        inside = (labels >= 0) & (labels < mask.shape[1])
        inside &= mask.gather(1, labels.where(inside, 0))
        return Targets(mask, rows, labels.masked_fill(~inside, IGNORED), inside)

    def logits(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor | None:
        """[B, 2, T], padding filled."""
        both = torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=1)
        return both.masked_fill(~targets.mask[:, None], PADDING_LOGIT)


class Headless(Head):
    """An encoder without a head: no rows, no labels."""

    suffix = "Model"
    label_names = ()

    def __init__(self, config: Any) -> None:
        """Raises ValueError where there is a decoder, which nothing would teach."""
        if config.is_encoder_decoder:
            raise ValueError(
                "model without a head must have no decoder, got an encoder-decoder of model_type "
                f"{config.model_type!r}. Take its encoder alone, such as T5EncoderModel, or a "
                f"model with a head {Seq2SeqLM.suffix}."
            )

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        return Targets(mask)

    def logits(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor | None:
        """None."""
        return None


HEADS: tuple[type[Head], ...] = (
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    MaskedLM,
    CausalLM,
    Seq2SeqLM,
    Headless,
)

LABELS = frozenset(name for kind in HEADS for name in kind.label_names)
"""Every name that a batch has for gold labels."""


def head_of(model: nn.Module) -> Head:
    """The head of a transformers model, by the name of its class.

    Raises:
        ValueError: A kind of head that is not supported, or not for this family.
    """
    plain = plain_model(model)
    name = type(plain).__name__
    for kind in HEADS:
        # A language model's class may end in Model too.
        fits = name.endswith(kind.suffix) and (kind is not Headless or plain.base_model is plain)
        if fits or name in kind.irregular:
            return kind(plain.config)
    known = ", ".join(name for kind in HEADS for name in (kind.suffix, *kind.irregular))
    raise ValueError(f"model must be one whose class ends in one of {known}, got {name}.")
