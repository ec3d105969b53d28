"""Which states of a sentence are compared: every token's, the first token's, or their mean."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from hf_distill.objectives.precision import widened

Pooling = Literal["tokens", "first", "mean"]
SENTENCE: tuple[Pooling, ...] = ("mean", "first")
"""The poolings that leave one state of a sentence."""


def pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
    """The states that are compared, and which of them are real.

    The first token is the first that is not padding. A sentence without any is no real state, and
    is 0.

    Args:
        hidden: [B, T, D].
        mask: [B, T] bool, the real tokens.
        pooling: "tokens", "first" or "mean".

    Returns:
        [B, T, D] and [B, T] with "tokens", [B, D] and [B] otherwise.
    """
    if pooling == "tokens":
        return hidden, mask
    real = mask.any(-1)
    if pooling == "first":
        rows = torch.arange(len(mask), device=mask.device)
        return hidden[rows, mask.int().argmax(-1)].masked_fill(~real.unsqueeze(-1), 0), real
    total = widened(hidden).masked_fill(~mask.unsqueeze(-1), 0).sum(1)
    return total / mask.sum(-1, keepdim=True).clamp(min=1), real
