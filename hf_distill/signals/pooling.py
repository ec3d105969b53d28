"""One state of a sentence: its first token's, or all of its tokens' together."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["tokens", "first", "mean"]
"""Which states of a sentence are compared: each token's, the first token's, or their mean."""


def first_states(hidden: Tensor, mask: Tensor) -> Tensor:
    """The state of each sentence's first token that is not padding; 0 of a sentence without any.

    Args:
        hidden: [B, T, D].
        mask: [B, T] bool, the real tokens.

    Returns:
        [B, D].
    """
    rows = torch.arange(len(mask), device=mask.device)
    states: Tensor = hidden[rows, mask.int().argmax(-1)]
    return states.masked_fill(~mask.any(-1, keepdim=True), 0)


def summed_states(hidden: Tensor, mask: Tensor) -> Tensor:
    """The sum of each sentence's states, in float32 or wider: [B, T, D] and [B, T] -> [B, D]."""
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    return wide.masked_fill(~mask.unsqueeze(-1), 0).sum(1)
