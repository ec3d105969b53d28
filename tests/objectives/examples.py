"""Small random signals: sentences without padding, and their collation to either side."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.reduce import masked_mean
from hf_distill.signals.signals import LAYERED, PADDING_LOGIT, Scores, Signals
from hf_distill.training.critics import LearntCritic

LAYERS = (1, 2)
PAIRS: Pairs = ((1, 2), (2, 1))
SAME: Pairs = ((1, 1), (2, 2))
CLASSES = 5
IGNORED = -100

Sentence = dict[str, Any]


def sentence(
    length: int,
    seed: int,
    needs: Collection[str],
    problem: str = "single_label",
    head: str = "token",
    width: int = 8,
    heads: int = 2,
    scale: float = 1.0,
) -> Sentence:
    """What a model shows of one sentence, in float64; only what `needs` names."""
    make = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float64) * scale

    shapes = {
        "hidden": (length, width),
        **dict.fromkeys(("attention", "attention_scores"), (heads, length, length)),
        **dict.fromkeys(("query", "key", "value"), (heads, length, width // heads)),
    }
    shown: Sentence = {"length": length, "head": head, "problem": problem}
    for signal in LAYERED:
        if signal in needs:
            shown[signal] = {layer: noise(*shapes[signal]) for layer in LAYERS}
    if "attention" in needs:
        shown["attention"] = {layer: x.softmax(-1) for layer, x in shown["attention"].items()}
    if "logits" in needs:
        rows = {"sequence": (), "token": (length,), "span": (2,)}[head]
        classes = length if head == "span" else CLASSES
        shown["logits"] = noise(*rows, classes)
        shown["labels"] = _labels(shown["logits"], problem, head, make)
    return shown


def _labels(logits: Tensor, problem: str, head: str, make: torch.Generator) -> Tensor:
    if problem == "multi_label":
        return torch.randint(0, 2, logits.shape, generator=make).float()
    if problem == "regression":
        return torch.randn(logits.shape, generator=make)
    labels = torch.randint(0, logits.shape[-1], logits.shape[:-1], generator=make)
    if head == "token":
        labels[0] = IGNORED
    return labels


def collate(
    sentences: Sequence[Sentence],
    side: str = "right",
    extra: int = 0,
    garbage: float = 0.0,
    logit_fill: float = PADDING_LOGIT,
) -> Signals:
    """One batch; padding holds `garbage`, but span logits on padding hold `logit_fill`."""
    total = max(one["length"] for one in sentences) + extra
    head, problem = sentences[0]["head"], sentences[0]["problem"]

    def together(blocks: Sequence[Tensor], axes: Sequence[int], fill: float) -> Tensor:
        return torch.stack([_placed(block, axes, total, side, fill) for block in blocks])

    mask = together([torch.ones(one["length"], dtype=torch.bool) for one in sentences], (0,), 0)
    shown: dict[str, Any] = {}
    axes = {
        "hidden": (0,),
        **dict.fromkeys(("attention", "attention_scores"), (1, 2)),
        **dict.fromkeys(("query", "key", "value"), (1,)),
    }
    for signal in axes:
        if signal in sentences[0]:
            shown[signal] = {
                layer: together([one[signal][layer] for one in sentences], axes[signal], garbage)
                for layer in LAYERS
            }
    if "logits" in sentences[0]:
        moved = {"sequence": (), "token": (0,), "span": (1,)}[head]
        fill = logit_fill if head == "span" else garbage
        shown["logits"] = together([one["logits"] for one in sentences], moved, fill)
        gold = () if head == "span" else moved
        shown["labels"] = together([one["labels"] for one in sentences], gold, IGNORED)
        if head == "span" and side == "left":
            start = total - mask.sum(1)
            shown["labels"] = shown["labels"] + start[:, None]
        rows = mask if head == "token" else torch.ones(shown["logits"].shape[:-1]).bool()
        shown["rows"] = rows
        shown["labelled"] = rows & (
            shown["labels"] != IGNORED if problem == "single_label" else rows
        )
    return Signals(mask, **shown)


def _placed(block: Tensor, axes: Sequence[int], total: int, side: str, fill: float) -> Tensor:
    shape = [total if axis in axes else size for axis, size in enumerate(block.shape)]
    placed = torch.full(shape, fill, dtype=block.dtype)
    index = []
    for axis, size in enumerate(block.shape):
        start = total - size if axis in axes and side == "left" else 0
        index.append(slice(start, start + size))
    placed[tuple(index)] = block
    return placed


def batch(
    lengths: Sequence[int], seed: int, needs: Collection[str], **changes: Any
) -> list[Sentence]:
    """Sentences of these lengths, of consecutive seeds."""
    return [sentence(length, seed + at, needs, **changes) for at, length in enumerate(lengths)]


def cast(signals: Signals, dtype: torch.dtype) -> Signals:
    """What a model of this precision would show; labels stay."""
    logits = None if signals.logits is None else signals.logits.to(dtype)
    layered: dict[str, Any] = {
        name: {layer: x.to(dtype) for layer, x in getattr(signals, name).items()}
        for name in LAYERED
    }
    return replace(signals, logits=logits, **layered)


def tracked(signals: Signals) -> tuple[Signals, list[Tensor]]:
    """The same signals as leaves that want a gradient, and these leaves."""
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1]

    changes: dict[str, Any] = {
        name: {layer: leaf(x) for layer, x in getattr(signals, name).items()} for name in LAYERED
    }
    if signals.logits is not None:
        changes["logits"] = leaf(signals.logits)
    return replace(signals, **changes), leaves


def masked_out(signals: Signals) -> Signals:
    """The same signals, of which nothing counts."""
    changes: dict[str, Any] = {
        name: torch.zeros_like(getattr(signals, name))
        for name in ("mask", "rows", "labelled")
        if getattr(signals, name) is not None
    }
    if signals.labels is not None:
        changes["labels"] = torch.full_like(signals.labels, IGNORED)
    return replace(signals, **changes)


def loss_of(
    objective: Objective,
    student: Signals,
    teacher: Signals,
    pairs: Pairs = PAIRS,
    count: Tensor | None = None,
) -> Tensor:
    """The loss, as a mixture of this one objective would give it."""
    values = values_of(objective, student, teacher, pairs)
    return masked_mean(values, student.counted(objective.unit), count)


def values_of(
    objective: Objective, student: Signals, teacher: Signals, pairs: Pairs = PAIRS
) -> Tensor:
    """One value per unit; where a critic is wanted, of one with fixed weights."""
    if objective.critic is not None:
        student = replace(student, scores=_scores(objective, student, teacher, pairs))
    return objective.forward(student, teacher, pairs)


def _scores(
    objective: Objective, student: Signals, teacher: Signals, pairs: Pairs
) -> dict[tuple[int, int], Scores]:
    hidden = student.hidden[pairs[0][0]]
    widths = hidden.shape[-1], teacher.hidden[pairs[0][1]].shape[-1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = LearntCritic(
            objective.critic or Critic(), pairs, *widths, baseline=objective.learns_baseline
        ).to(torch.promote_types(hidden.dtype, torch.float32))
    return {
        pair: critic.score(place, student.hidden[pair[0]], teacher.hidden[pair[1]], student.mask)
        for place, pair in enumerate(pairs)
    }
