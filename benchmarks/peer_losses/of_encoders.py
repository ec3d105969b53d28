"""Smaller libraries for encoders: bertdistiller, SetFit, txtai, distil-trainer and torch-cka."""

from __future__ import annotations

import importlib
import math
from contextlib import redirect_stderr
from io import StringIO
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from hf_distill.objectives import (
    CKA,
    AttentionMSE,
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    MiniLM,
    MiniLMv2,
    SimilarityMSE,
)
from hf_distill.objectives.sentence import similarities
from hf_distill.signals.signals import Signals
from peer_losses.batches import (
    HEADS,
    HOT,
    SENTENCES,
    TOKENS,
    WIDER,
    Batch,
    probabilities,
    with_attention,
    with_mask,
    with_padding_counted,
)
from peer_losses.comparison import Comparison, Peer, loss

RELATION_HEADS = 48
Relations = dict[tuple[int, int], float]


class _Model:
    """A model as bertdistiller reads one: its projections give what the signals hold."""

    def __init__(self, signals: Signals) -> None:
        parts = {"query": signals.query, "key": signals.key, "value": signals.value}
        together = {name: each[1].transpose(1, 2).flatten(2) for name, each in parts.items()}
        projections = {name: lambda _, states=states: states for name, states in together.items()}
        attention = SimpleNamespace(self=SimpleNamespace(**projections))
        self.encoder = SimpleNamespace(layer=[SimpleNamespace(attention=attention)])
        self.config = SimpleNamespace(hidden_size=together["query"].shape[-1])

    def __call__(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=[None])


def _bertdistiller() -> ModuleType:
    return importlib.import_module("bertdistiller.distillation.minilm.trainer")


def _of_bertdistiller(module: ModuleType) -> list[Comparison]:
    ours = MiniLMv2(relation_heads=RELATION_HEADS)
    usual = {(1, 1): 1.0, (2, 2): 1.0, (3, 3): 1.0}

    def run(given: Batch, relations: Relations = usual, heads: int = RELATION_HEADS) -> Tensor:
        trainer = object.__new__(module.MiniLMTrainer)
        trainer.args = SimpleNamespace(
            teacher_layer=1,
            student_layer=1,
            num_relation_heads=heads,
            relations=relations,
        )
        trainer.teacher = _Model(given.teacher)
        trainer.attention_extractor = module.BertAttentionExtractor()
        trainer.kl_loss = nn.KLDivLoss(reduction="sum")
        inputs = {"attention_mask": given.mask}
        found: Tensor = trainer.compute_loss(_Model(given.student), inputs)
        return found

    def by_sentence(given: Batch) -> Tensor:
        values = ours.forward(given.student, given.teacher, ((1, 1),))
        sums = values.masked_fill(~given.mask, 0).sum(-1)
        return (sums / given.mask.sum(-1)).mean()

    crossed = MiniLMv2(relation_heads=RELATION_HEADS, relations=("query-key",))
    return [
        Comparison("MiniLMTrainer, 48 relation heads", run, ours, ""),
        Comparison(
            "MiniLMTrainer, 48 relation heads, relation (1, 2)",
            lambda b: run(b, {(1, 2): 1.0}),
            crossed,
            "",
        ),
        Comparison(
            "MiniLMTrainer, as many relation heads as heads, relations (1, 2) and (3, 3)",
            lambda b: run(b, {(1, 2): 1.0, (3, 3): 1.0}, HEADS),
            MiniLM(),
            "",
            shown=_attending,
        ),
        Comparison(
            "MiniLMTrainer, 48 relation heads",
            run,
            ours,
            "The mean of each sentence's mean, as in the paper; in ours every token counts alike.",
            rebuilt=by_sentence,
            padding="right",
        ),
        Comparison(
            "MiniLMTrainer, 48 relation heads",
            run,
            ours,
            "As many tokens as are real are taken from the start, which is padding here.",
            rebuilt=lambda b: by_sentence(with_mask(b, b.mask.flip(-1))),
            padding="left",
        ),
    ]


def _attending(given: Batch) -> Batch:
    """The same signals, whose attention maps are those of their queries and keys."""
    maps = (
        probabilities(
            side.query[1] @ side.key[1].transpose(-2, -1) / math.sqrt(side.key[1].shape[-1]),
            given.mask,
        )
        for side in (given.student, given.teacher)
    )
    return with_attention(given, *maps)


def _setfit() -> ModuleType:
    return importlib.import_module("setfit.sampler")


def _of_setfit(module: ModuleType) -> list[Comparison]:
    def run(given: Batch) -> Tensor:
        from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

        mine, theirs = given.pooled(3)
        wanted = torch.cosine_similarity(theirs.unsqueeze(1), theirs.unsqueeze(0), dim=-1)
        names = [str(number) for number in range(SENTENCES)]
        rows = [*module.ContrastiveDistillationDataset(names, wanted)]
        left, right = (
            torch.tensor([int(row[side]) for row in rows]) for side in ("sentence_1", "sentence_2")
        )
        labels = torch.stack([row["label"] for row in rows])
        found: Tensor = CosineSimilarityLoss(None).compute_loss_from_embeddings(
            [mine[left], mine[right]], labels
        )
        return found

    def all_alike(given: Batch) -> Tensor:
        alike = similarities(given.pooled()[0])
        return (alike - 1)[torch.ones_like(alike).triu().bool()].square().mean()

    return [
        Comparison(
            "DistillationTrainer, all its pairs in one batch",
            run,
            SimilarityMSE(),
            "Every target is 1: pairs are made before sentences are numbered, so each takes the"
            " teacher's similarity of the first sentence to itself. The teacher has no part in it.",
            rebuilt=all_alike,
            padding="right",
            pairs=WIDER,
        )
    ]


def _txtai() -> ModuleType:
    return importlib.import_module("txtai.pipeline.train.hftrainer")


def _of_txtai(module: ModuleType) -> list[Comparison]:
    def run(given: Batch) -> Tensor:
        mine, theirs = given.logits
        trainer = object.__new__(module.DistillationTrainer)
        trainer.teacher = lambda **_: {"logits": theirs}
        trainer.temperature, trainer.alpha = HOT, 0.25
        found: Tensor = trainer.compute_loss(lambda **_: {"logits": mine}, {"labels": given.labels})
        return found

    return [
        Comparison(
            "DistillationTrainer(distillation=(4, 0.25))",
            run,
            ((0.75, CrossEntropy()), (0.25, KLDivergence(temperature=HOT))),
            "",
        )
    ]


def _distil_trainer() -> ModuleType:
    return importlib.import_module("distil_trainer.distillation.losses")


def _of_distil_trainer(module: ModuleType) -> list[Comparison]:
    losses = module.DistillationLosses

    def states(given: Batch) -> Tensor:
        mine, theirs = given.hidden()
        found: Tensor = losses.intermediate_layer_loss((mine,), (theirs,), {0: 0})
        return found

    def maps(given: Batch) -> Tensor:
        sides = ((side.attention[1],) for side in (given.student, given.teacher))
        found: Tensor = losses.attention_transfer_loss(*sides)
        return found

    return [
        Comparison(
            "kl_divergence_loss(temperature=4)",
            lambda b: losses.kl_divergence_loss(*b.logits, HOT),
            KLDivergence(temperature=HOT),
            "",
        ),
        Comparison(
            "intermediate_layer_loss",
            states,
            HiddenMSE(),
            "Padding counts: it takes no mask. (A wider teacher is cut to its first channels,"
            " without a projection.)",
            rebuilt=lambda b: loss(with_padding_counted(b), HiddenMSE()),
            padding="right",
        ),
        Comparison(
            "attention_transfer_loss",
            maps,
            AttentionMSE(),
            "Padding counts as queries; and mean over the keys, ours their sum.",
            rebuilt=lambda b: loss(with_padding_counted(b), AttentionMSE()) / TOKENS,
            padding="right",
        ),
    ]


def _torch_cka() -> ModuleType:
    return importlib.import_module("torch_cka")


def _of_torch_cka(module: ModuleType) -> list[Comparison]:
    def run(given: Batch) -> Tensor:
        measure = module.CKA(nn.Identity(), nn.Identity(), "student", "teacher")
        loaders = (
            DataLoader(TensorDataset(side.detach()), batch_size=SENTENCES)
            for side in given.pooled(3)
        )
        # Its progress bar knows no switch.
        with redirect_stderr(StringIO()):
            measure.compare(*loaders)
        found: Tensor = 1 - measure.hsic_matrix[0, 0]
        return found

    return [
        Comparison(
            "CKA, as 1 - similarity",
            run,
            CKA(pooling="mean"),
            "An unbiased estimate (2010.15327, equation 3) of what ours, as the paper, computes"
            " over the batch at hand. A measure: it has no gradient.",
            rebuilt=_unbiased,
            padding="right",
            pairs=WIDER,
        )
    ]


def _unbiased(given: Batch) -> Tensor:
    """1 - CKA with the unbiased HSIC, without gradient."""
    mine, theirs = ((side @ side.T).detach().fill_diagonal_(0) for side in given.pooled(3))

    def hsic(left: Tensor, right: Tensor) -> Tensor:
        count = len(left)
        together, sums = (left * right).sum(), left.sum() * right.sum()
        crossed = left.sum(0) @ right.sum(0)
        return together + sums / ((count - 1) * (count - 2)) - 2 * crossed / (count - 2)

    return 1 - hsic(mine, theirs) / (hsic(mine, mine) * hsic(theirs, theirs)).sqrt()


PEERS = (
    Peer("bertdistiller", _bertdistiller, _of_bertdistiller),
    Peer("setfit", _setfit, _of_setfit),
    Peer("txtai", _txtai, _of_txtai),
    Peer("distil-trainer", _distil_trainer, _of_distil_trainer),
    Peer("torch-cka", _torch_cka, _of_torch_cka),
)
