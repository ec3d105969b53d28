"""torchdistill's losses on hidden states: flows, and sentences among each other."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives import FSP, RKDAngle, RKDDistance, SimilarityKL, SimilarityMSE
from hf_distill.objectives.divergence import kl
from hf_distill.objectives.gram import flow
from hf_distill.objectives.precision import products
from hf_distill.objectives.sentence import similarities
from peer_losses.batches import BOTH, SENTENCES, WIDER, Batch, with_padding_counted
from peer_losses.comparison import Comparison


def on_states(losses: ModuleType) -> list[Comparison]:
    """Its losses on states of tokens and of sentences."""
    return [*_on_flows(losses), *_similarities(losses), *_relations(losses)]


def _shown(value: Any) -> dict[str, dict[str, Any]]:
    """A model's inputs and outputs as its losses read them."""
    return {"m": {"output": value, "input": value}}


def compared(criterion: Any, student: Any, teacher: Any, targets: Tensor | None = None) -> Tensor:
    """Its loss of what one module of each model gives."""
    found: Tensor = criterion(_shown(student), _shown(teacher), targets)
    return found


def between(losses: ModuleType, name: str, **settings: Any) -> Any:
    """A loss that reads one module of each model."""
    return getattr(losses, name)("m", "output", "m", "output", **settings)


def _on_flows(losses: ModuleType) -> list[Comparison]:
    spots = {
        f"{side}_{place}": {"io": "output", "path": place}
        for side in ("student", "teacher")
        for place in ("first", "second")
    }
    fsp = losses.FSPLoss({"pair": spots})

    def of_layers(lower: Tensor, upper: Tensor) -> dict[str, dict[str, Tensor]]:
        # Its feature maps are [B, C, H, W].
        maps = {"first": lower, "second": upper}
        return {place: {"output": _as_map(side)} for place, side in maps.items()}

    def run(given: Batch) -> Tensor:
        sides = (of_layers(*side) for side in zip(given.hidden(1), given.hidden(2), strict=True))
        found: Tensor = fsp(*sides)
        return found

    def column_norms(given: Batch) -> Tensor:
        mine, theirs = (
            flow(*side, given.mask, normalize=False)
            for side in zip(given.hidden(1), given.hidden(2), strict=True)
        )
        return vector_norm(mine - theirs, dim=1).sum(-1).mean()

    return [
        Comparison(
            "FSPLoss",
            run,
            FSP(normalize=False),
            "The sum of the norms of the columns; the paper, and ours, have the squared Frobenius"
            " norm.",
            rebuilt=column_norms,
            pairs=BOTH,
        ),
        Comparison(
            "FSPLoss",
            run,
            FSP(normalize=False),
            "The same; and padding counts: no loss of this library takes a mask.",
            rebuilt=lambda b: column_norms(with_padding_counted(b)),
            padding="right",
            pairs=BOTH,
        ),
    ]


def _as_map(hidden: Tensor) -> Tensor:
    return hidden.transpose(1, 2).unsqueeze(-1)


def _relations(losses: ModuleType) -> list[Comparison]:
    distance, angle = (losses.RKDLoss("m", "m", *factors, "mean") for factors in ((1, 0), (0, 1)))
    pkt = between(losses, "PKTLoss", eps=1e-12)
    others = SENTENCES - 1
    return [
        Comparison(
            "RKDLoss, distances",
            lambda b: compared(distance, *b.pooled(3)),
            RKDDistance(),
            "Mean over all B² pairs, with the distance of a sentence to itself; ours over the"
            " others.",
            factor=others / SENTENCES,
            pairs=WIDER,
        ),
        Comparison(
            "RKDLoss, angles",
            lambda b: compared(angle, *b.pooled(3)),
            RKDAngle(),
            "Mean over all B³ triples, with those that are no angle; ours over different ones.",
            factor=others * (others - 1) / SENTENCES**2,
            pairs=WIDER,
        ),
        Comparison(
            "PKTLoss(eps=1e-12)",
            lambda b: compared(pkt, *b.pooled(3)),
            SimilarityKL(temperature=1.0),
            "The probabilities of the paper: (1 + cosine) / 2 over its sum. Ours: softmax of cosine"
            " / temperature over the other sentences. Theirs has the sentence itself among them,"
            " and is the mean over all B² entries.",
            rebuilt=_shifted_cosines,
            pairs=WIDER,
        ),
    ]


def _similarities(losses: ModuleType) -> list[Comparison]:
    spkd = losses.SPKDLoss("m", "m", "batchmean")
    ours = SimilarityMSE(normalize="rows")

    def by_sums(mine: Tensor, theirs: Tensor) -> Tensor:
        rows = (unit_length(products(side, side), p=1, dim=-1) for side in (mine, theirs))
        left, right = rows
        return (left - right).square().sum() / SENTENCES**2

    return [
        Comparison(
            "SPKDLoss, pooled",
            lambda b: compared(spkd, *b.pooled(3)),
            ours,
            "Rows are divided by the sum of their sizes (`normalize(x, 1)` sets p, not the axis);"
            " the paper, and ours, have their Euclidean length.",
            rebuilt=lambda b: by_sums(*b.pooled(3)),
            padding="right",
            pairs=WIDER,
        ),
        Comparison(
            "SPKDLoss, [B, T, D]",
            lambda b: compared(spkd, *b.hidden(1, 3)),
            ours,
            "The same; and all positions side by side are a sentence's state, padding among them.",
            rebuilt=lambda b: by_sums(*(side.flatten(1) for side in b.hidden(1, 3))),
            padding="right",
            pairs=WIDER,
        ),
    ]


def _shifted_cosines(given: Batch) -> Tensor:
    shifted = ((1 + similarities(side)) / 2 for side in given.pooled(3))
    logs = (unit_length(side, p=1, dim=-1).log() for side in shifted)
    return kl(*logs).mean() / SENTENCES
