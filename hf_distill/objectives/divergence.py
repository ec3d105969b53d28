"""Distributions over the last axis, of which some places may not exist, and their divergence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_distill.objectives.precision import widened


def existing(scores: Tensor, real: Tensor) -> Tensor:
    """Scores of which the places that do not exist are as low as they go, finite throughout.

    Args:
        scores: [..., N], unnormalised log-probabilities.
        real: bool, broadcastable to `scores`: the places that exist.

    Returns:
        [..., N], float32 or wider.
    """
    scores = widened(scores)
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min)


def log_probabilities(scores: Tensor, real: Tensor) -> Tensor:
    """Log-softmax over the real places of the last axis.

    Args:
        scores: [..., N], unnormalised log-probabilities.
        real: bool, broadcastable to `scores`: the places that exist. The others get probability 0.

    Returns:
        [..., N], float32 or wider, finite throughout: where nothing exists it is uniform.
    """
    return existing(scores, real).log_softmax(-1)


def without(scores: Tensor, places: Tensor) -> Tensor:
    """Scores of which these places do not exist: [..., N], indices [..., K] -> [..., N]."""
    return scores.scatter(-1, places, torch.finfo(scores.dtype).min)


def gathered(scores: Tensor, kept: Tensor) -> Tensor:
    """The scores of the places kept one by one, then one score for all others together.

    The last one is the logarithm of the others' summed powers, so that a softmax before or after
    says the same. Where there are no others it is as low as it goes: probability 0.

    Args:
        scores: [..., N], log-probabilities, normalised or not; float32 or wider.
        kept: [..., K], indices of different places.

    Returns:
        [..., K + 1].
    """
    rest = without(scores, kept).logsumexp(-1, keepdim=True)
    return torch.cat([scores.gather(-1, kept), rest], -1)


def kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities: [..., N] twice -> [...]; 0 when equal."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def bernoulli_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of a yes and a no each, of logits: [...] twice -> [...]."""
    # 1 - sigmoid(x) = sigmoid(-x): both logarithms stay finite for any logit.
    yes, no = (
        logsigmoid(sign * teacher).exp() * (logsigmoid(sign * teacher) - logsigmoid(sign * student))
        for sign in (1, -1)
    )
    return yes + no


def log_mixture(student: Tensor, teacher: Tensor, share: float) -> Tensor:
    """Logarithm of share * teacher + (1 - share) * student, of log-probabilities of both.

    Args:
        student: [...].
        teacher: [...].
        share: Of the teacher; 0 < value < 1.

    Returns:
        [...]; where both are equal exactly their value, so that a divergence from it is 0.
    """
    gap = teacher - student
    # Each from the larger of the two: its factor is at most 1 and cannot overflow.
    from_student = student + torch.log1p(share * torch.expm1(gap.clamp(max=0)))
    from_teacher = teacher + torch.log1p((1 - share) * torch.expm1(-gap.clamp(min=0)))
    return torch.where(gap <= 0, from_student, from_teacher)
