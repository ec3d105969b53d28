"""Variational lower bounds of mutual information, out of a critic's scores.

A critic f scores pairs of states: those of one unit (a joint sample) and those of different units
(samples of the product of the marginals). The conditioning variable is the student's state, the
samples are the teacher's. All functions take the scores of N units and K candidates, and give one
bound for each unit, in nats; a unit without candidates gives 0. Source: Poole, Ozair, van den Oord,
Alemi, Tucker: On Variational Bounds of Mutual Information, 2019, arXiv:1905.06922.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hf_distill.objectives.precision import widened
from hf_distill.signals.signals import Scores


def mutual_information(scores: Scores, alpha: float, exact: bool = False) -> Tensor:
    """I_alpha: 1 + E[f - log a] - E[exp(f) / a], a = alpha m + (1 - alpha) q, m a mean of exp(f).

    alpha 1 is InfoNCE (low variance, at most log(K + 1)), alpha 0 is TUBA with the baseline q, and
    NWJ where log q is 1. Between them it is at most 1 + log((K + 1) / alpha); in the exact form
    1 + log(K / alpha).

    Args:
        scores: Of the critic, see `Scores`.
        alpha: 0 to 1.
        exact: Whether m leaves one of the other units out at a time, as the bound says; otherwise
            all K + 1 are in it, which differs by some hundredths of a nat and needs no [N, K].

    Returns:
        [*N].
    """
    positive, negative, log_count = _wide(scores)
    if alpha == 0:
        return _finished(_tuba(scores, clamp=None), scores)
    log_q = widened(scores.baseline)
    mean = torch.logsumexp(negative, -1) - log_count
    inside = _leave_one_out(scores) if exact else _mean_of_all(scores).unsqueeze(-1)
    if alpha == 1:
        joint = positive.unsqueeze(-1) - inside
        rest = positive.new_zeros(())
    else:
        weighted_q = math.log1p(-alpha) + log_q
        mixed = torch.logaddexp(math.log(alpha) + inside, weighted_q.unsqueeze(-1))
        joint = positive.unsqueeze(-1) - mixed
        # The mean over held-out units collapses to this closed form, never above 1 / alpha.
        held_out = weighted_q - mean
        rest = 1 - (-torch.logaddexp(torch.full_like(held_out, math.log(alpha)), held_out)).exp()
    return _finished(_mean_where(joint, scores.real if exact else None) + rest, scores)


def tuba(scores: Scores, clamp: float | None = 5.0) -> Tensor:
    """1 + E[f - log q] - E[exp(f) / q].

    Args:
        scores: Of the critic.
        clamp: f - log q of a negative counts as at most this: without, one negative rules the
            gradient. The value is then no strict bound. None: no clamp.
    """
    return _finished(_tuba(scores, clamp), scores)


def jensen_shannon(scores: Scores) -> Tensor:
    """-E[softplus(-f)] - E[softplus(f)]: trains a critic without exponentials.

    It is 2 JSD - 2 log 2 of joint and product at the best critic: never above 0, and no number of
    nats of mutual information.
    """
    positive, negative, _ = _wide(scores)
    return _finished(-softplus(-positive) - _mean_where(softplus(negative), scores.real), scores)


def _wide(scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
    """Positive scores, negative ones with what is not real as low as it goes, and log K."""
    negative = widened(scores.negative)
    lowest = torch.finfo(negative.dtype).min / 4
    count = scores.real.sum(-1).clamp(min=1).to(negative.dtype)
    return widened(scores.positive), negative.masked_fill(~scores.real, lowest), count.log()


def _mean_of_all(scores: Scores) -> Tensor:
    """Log of the mean power over the positive and all real negatives: [*N]."""
    positive, negative, _ = _wide(scores)
    count = scores.real.sum(-1).to(positive.dtype) + 1
    return torch.logsumexp(torch.cat([positive.unsqueeze(-1), negative], -1), -1) - count.log()


def _leave_one_out(scores: Scores) -> Tensor:
    """Log of the mean power over the positive and all real negatives but one: [*N, K].

    Sums of what stands before and after each place: a difference of sums would cancel.
    """
    positive, negative, log_count = _wide(scores)
    lowest = torch.finfo(negative.dtype).min / 4
    edge = torch.full_like(negative[..., :1], lowest)
    before = torch.cat([positive.unsqueeze(-1), negative[..., :-1]], -1).logcumsumexp(-1)
    after = torch.cat([negative[..., 1:], edge], -1).flip(-1).logcumsumexp(-1).flip(-1)
    return torch.logaddexp(before, after) - log_count.unsqueeze(-1)


def _tuba(scores: Scores, clamp: float | None) -> Tensor:
    positive, negative, _ = _wide(scores)
    log_q = widened(scores.baseline)
    exponent = negative - log_q.unsqueeze(-1)
    if clamp is not None:
        exponent = exponent.clamp(max=clamp)
    return 1 + positive - log_q - _mean_where(exponent.exp(), scores.real)


def _mean_where(values: Tensor, real: Tensor | None) -> Tensor:
    """[*N, K] -> [*N]: the mean over what is real, over all without."""
    if real is None:
        return values.mean(-1)
    return values.masked_fill(~real, 0).sum(-1) / real.sum(-1).clamp(min=1)


def _finished(values: Tensor, scores: Scores) -> Tensor:
    return values.masked_fill(~scores.real.any(-1), 0)
