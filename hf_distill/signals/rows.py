"""What every head has in common: rows of logits, and which of them count."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.signals.signals import Problem, Unit

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
    """[B, T] bool: the tokens whose logits are rows, where the others are dropped; the decoder's
    where the rows are."""

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
    irregular: ClassVar[tuple[str, ...]] = ()
    """Names of model classes with this head that end otherwise."""
    label_names: ClassVar[tuple[str, ...]] = ("labels",)
    problem: Problem = "single_label"

    def __init__(self, config: Any) -> None:  # noqa: B027 - most heads have nothing to read
        """Read what the model's config says of its head."""

    def complete(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs, with what student and teacher must both be given; mostly nothing."""
        return inputs

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
