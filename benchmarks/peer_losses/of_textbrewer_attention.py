"""TextBrewer's losses on attention, written for scores before softmax with -10000 on padding.

Models of today give probabilities instead (`output_attentions`), which is what its users hand in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_distill.objectives import AttentionKL, AttentionMSE, AttentionScoresMSE
from hf_distill.objectives.attention import attention_scores_mse
from hf_distill.objectives.divergence import kl
from peer_losses.batches import (
    HEADS,
    TOKENS,
    Batch,
    probabilities,
    with_attention,
    with_padding_counted,
)
from peer_losses.comparison import Comparison, loss

Losses = dict[str, Callable[..., Tensor]]
_LOW = -1e-3
"""Scores below it are taken for masked ones where no mask is given."""


def on_attention(match: Losses) -> list[Comparison]:
    """Its four losses on attention, on probabilities and on scores."""
    return [*_squares(match), *_squares_of_scores(match), *_entropies(match), *_means(match)]


def maps(given: Batch) -> tuple[Tensor, Tensor]:
    """Both sides' attention probabilities."""
    return given.student.attention[1], given.teacher.attention[1]


def scores(given: Batch) -> tuple[Tensor, Tensor]:
    """Both sides' attention scores."""
    return given.student.attention_scores[1], given.teacher.attention_scores[1]


def _tokens_by_pairs(given: Batch) -> float:
    """Tokens of the batch over pairs of tokens."""
    lengths = given.mask.sum(-1)
    return (lengths.sum() / lengths.square().sum()).item()


def _squares(match: Losses) -> list[Comparison]:
    each, summed = match["attention_mse"], match["attention_mse_sum"]
    mean = AttentionMSE(heads="mean")
    return [
        Comparison(
            "attention_mse",
            lambda b: each(*maps(b)),
            AttentionMSE(),
            "Mean over the keys; ours sums over them, so that long sentences do not fade.",
            factor=1 / TOKENS,
        ),
        Comparison(
            "attention_mse, mask",
            lambda b: each(*maps(b), mask=b.mask),
            AttentionMSE(),
            "Divided by all pairs of real tokens, ours by the real tokens.",
            factor=_tokens_by_pairs,
            padding="right",
        ),
        Comparison(
            "attention_mse",
            lambda b: each(*maps(b)),
            AttentionMSE(),
            "Padding counts as queries: `inputs_mask` is optional.",
            rebuilt=lambda b: loss(with_padding_counted(b), AttentionMSE()) / TOKENS,
            padding="right",
        ),
        Comparison(
            "attention_mse_sum",
            lambda b: summed(*maps(b)),
            mean,
            "The sum of the heads, ours their mean (A²); and mean over the keys (1/T).",
            factor=HEADS**2 / TOKENS,
        ),
        Comparison(
            "attention_mse_sum, mask",
            lambda b: summed(*maps(b), mask=b.mask),
            mean,
            "The same, divided by all pairs of tokens.",
            factor=lambda b: HEADS**2 * _tokens_by_pairs(b),
            padding="right",
        ),
    ]


def _squares_of_scores(match: Losses) -> list[Comparison]:
    each = match["attention_mse"]

    def without_negative(given: Batch) -> Tensor:
        mine, theirs = (side.masked_fill(side <= _LOW, 0) for side in scores(given))
        return (mine - theirs).square().mean()

    def by_pairs(given: Batch) -> Tensor:
        lengths = given.mask.sum(-1)
        rows = attention_scores_mse(*scores(given), given.mask) * lengths.unsqueeze(-1)
        return rows.masked_fill(~given.mask, 0).sum() / lengths.square().sum()

    return [
        Comparison(
            "attention_mse, scores",
            lambda b: each(*scores(b)),
            AttentionScoresMSE(),
            "Without a mask every score below -0.001 is taken for padding and set to 0; the"
            " student's get no gradient.",
            rebuilt=without_negative,
        ),
        Comparison(
            "attention_mse, scores, mask of ones",
            lambda b: each(*scores(b), mask=b.mask),
            AttentionScoresMSE(),
            "",
        ),
        Comparison(
            "attention_mse, scores, mask",
            lambda b: each(*scores(b), mask=b.mask),
            AttentionScoresMSE(),
            "Pairs of tokens count alike, long sentences quadratically; in ours tokens do.",
            rebuilt=by_pairs,
            padding="right",
        ),
    ]


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Of log-probabilities: KL and the teacher's entropy."""
    return kl(student, teacher) - (teacher.exp() * teacher).sum(-1)


def _over(rows: Tensor, mask: Tensor) -> Tensor:
    """[B, A, T] -> mean over real queries and heads."""
    mask = mask.unsqueeze(1).expand_as(rows)
    return rows.masked_fill(~mask, 0).sum() / mask.sum()


def _entropies(match: Losses) -> list[Comparison]:
    each = match["attention_ce"]

    def twice(given: Batch) -> Tensor:
        logs = [side.log_softmax(-1) for side in maps(given)]
        return cross_entropy(*logs).mean()

    def positive_only(given: Batch) -> Tensor:
        mine, theirs = scores(given)
        wanted = theirs.softmax(-1).masked_fill(theirs <= _LOW, 0)
        return -(wanted * mine.log_softmax(-1)).sum(-1).mean()

    def with_padding_inside(given: Batch) -> Tensor:
        mine, theirs = (side.log_softmax(-1) for side in scores(given))
        real = given.mask[:, None, None]
        return _over(-(theirs.exp() * mine).masked_fill(~real, 0).sum(-1), given.mask)

    def with_entropy(given: Batch) -> Tensor:
        return cross_entropy(*(side.log_softmax(-1) for side in scores(given))).mean()

    return [
        Comparison(
            "attention_ce",
            lambda b: each(*maps(b)),
            AttentionKL(),
            "Softmax is taken of probabilities: nearly uniform maps are compared. The value is"
            " almost all the teacher's entropy, log T, and the gradient fades.",
            rebuilt=twice,
        ),
        Comparison(
            "attention_ce, scores",
            lambda b: each(*scores(b)),
            AttentionKL(),
            "Without a mask keys with a score below -0.001 are dropped from the target, which no"
            " longer sums to 1.",
            rebuilt=positive_only,
        ),
        Comparison(
            "attention_ce, scores, mask of ones",
            lambda b: each(*scores(b), mask=b.mask),
            AttentionKL(),
            "A cross-entropy: the teacher's entropy is in it, and it is not 0 for equal maps.",
            rebuilt=with_entropy,
        ),
        Comparison(
            "attention_ce, scores, mask",
            lambda b: each(*scores(b), mask=b.mask),
            AttentionKL(),
            "The mask comes after softmax: padding takes its share of both distributions, unless"
            " the model has set its scores to -10000 before.",
            rebuilt=with_padding_inside,
            padding="right",
        ),
    ]


def _means(match: Losses) -> list[Comparison]:
    mean = match["attention_ce_mean"]
    ours = AttentionKL(heads="mean")

    def twice(given: Batch) -> Tensor:
        logs = [side.mean(1).log_softmax(-1) for side in maps(given)]
        return cross_entropy(*logs).mean()

    def of_mean_scores(given: Batch) -> Batch:
        middle = [side.mean(1, keepdim=True) for side in scores(given)]
        return with_attention(given, *(probabilities(side, given.mask) for side in middle))

    def with_entropy(given: Batch) -> Tensor:
        target = of_mean_scores(given).teacher.attention[1]
        return loss(of_mean_scores(given), ours) - torch.xlogy(target, target).sum(-1).mean()

    return [
        Comparison(
            "attention_ce_mean",
            lambda b: mean(*maps(b)),
            ours,
            "Softmax is taken of probabilities.",
            rebuilt=twice,
        ),
        Comparison(
            "attention_ce_mean, scores, mask of ones",
            lambda b: mean(*scores(b), mask=b.mask),
            ours,
            "The mean is taken of the scores, before softmax; ours is the mean of the maps. And the"
            " teacher's entropy is in it.",
            rebuilt=with_entropy,
        ),
    ]
