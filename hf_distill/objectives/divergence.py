"""Distributions over the last axis, of which some places may not exist, and their divergence."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hf_distill.objectives.precision import widened


def log_probabilities(scores: Tensor, real: Tensor) -> Tensor:
    """Log-softmax over the real places of the last axis.

    Args:
        scores: [..., N], unnormalised log-probabilities.
        real: bool, broadcastable to `scores`: the places that exist. The others get probability 0.

    Returns:
        [..., N], float32 or wider, finite throughout: where nothing exists it is uniform.
    """
    scores = widened(scores)
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min).log_softmax(-1)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities: [..., N] twice -> [...]; 0 when equal."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def check_temperature(value: float) -> None:
    """Raise ValueError unless this can be a temperature."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ValueError(
            f"temperature must be a finite number > 0, got {value!r}. "
            "Use 1 for the models' own distributions."
        )
