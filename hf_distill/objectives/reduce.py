"""The one place where a loss is divided."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_distill.objectives.precision import widened


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Mean of the values that count, in float32 or wider.

    Args:
        values: One value per unit, any shape.
        mask: bool, the same shape: which values count.
        count: Divide by this instead of `mask.sum()`: the number of units of the whole optimizer
            step, over all micro-batches and processes, so that accumulated and distributed
            gradients equal those of one big batch.

    Returns:
        A scalar; 0 with a finite gradient when nothing counts.
    """
    if values.shape != mask.shape:
        raise ValueError(
            f"values must have the mask's shape {tuple(mask.shape)}, got {tuple(values.shape)}. "
            "Return one value per unit."
        )
    total = widened(values).masked_fill(~mask, 0).sum()
    divisor = mask.sum() if count is None else torch.as_tensor(count, device=total.device)
    return total / divisor.to(total.dtype).clamp(min=1)


def mean_over_pairs(values: Iterable[Tensor]) -> Tensor:
    """Mean of what the layer pairs gave, one tensor each, all of one shape.

    Raises:
        ValueError: There is no pair.
    """
    found = list(values)
    if not found:
        raise ValueError(
            "pairs must hold at least one pair of layers, got (). Give the term a layer mapping."
        )
    return torch.stack(found).mean(0)
