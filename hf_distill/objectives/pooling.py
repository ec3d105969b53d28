"""Which states of a sentence are compared: every token's, the first token's, or their mean."""

from __future__ import annotations

from torch import Tensor

from hf_distill.signals.pooling import Pooling, first_states, summed_states

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
        return first_states(hidden, mask), real
    return summed_states(hidden, mask) / mask.sum(-1, keepdim=True).clamp(min=1), real
