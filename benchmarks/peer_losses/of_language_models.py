"""Libraries for language models: TRL, NVIDIA Model Optimizer and OptiPFair."""

from __future__ import annotations

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

from torch import Tensor

from hf_distill.objectives import (
    HiddenCosine,
    JensenShannon,
    KLDivergence,
    ReverseKL,
    SkewedKL,
    SymmetricKL,
)
from hf_distill.objectives.class_divergence import skewed_kl
from peer_losses.batches import BOTH, CLASSES, HOT, TOKENS, Batch, with_logits, with_mask
from peer_losses.comparison import Comparison, Peer, loss

BETA, SKEW = 0.3, 0.4
_NO_SQUARE = "T² is missing."


def _before_next(mask: Tensor) -> Tensor:
    """[B, T] -> [B, T]: the tokens that have a real one after them."""
    shifted = mask.roll(-1, -1)
    shifted[:, -1] = False
    return shifted


def _trl() -> ModuleType:
    return importlib.import_module("trl.experimental.gkd.gkd_trainer")


def _of_trl(module: ModuleType) -> list[Comparison]:
    run = module.GKDTrainer.generalized_jsd_loss
    found = [
        Comparison(
            f"GKDTrainer.generalized_jsd_loss(beta={beta:g}, temperature=4)",
            lambda b, beta=beta: run(*b.logits, beta=beta, temperature=HOT),
            ours,
            _NO_SQUARE,
            factor=1 / HOT**2,
        )
        for beta, ours in (
            (0, KLDivergence(temperature=HOT)),
            (BETA, JensenShannon(temperature=HOT, beta=BETA)),
            (1, ReverseKL(temperature=HOT)),
        )
    ]
    ours = JensenShannon(temperature=1.0, beta=BETA)
    return [
        *found,
        Comparison(
            "GKDTrainer.generalized_jsd_loss(temperature=4), beta 0 and beta 1 together",
            lambda b: sum(run(*b.logits, beta=beta, temperature=HOT) for beta in (0, 1)),
            SymmetricKL(temperature=HOT),
            _NO_SQUARE,
            factor=1 / HOT**2,
        ),
        Comparison(
            "GKDTrainer.generalized_jsd_loss(beta=0.3), tokens with labels",
            lambda b: run(*b.logits, labels=b.labels, beta=BETA),
            ours,
            "",
            padding="right",
            head="token",
        ),
        Comparison(
            "GKDTrainer.generalized_jsd_loss(beta=0.3), tokens without labels",
            lambda b: run(*b.logits, beta=BETA),
            ours,
            "Without labels the sum over all tokens is divided by the sentences alone.",
            factor=TOKENS,
            head="token",
        ),
    ]


def _model_optimizer() -> ModuleType:
    return importlib.import_module("modelopt.torch.distill.plugins.huggingface")


def _of_model_optimizer(module: ModuleType) -> list[Comparison]:
    divergence = module.LogitsDistillationLoss
    ours, plain = KLDivergence(temperature=HOT), KLDivergence(temperature=1.0)

    def trained(given: Batch) -> Tensor:
        mine, theirs = (SimpleNamespace(logits=side) for side in given.logits)
        trainer = SimpleNamespace(
            _last_teacher_outputs=theirs, _kd_criterion=divergence(1.0, "none")
        )
        found: Tensor = module.KDTrainer._standard_kd_loss(trainer, mine, given.labels)
        return found

    def without_last(given: Batch) -> Tensor:
        mine, theirs = (side[:-1] for side in given.logits)
        return loss(with_logits(given, mine, theirs, given.student.counted("row")[:-1]), plain)

    def without_last_tokens(given: Batch) -> Tensor:
        return loss(with_logits(given, *given.logits, _before_next(given.mask)), plain)

    return [
        Comparison(
            "LogitsDistillationLoss(4, 'batchmean')",
            lambda b: divergence(HOT, "batchmean")(*b.logits),
            ours,
            "",
        ),
        Comparison(
            "LogitsDistillationLoss(4)",
            lambda b: divergence(HOT)(*b.logits),
            ours,
            "Its default is the mean over all entries: a divergence over the number of classes.",
            factor=1 / CLASSES,
        ),
        Comparison(
            "KDTrainer, a sentence classifier",
            trained,
            plain,
            "Logits are shifted as if by one token: of [B, C] the last example is dropped.",
            rebuilt=without_last,
        ),
        Comparison(
            "KDTrainer, a token classifier",
            trained,
            plain,
            "Shifted by one: the last token of each sentence is dropped.",
            rebuilt=without_last_tokens,
            padding="right",
            head="token",
        ),
    ]


def _optipfair() -> ModuleType:
    return importlib.import_module("optipfair.distillation.loss")


def _of_optipfair(module: ModuleType) -> list[Comparison]:
    none = {"alpha": 0.0, "beta": 0.0}

    def on_logits(given: Batch) -> Tensor:
        settings: dict[str, Any] = {**none, "beta": 1.0, "temperature": HOT, "skew_alpha": SKEW}
        found: Tensor = module.compute_distillation_loss(
            *given.logits, None, None, given.labels, **settings
        )[0]
        return found

    def on_states(given: Batch) -> Tensor:
        states = ([*side] for side in zip(given.hidden(1), given.hidden(2), strict=True))
        found: Tensor = module.compute_distillation_loss(
            *given.logits, *states, given.labels, layer_map=[0, 1], gamma=1.0, **none
        )[0]
        return found

    def of_constants(given: Batch) -> Tensor:
        mine, theirs = given.logits
        # The sides are swapped, and the side in the teacher's place takes no gradient.
        values = skewed_kl(student=theirs, teacher=mine, temperature=HOT, skew=SKEW)
        counted = _before_next(given.mask)
        return values.masked_fill(~counted, 0).sum() / counted.sum()

    return [
        Comparison(
            "compute_distillation_loss(alpha=0, beta=1, temperature=4)",
            on_logits,
            SkewedKL(temperature=HOT, skew=SKEW),
            "No gradient at all: the student's probabilities are constants in it, and the sum of p"
            " ∇log p is 0. The value is KL(student || mixture), without the last token.",
            rebuilt=of_constants,
            padding="right",
            head="token",
        ),
        Comparison(
            "compute_distillation_loss(alpha=0, beta=0, gamma=1)",
            on_states,
            HiddenCosine(),
            "Shifted by one, as for language models: the last token of each sentence is dropped.",
            rebuilt=lambda b: loss(with_mask(b, _before_next(b.mask)), HiddenCosine(), BOTH),
            padding="right",
            head="token",
            pairs=BOTH,
        ),
    ]


PEERS = (
    Peer("trl", _trl, _of_trl),
    Peer("nvidia-modelopt", _model_optimizer, _of_model_optimizer),
    Peer("optipfair", _optipfair, _of_optipfair),
)
