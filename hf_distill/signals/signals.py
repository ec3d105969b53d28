"""Signals: what one forward pass of a model shows. All shapes are documented here, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hf_distill.signals.pooling import Pooling

Unit = Literal["sequence", "token", "row", "label"]
"""What a loss is counted in. `sequence`: an example; `token`: a token that is not padding; `row`:
one distribution of
the head's logits that counts; `label`: a row that has a gold label."""

Problem = Literal["single_label", "multi_label", "regression"]
"""What the last axis of the logits means: exclusive classes, independent classes, or numbers."""

PADDING_LOGIT = -1e4
"""Fills span logits on padding, on both sides: probability 0, difference 0, finite in float16."""

LAYERED = ("hidden", "attention", "attention_scores", "query", "key", "value")
"""Signals that exist once per layer."""


@dataclass(frozen=True)
class Demand:
    """Which signals a model must show: the union of what the objectives need of it.

    `layers` maps each name of `LAYERED` to the layers wanted, counted from 1; 0 is the embedding
    output (`hidden` only).
    """

    logits: bool = False
    layers: Mapping[str, frozenset[int]] = field(default_factory=dict)
    pooled: Mapping[int, Pooling] = field(default_factory=dict)
    """layer -> the one state of a sentence that is read of its hidden states, "mean" or "first",
    where no more is read of them."""

    def of(self, signal: str) -> frozenset[int]:
        """The layers wanted of one layered signal."""
        return self.layers.get(signal, frozenset())

    @property
    def depth(self) -> int:
        """The deepest layer that any signal is wanted of; 0 where only the embeddings are."""
        return max((layer for wanted in self.layers.values() for layer in wanted), default=0)


@dataclass(frozen=True)
class Scores:
    """What a critic says of N units and K candidates; units are [B] sequences or [B, T] tokens."""

    positive: Tensor
    """[*N]: of the student's state with the teacher's of the same unit."""
    negative: Tensor
    """[*N, K]: of the student's state with the teacher's states of other units."""
    real: Tensor
    """[*N, K] bool: the candidates that exist, and are another unit; none for padding."""
    baseline: Tensor
    """[*N]: the logarithm of a learnt baseline q of the student's state; 0 where none is learnt."""


@dataclass(frozen=True)
class Signals:
    """The signals of one forward pass over B sequences of T tokens.

    Of an encoder-decoder, tokens, mask and layers are the encoder's; the rows of a language model
    are its decoder's.

    A signal that nobody demanded is absent: `None`, or a missing key. D is the model's width, A its
    number of attention heads, d = D / A, C the size of the head's last axis. R stands for the shape
    of the head's rows: [B] for sequence classification and regression, [B, T] for token
    classification, [N] for language models (only the N rows that count are kept), [B, 2] for spans
    (start and end; C is then T, and padding is filled with a large negative number).
    """

    mask: Tensor
    """[B, T] bool, true where a token is not padding."""
    logits: Tensor | None = None
    """[*R, C], before softmax or sigmoid."""
    rows: Tensor | None = None
    """[*R] bool, the rows that count. The student's rows rule."""
    labels: Tensor | None = None
    """[*R] class indices, or [*R, C] floats for multi-label and regression."""
    labelled: Tensor | None = None
    """[*R] bool, the rows that have a gold label."""
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, T, D], the layer's output; 0 is the embedding output."""
    attention: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, A, T, T], probabilities over keys (last axis; 0 on padding), before dropout."""
    attention_scores: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, A, T, T], QK^T / sqrt(d), before mask and softmax."""
    query: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, A, T, d], the projection's output (before rotary positions)."""
    key: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, A, T, d]."""
    value: Mapping[int, Tensor] = field(default_factory=dict)
    """layer -> [B, A, T, d]."""

    scores: Mapping[tuple[int, int], Scores] = field(default_factory=dict)
    """(student layer, teacher layer) -> what a term's critic says; with the student's signals."""

    def counted(self, unit: Unit) -> Tensor:
        """The boolean mask of one unit: [B], [B, T] or [*R]."""
        if unit == "sequence":
            return torch.ones(self.mask.shape[0], dtype=torch.bool, device=self.mask.device)
        if unit == "token":
            return self.mask
        found = self.rows if unit == "row" else self.labelled
        if found is None:
            raise ValueError(
                f"signals must hold {unit}s to be counted by {unit}, got none. Demand logits or "
                "labels."
            )
        return found
