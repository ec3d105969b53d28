"""sentence-transformers: its losses that take a teacher's embeddings or scores."""

from __future__ import annotations

import importlib
import math
from itertools import product
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives import (
    HiddenCosine,
    HiddenInfoNCE,
    HiddenMSE,
    InfoNCE,
    KLDivergence,
    MarginMSE,
    SimilarityKL,
    SimilarityMSE,
)
from peer_losses.batches import CLASSES, HOT, SENTENCES, WIDER, Batch, with_critic
from peer_losses.comparison import Comparison, Peer, loss
from peer_losses.of_cross_encoders import on_scores

NARROW, SHARP = 0.5, 0.07


def _load() -> ModuleType:
    """Its losses for bi-encoders."""
    return importlib.import_module("sentence_transformers.sentence_transformer.losses")


def _comparisons(losses: ModuleType) -> list[Comparison]:
    """Its losses, called on embeddings instead of on texts."""
    return [*_on_embeddings(losses), *_among_sentences(losses), *_on_margins(losses), *on_scores()]


def _on_embeddings(losses: ModuleType) -> list[Comparison]:
    mean = {"pooling": "mean"}

    def run(criterion: Any, given: Batch) -> Tensor:
        mine, theirs = given.pooled()
        found: Tensor = criterion.compute_loss_from_embeddings([mine], [theirs])
        return found

    mse, cosine = losses.MSELoss(None), losses.EmbedDistillLoss(None, "cosine")
    distance = losses.EmbedDistillLoss(None, "l2")
    return [
        Comparison("MSELoss", lambda b: run(mse, b), HiddenMSE(**mean), "", padding="right"),
        Comparison(
            "EmbedDistillLoss('cosine')",
            lambda b: run(cosine, b),
            HiddenCosine(**mean),
            "",
            padding="right",
        ),
        Comparison(
            "EmbedDistillLoss('l2')",
            lambda b: run(distance, b),
            HiddenMSE(**mean),
            "Another loss: the distance itself, not its square over the width.",
            rebuilt=lambda b: (b.pooled()[0] - b.pooled()[1]).norm(dim=-1).mean(),
            padding="right",
        ),
    ]


def _among_sentences(losses: ModuleType) -> list[Comparison]:
    ranking = losses.MultipleNegativesRankingLoss(None, scale=1 / SHARP)
    similarity = losses.CosineSimilarityLoss(None)
    pairs = [(i, j) for i, j in product(range(SENTENCES), repeat=2) if i != j]

    def against_teacher(given: Batch) -> Tensor:
        found: Tensor = ranking.compute_loss_from_embeddings([*given.pooled()], None)
        return found

    def all_pairs(given: Batch) -> Tensor:
        mine, theirs = given.pooled(3)
        left, right = (torch.tensor(side) for side in zip(*pairs, strict=True))
        wanted = torch.cosine_similarity(theirs[left], theirs[right])
        found: Tensor = similarity.compute_loss_from_embeddings([mine[left], mine[right]], wanted)
        return found

    def cosines(given: Batch) -> Batch:
        mine, theirs = (unit_length(side, dim=-1) for side in given.pooled())
        return with_critic(given, mine @ theirs.T)

    return [
        Comparison(
            "MultipleNegativesRankingLoss(scale=1/0.07), the teacher's states as documents",
            against_teacher,
            HiddenInfoNCE(temperature=SHARP, pooling="mean"),
            "",
            padding="right",
        ),
        Comparison(
            "MultipleNegativesRankingLoss(scale=1/0.07), the teacher's states as documents",
            against_teacher,
            InfoNCE(temperature=SHARP),
            "Ours is the negative of a bound in nats, which is log B lower; its critic gives the"
            " cosines here.",
            rebuilt=lambda b: loss(cosines(b), InfoNCE(temperature=SHARP)) + math.log(SENTENCES),
            padding="right",
            shown=cosines,
        ),
        Comparison(
            "CosineSimilarityLoss, every two different sentences",
            all_pairs,
            SimilarityMSE(),
            "",
            padding="right",
            pairs=WIDER,
        ),
        Comparison(
            "DistillKLDivLoss(temperature=0.5), cosines, the other sentences as documents",
            lambda b: _among_others(losses, b),
            SimilarityKL(temperature=NARROW),
            "It is multiplied by T²; ours is not, and says so.",
            factor=NARROW**2,
            padding="right",
            pairs=WIDER,
        ),
    ]


def _among_others(losses: ModuleType, given: Batch) -> Tensor:
    cosine = importlib.import_module("sentence_transformers.util").pairwise_cos_sim
    criterion = losses.DistillKLDivLoss(None, similarity_fct=cosine, temperature=NARROW)
    others = torch.tensor([[j for j in range(SENTENCES) if j != i] for i in range(SENTENCES)])
    mine, theirs = given.pooled(3)
    wanted = torch.cosine_similarity(theirs.unsqueeze(1), theirs[others], dim=-1)
    found: Tensor = criterion.compute_loss_from_embeddings(
        [mine, *(mine[column] for column in others.T)], wanted
    )
    return found


def _on_margins(losses: ModuleType) -> list[Comparison]:
    divergence, margins = losses.DistillKLDivLoss(None, temperature=HOT), losses.MarginMSELoss(None)

    def scored(given: Batch) -> Tensor:
        # A query of 1 makes the documents' embeddings their scores.
        mine, theirs = given.logits
        found: Tensor = divergence.compute_loss_from_embeddings(
            [torch.ones(SENTENCES, 1), *mine.split(1, dim=-1)], theirs
        )
        return found

    def from_first(given: Batch, first: int, others: list[int]) -> Tensor:
        mine, theirs = given.logits
        found: Tensor = margins.compute_loss_from_embeddings(
            [torch.ones(1, 1), mine[first : first + 1], *(mine[j : j + 1] for j in others)],
            (theirs[first] - theirs[others]).T,
        )
        return found

    def each_as_first(given: Batch) -> Tensor:
        places = range(SENTENCES)
        each = [from_first(given, i, [j for j in places if j != i]) for i in places]
        return torch.stack(each).mean()

    return [
        Comparison(
            f"DistillKLDivLoss(temperature=4), {CLASSES} documents",
            scored,
            KLDivergence(temperature=HOT),
            "",
        ),
        Comparison(
            "MarginMSELoss, each document once as the positive one",
            each_as_first,
            MarginMSE(),
            "",
            head="number",
        ),
        Comparison(
            "MarginMSELoss, the first document as the positive one",
            lambda b: from_first(b, 0, [*range(1, SENTENCES)]),
            MarginMSE(),
            "One document is compared with each other one, as in the paper; in ours every two are.",
            rebuilt=_from_the_first,
            head="number",
        ),
    ]


def _from_the_first(given: Batch) -> Tensor:
    mine, theirs = given.logits
    gap = (mine - theirs).squeeze(-1)
    return (gap[0] - gap[1:]).square().mean()


PEERS = (Peer("sentence-transformers", _load, _comparisons),)
