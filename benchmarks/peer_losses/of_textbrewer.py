"""TextBrewer: all of its registry, KD_LOSS_MAP and MATCH_LOSS_MAP."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from torch import Tensor

from hf_distill.objectives import (
    FSP,
    NST,
    PKD,
    HiddenCosine,
    HiddenMSE,
    KLDivergence,
    LogitMSE,
    SoftCrossEntropy,
    TokenGramMSE,
)
from hf_distill.objectives.gram import token_gram
from peer_losses.batches import BOTH, HOT, TOKENS, WIDER, WIDTH, Batch, with_padding_counted
from peer_losses.comparison import Comparison, Peer, loss
from peer_losses.of_textbrewer_attention import on_attention

_NO_MASK = (
    "Padding counts: `inputs_mask` is optional, and without it every position is taken for real."
)
_NO_SQUARE = "T² is missing: the gradient fades as 1/T² against that of gold labels."


def _load() -> ModuleType:
    """Its losses. Importing them imports tensorboard's writer, which only training needs."""
    name = "tensorboardX"
    if importlib.util.find_spec(name) is None:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].SummaryWriter = None  # type: ignore[attr-defined]
    try:
        return importlib.import_module("textbrewer.presets")
    finally:
        if sys.modules.get(name) and sys.modules[name].__spec__ is None:
            del sys.modules[name]


def _comparisons(presets: ModuleType) -> list[Comparison]:
    """Its losses on logits and on hidden states; those on attention stand in a file of theirs."""
    kd, match = presets.KD_LOSS_MAP, presets.MATCH_LOSS_MAP
    return [*_on_logits(kd), *_on_states(match), *_on_grams(match), *on_attention(match)]


def _on_logits(kd: dict[str, Callable[..., Tensor]]) -> list[Comparison]:
    from textbrewer.distiller_utils import select_logits_with_mask

    def selected(given: Batch) -> Tensor:
        masks = [given.mask.long()]
        mine, shown = (select_logits_with_mask([side], masks)[0] for side in given.logits)
        return kd["ce"](mine, shown)

    def entropy(given: Batch) -> Tensor:
        logs = (given.logits[1] / HOT).log_softmax(-1)
        return -(logs.exp() * logs).sum(-1).mean()

    return [
        Comparison("ce", lambda b: kd["ce"](*b.logits), SoftCrossEntropy(temperature=1.0), ""),
        Comparison(
            "ce, temperature 4",
            lambda b: kd["ce"](*b.logits, HOT),
            SoftCrossEntropy(temperature=HOT),
            _NO_SQUARE,
            factor=1 / HOT**2,
        ),
        Comparison(
            "ce, temperature 4",
            lambda b: kd["ce"](*b.logits, HOT),
            KLDivergence(temperature=HOT),
            "T² is missing, and the teacher's entropy is in it: it is not 0 for equal models.",
            rebuilt=lambda b: loss(b, KLDivergence(temperature=HOT)) / HOT**2 + entropy(b),
        ),
        Comparison(
            "ce, tokens, logits_mask",
            selected,
            SoftCrossEntropy(temperature=1.0),
            "",
            padding="right",
            head="token",
        ),
        Comparison(
            "ce, tokens",
            lambda b: kd["ce"](*b.logits),
            SoftCrossEntropy(temperature=1.0),
            "Padding counts: `logits_mask` is optional, and `inputs_mask` is not used for logits.",
            rebuilt=lambda b: loss(with_padding_counted(b), SoftCrossEntropy(temperature=1.0)),
            padding="right",
            head="token",
        ),
        Comparison("mse", lambda b: kd["mse"](*b.logits), LogitMSE(), ""),
        Comparison(
            "mse, temperature 4",
            lambda b: kd["mse"](*b.logits, HOT),
            LogitMSE(),
            "Logits are divided by T and nothing is multiplied back; ours has no temperature.",
            factor=1 / HOT**2,
        ),
    ]


def _on_states(match: dict[str, Callable[..., Tensor]]) -> list[Comparison]:
    found = []
    for name, ours in (("hidden_mse", HiddenMSE()), ("cos", HiddenCosine())):
        run = match[name]
        found += [
            Comparison(name, lambda b, run=run: run(*b.hidden()), ours, ""),
            Comparison(
                f"{name}, mask",
                lambda b, run=run: run(*b.hidden(), mask=b.mask),
                ours,
                "",
                padding="right",
            ),
            Comparison(
                name,
                lambda b, run=run: run(*b.hidden()),
                ours,
                _NO_MASK,
                rebuilt=lambda b, ours=ours: loss(with_padding_counted(b), ours),
                padding="right",
            ),
        ]
    pkd = match["pkd"]
    return [
        *found,
        Comparison("pkd", lambda b: pkd(*b.hidden(), mask=b.mask), PKD(), "", padding="right"),
        Comparison(
            "pkd",
            lambda b: pkd(*b.hidden(), mask=b.mask),
            PKD(),
            "Position 0 is compared, which is padding here; the mask is not used.",
            rebuilt=lambda b: loss(with_padding_counted(b), PKD()),
            padding="left",
        ),
    ]


def _on_grams(match: dict[str, Callable[..., Tensor]]) -> list[Comparison]:
    ours = FSP(normalize=False)
    found = []
    for name in ("fsp", "gram"):
        run = match[name]
        found.append(
            Comparison(
                name,
                lambda b, run=run: run(*_two_layers(b)),
                ours,
                "Mean over the D² entries; the paper, and ours, have the squared Frobenius norm.",
                factor=WIDTH**-2,
                pairs=BOTH,
            )
        )
    fsp = match["fsp"]
    return [
        *found,
        Comparison(
            "fsp, mask",
            lambda b: fsp(*_two_layers(b), mask=b.mask),
            ours,
            "As without padding.",
            factor=WIDTH**-2,
            padding="right",
            pairs=BOTH,
        ),
        Comparison(
            "fsp",
            lambda b: fsp(*_two_layers(b)),
            ours,
            _NO_MASK,
            rebuilt=lambda b: loss(with_padding_counted(b), ours, BOTH) / WIDTH**2,
            padding="right",
            pairs=BOTH,
        ),
        *_on_token_grams(match),
    ]


def _on_token_grams(match: dict[str, Callable[..., Tensor]]) -> list[Comparison]:
    ours = TokenGramMSE(normalize=False)
    mmd, nst = match["mmd"], match["nst"]
    return [
        Comparison("mmd", lambda b: mmd(*_one_layer(b)), ours, ""),
        Comparison("mmd, wider teacher", lambda b: mmd(*_one_layer(b, 3)), ours, "", pairs=WIDER),
        Comparison(
            "mmd, mask of ones",
            lambda b: mmd(*_one_layer(b), mask=b.mask),
            ours,
            "With a mask, inner products are divided by the length T instead of the width D: a mask"
            " of ones changes the value by (D/T)².",
            factor=(WIDTH / TOKENS) ** 2,
        ),
        Comparison(
            "mmd, mask of ones, wider teacher",
            lambda b: mmd(*_one_layer(b, 3), mask=b.mask),
            ours,
            "The same division: at different widths the two sides are no longer on one scale, and"
            " the target itself is wrong.",
            rebuilt=lambda b: _divided_by_length(*b.hidden(1, 3), b.mask),
            pairs=WIDER,
        ),
        Comparison(
            "mmd, mask",
            lambda b: mmd(*_one_layer(b), mask=b.mask),
            ours,
            "The same division; and pairs of tokens count alike, long sentences quadratically. In"
            " ours tokens do.",
            rebuilt=lambda b: _divided_by_length(*b.hidden(), b.mask),
            padding="right",
        ),
        Comparison(
            "nst",
            lambda b: nst(*_one_layer(b)),
            NST(),
            "Its `nst` is `mmd`, inner products of tokens: no neuron is brought to length 1 and the"
            " kernel is not squared, as the paper has it. It is our TokenGramMSE.",
            rebuilt=lambda b: loss(b, ours),
        ),
    ]


def _two_layers(given: Batch) -> Sequence[list[Tensor]]:
    return tuple([*layers] for layers in zip(given.hidden(1), given.hidden(2), strict=True))


def _one_layer(given: Batch, theirs: int = 1) -> Sequence[list[Tensor]]:
    return tuple([side, side] for side in given.hidden(1, theirs))


def _divided_by_length(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Our Gram matrices, times D / T, over all pairs of real tokens."""
    mine, theirs = (
        token_gram(side, mask, normalize=False) * side.shape[-1] / TOKENS
        for side in (student, teacher)
    )
    return (mine - theirs).square().sum() / mask.sum(-1).square().sum()


def _registered(presets: ModuleType) -> set[str]:
    return {*presets.KD_LOSS_MAP, *presets.MATCH_LOSS_MAP}


PEERS = (Peer("textbrewer", _load, _comparisons, _registered),)
