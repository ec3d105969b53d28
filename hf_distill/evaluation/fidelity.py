"""How well a small sentence encoder keeps the geometry of a large one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn


@torch.no_grad()
def embed(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    batch_size: int = 64,
    max_length: int = 128,
) -> Tensor:
    """Sentence embeddings: the last layer's mean over real tokens, normalised.

    Returns [len(texts), width], float32.

    Args:
        model: An encoder; a head on it is not used. Its training mode is kept.
        tokenizer: Its tokenizer.
        texts: Sentences, in any order; they are batched by length.
        batch_size: Sentences at a time.
        max_length: Longer texts are cut, in tokens.
    """
    encoder = model.base_model
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found: dict[int, Tensor] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer(
            [texts[index] for index in chosen],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_tensors="pt",
        ).to(device)
        states = encoder(**batch).last_hidden_state.float()
        weights = batch["attention_mask"][..., None].float()
        means = (states * weights).sum(1) / weights.sum(1)
        found.update(zip(chosen, nn.functional.normalize(means, dim=-1).cpu(), strict=True))
    encoder.train(training)
    return torch.stack([found[index] for index in range(len(texts))])


def fidelity(student: Tensor, teacher: Tensor) -> float:
    """Spearman correlation of two models' cosine similarities over all pairs of the same sentences.

    Args:
        student: [N, any width], as `embed` gives.
        teacher: [N, any width].

    Returns:
        1 where both order all pairs alike.
    """
    row, column = torch.triu_indices(len(teacher), len(teacher), offset=1)
    pairs = [(embedded @ embedded.T)[row, column].numpy() for embedded in (student, teacher)]
    return float(spearmanr(*pairs).statistic)
