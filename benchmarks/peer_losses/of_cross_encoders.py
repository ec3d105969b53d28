"""sentence-transformers' losses for cross-encoders, on scores that are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.objectives import (
    BinaryCrossEntropy,
    CrossEntropy,
    LogitMSE,
    SigmoidKL,
    SoftCrossEntropy,
    SquaredError,
)
from peer_losses.batches import CLASSES, SENTENCES, Batch
from peer_losses.comparison import Comparison, loss

_TEXTS = ["a"] * SENTENCES


def on_scores() -> list[Comparison]:
    """Its losses of which ours has one; the loss is built around each batch's scores."""
    from sentence_transformers.cross_encoder import losses

    def scored(name: str, given: Batch, labels: Tensor) -> Tensor:
        criterion = getattr(losses, name)(_scorer(given.logits[0]))
        found: Tensor = criterion([_TEXTS, _TEXTS], labels)
        return found

    def certain(given: Batch) -> Tensor:
        return given.logits[1].softmax(-1)

    def in_lists(given: Batch) -> Tensor:
        criterion = losses.ListNetLoss(_scorer(given.logits[0].reshape(-1, 1)))
        inputs, targets = [_TEXTS, [["b"] * CLASSES] * SENTENCES], [*given.logits[1]]
        # It fills a matrix of the default type with float32 scores.
        with _default(torch.float32):
            found: Tensor = criterion(inputs, targets)
        return found

    def entropy(given: Batch) -> Tensor:
        yes = given.logits[1].sigmoid()
        return -(torch.xlogy(yes, yes) + torch.xlogy(1 - yes, 1 - yes)).mean()

    return [
        Comparison(
            "cross_encoder MSELoss",
            lambda b: scored("MSELoss", b, b.logits[1].flatten()),
            LogitMSE(),
            "",
            head="number",
        ),
        Comparison(
            "cross_encoder MSELoss, gold labels",
            lambda b: scored("MSELoss", b, b.labels.flatten()),
            SquaredError(),
            "",
            head="number",
        ),
        Comparison(
            "cross_encoder BinaryCrossEntropyLoss, the teacher's probabilities",
            lambda b: scored("BinaryCrossEntropyLoss", b, b.logits[1].sigmoid().flatten()),
            SigmoidKL(temperature=1.0),
            "A cross-entropy: the teacher's entropy is in it, and it is not 0 for equal scores.",
            rebuilt=lambda b: loss(b, SigmoidKL(temperature=1.0)) + entropy(b),
            head="number",
        ),
        Comparison(
            "cross_encoder BinaryCrossEntropyLoss, gold labels",
            lambda b: scored("BinaryCrossEntropyLoss", b, b.labels.flatten()),
            BinaryCrossEntropy(),
            "",
            head="number",
        ),
        Comparison(
            "cross_encoder CrossEntropyLoss, gold labels",
            lambda b: scored("CrossEntropyLoss", b, b.labels),
            CrossEntropy(),
            "",
        ),
        Comparison(
            "cross_encoder CrossEntropyLoss, the teacher's probabilities",
            lambda b: scored("CrossEntropyLoss", b, certain(b)),
            SoftCrossEntropy(temperature=1.0),
            "",
        ),
        Comparison(
            f"cross_encoder ListNetLoss, {CLASSES} documents",
            in_lists,
            SoftCrossEntropy(temperature=1.0),
            "",
        ),
    ]


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _scorer(scores: Tensor) -> Any:
    """A cross-encoder that gives these scores, [rows, labels], to whatever comes, in order."""
    from sentence_transformers.cross_encoder import CrossEncoder

    class Scorer(CrossEncoder):  # type: ignore[misc]
        num_labels = scores.shape[-1]
        device = torch.device("cpu")

        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.given = 0

        def preprocess(self, pairs: list[Any], **_: Any) -> dict[str, int]:
            return {"count": len(pairs)}

        def forward(self, inputs: dict[str, int]) -> dict[str, Tensor]:
            start, self.given = self.given, self.given + inputs["count"]
            return {"scores": scores[start : self.given]}

    return Scorer()
