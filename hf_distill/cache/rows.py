"""A batch's signals as rows without padding, one example after the other; and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hf_distill.signals.head import (
    Head,
    LanguageModel,
    QuestionAnswering,
    SequenceClassification,
    Targets,
)
from hf_distill.signals.pooling import Pooling, first_states, summed_states
from hf_distill.signals.signals import PADDING_LOGIT, Demand

RowUnit = Literal["sequence", "token", "pair", "kept"]
"""What one row belongs to: an example, a token, two tokens, or a token that a language model's head
predicts from."""


def row_counts(targets: Targets) -> dict[RowUnit, Tensor]:
    """How many rows of each unit an example has: [B] each."""
    tokens = targets.mask.sum(-1).cpu()
    kept = tokens if targets.kept is None else targets.kept.sum(-1).cpu()
    return {
        "sequence": torch.ones_like(tokens),
        "token": tokens,
        "pair": tokens.square(),
        "kept": kept,
    }


@dataclass(frozen=True)
class Layout:
    """How one signal lies in rows. By default it is a row of its own for each unit already."""

    unit: RowUnit

    def rows(self, signal: Tensor, targets: Targets) -> Tensor:
        """[R, W] of the signal's own shape."""
        return signal

    def signal(self, rows: Tensor, targets: Targets) -> Tensor:
        """What `rows` was given, padding aside."""
        return rows


@dataclass(frozen=True)
class PerToken(Layout):
    """[B, T, W]."""

    unit: RowUnit = "token"
    fill: float = 0.0
    """Stands on padding."""

    def rows(self, signal: Tensor, targets: Targets) -> Tensor:
        """[R, W]."""
        return self._turned(signal)[self._places(targets)]

    def signal(self, rows: Tensor, targets: Targets) -> Tensor:
        """As it was, padding filled."""
        places = self._places(targets)
        whole = rows.new_full((*places.shape, rows.shape[-1]), self.fill)
        whole[places] = rows
        return self._returned(whole)

    def _places(self, targets: Targets) -> Tensor:
        return targets.mask

    def _turned(self, signal: Tensor) -> Tensor:
        """The signal with its units first, and one axis after them."""
        return signal

    def _returned(self, signal: Tensor) -> Tensor:
        """What `_turned` was given."""
        return signal


class Spans(PerToken):
    """[B, 2, T]: start and end."""

    def _turned(self, signal: Tensor) -> Tensor:
        return signal.transpose(1, 2)

    _returned = _turned


@dataclass(frozen=True)
class PerHead(PerToken):
    """[B, A, T, d]: queries, keys, values."""

    heads: int = 1

    def _turned(self, signal: Tensor) -> Tensor:
        return signal.transpose(1, 2).flatten(2)

    def _returned(self, signal: Tensor) -> Tensor:
        split: Tensor = signal.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)


@dataclass(frozen=True)
class PerPair(PerToken):
    """[B, A, T, T]: attention, of which only real tokens are kept, on both axes."""

    unit: RowUnit = "pair"

    def _places(self, targets: Targets) -> Tensor:
        return targets.mask[:, :, None] & targets.mask[:, None, :]

    def _turned(self, signal: Tensor) -> Tensor:
        return signal.permute(0, 2, 3, 1)

    def _returned(self, signal: Tensor) -> Tensor:
        return signal.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Pooled(Layout):
    """[B, T, D] of which only one state is read: their mean, or the first token's.

    That state is kept, and shown at the first token's place, where it pools to itself; of a mean it
    is the sum.
    """

    unit: RowUnit = "sequence"
    pooling: Pooling = "mean"

    def rows(self, signal: Tensor, targets: Targets) -> Tensor:
        """[B, D]."""
        pool = summed_states if self.pooling == "mean" else first_states
        return pool(signal, targets.mask)

    def signal(self, rows: Tensor, targets: Targets) -> Tensor:
        """[B, T, D]."""
        mask = targets.mask
        whole = rows.new_zeros((*mask.shape, rows.shape[-1]))
        whole[torch.arange(len(mask), device=mask.device), mask.int().argmax(-1)] = rows
        return whole


def layouts(demand: Demand, head: Head, heads: int) -> dict[str, Layout]:
    """How each signal that is demanded lies in rows, by its name: "logits", "hidden.3".

    Args:
        demand: Of the teacher.
        head: What the rows of its logits are.
        heads: Its number of attention heads.
    """
    found: dict[str, Layout] = {"logits": _of_logits(head)} if demand.logits else {}
    for signal, layers in demand.layers.items():
        for layer in sorted(layers):
            if signal == "hidden":
                pooling = demand.pooled.get(layer)
                each = PerToken() if pooling is None else Pooled(pooling=pooling)
            elif signal.startswith("attention"):
                each = PerPair()
            else:
                each = PerHead(heads=heads)
            found[f"{signal}.{layer}"] = each
    return found


def _of_logits(head: Head) -> Layout:
    if isinstance(head, SequenceClassification):
        return Layout("sequence")
    if isinstance(head, LanguageModel):
        return Layout("kept")
    return Spans(fill=PADDING_LOGIT) if isinstance(head, QuestionAnswering) else PerToken()
