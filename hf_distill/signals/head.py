"""What a model's head says: its logits as rows of one distribution each, and which rows count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_distill.architectures import plain_model
from hf_distill.signals.signals import PADDING_LOGIT, Problem, Unit

IGNORED = -100
"""The label that Hugging Face models ignore."""


@dataclass(frozen=True)
class Targets:
    """What a batch says before any model has seen it. Shapes as in `Signals`."""

    mask: Tensor
    rows: Tensor | None = None
    labels: Tensor | None = None
    labelled: Tensor | None = None
    kept: Tensor | None = None
    """[B, T] bool: the tokens that rows are made of, where the others are dropped."""

    def said(self) -> dict[str, Any]:
        """The fields of `Signals` that a batch itself says."""
        return {name: getattr(self, name) for name in ("mask", "rows", "labels", "labelled")}

    def counts(self) -> dict[Unit, Tensor]:
        """The number of units in this batch; 0 of those that its head does not have."""
        none = self.mask.new_zeros((), dtype=torch.long)
        return {
            "sequence": none + self.mask.shape[0],
            "token": self.mask.sum(),
            "row": none if self.rows is None else self.rows.sum(),
            "label": none if self.labelled is None else self.labelled.sum(),
        }


class Head(ABC):
    """One kind of task head; `of` finds a model's."""

    suffix: ClassVar[str]
    """How the names of the model classes with this head end."""
    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    problem: Problem = "single_label"

    def __init__(self, config: Any) -> None:  # noqa: B027 - most heads have nothing to read
        """Read what the model's config says of its head."""

    def targets(self, inputs: Mapping[str, Tensor]) -> Targets:
        """What the inputs (labels among them, where there are any) say."""
        ids = inputs.get("input_ids", inputs.get("inputs_embeds"))
        if ids is None:
            raise ValueError(
                f"inputs must hold input_ids, got {sorted(inputs)}. Tokenize the dataset first."
            )
        mask = inputs.get("attention_mask")
        real = (
            torch.ones(ids.shape[:2], dtype=torch.bool, device=ids.device)
            if mask is None
            else mask.bool()
        )
        return self._targets(real, inputs)

    @abstractmethod
    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets: ...

    def logits(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor | None:
        """The logits as [*R, C], None where the outputs hold none."""
        return outputs.get("logits")


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


class MaskedLM(TokenClassification):
    """One row per predicted token; the others are dropped: a row is as wide as the vocabulary."""

    suffix = "ForMaskedLM"

    def _targets(self, mask: Tensor, inputs: Mapping[str, Tensor]) -> Targets:
        labels = inputs.get("labels")
        kept = mask if labels is None else labels != IGNORED
        rows = mask.new_ones(int(kept.sum()))
        if labels is None:
            return Targets(mask, rows, kept=kept)
        return Targets(mask, rows, labels[kept], rows, kept)

    def logits(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor | None:
        """[N, V] of the N rows that count."""
        chosen: Tensor = outputs["logits"][targets.kept]
        return chosen


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
    Headless,
)

LABELS = frozenset(name for kind in HEADS for name in kind.label_names)
"""Every name that a batch has for gold labels."""


def head_of(model: nn.Module) -> Head:
    """The head of a transformers model, by the name of its class.

    Raises:
        ValueError: A kind of head that is not supported.
    """
    plain = plain_model(model)
    name = type(plain).__name__
    for kind in HEADS:
        # A language model's class may end in Model too.
        if name.endswith(kind.suffix) and (kind is not Headless or plain.base_model is plain):
            return kind(plain.config)
    known = ", ".join(kind.suffix for kind in HEADS)
    raise ValueError(f"model must be an encoder whose class ends in one of {known}, got {name}.")
