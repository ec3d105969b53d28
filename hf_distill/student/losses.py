"""What the importance of a unit is measured by: the loss that would change without it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import find_labels

from hf_distill.architectures import base_model, forward_options

Batch = Mapping[str, Any]
BatchLoss = Callable[[PreTrainedModel, Batch], Tensor]
"""(teacher, batch) -> the loss, a mean over the batch: []"""
NAMES = ("auto", "task", "masked-lm", "hidden")
IGNORED = -100


def batch_loss(loss: str | BatchLoss, teacher: PreTrainedModel, seed: int) -> BatchLoss:
    """The function that a name stands for; a function itself.

    Raises:
        ValueError: The name is unknown, or the teacher has no such loss.
    """
    if callable(loss):
        return loss
    if loss not in NAMES:
        near = difflib.get_close_matches(str(loss).lower(), NAMES, n=1, cutoff=0.5)
        remedy = f"Did you mean {near[0]!r}?" if near else "Choose one, or give a function."
        raise ValueError(f"loss must be one of {', '.join(NAMES)}, got {loss!r}. {remedy}")
    headed, masks = bool(find_labels(type(teacher))), _is_masked_lm(teacher)
    if loss == "hidden" or (loss == "auto" and not headed):
        return HiddenProbe(seed)
    if not headed:
        raise ValueError(
            f"loss must be 'hidden' for a teacher without a head, got {loss!r} for "
            f"{type(teacher).__name__}. Load the teacher with its head, or take 'hidden'."
        )
    if loss == "masked-lm" and not masks:
        raise ValueError(
            "loss must be 'task' or 'hidden' for a teacher without a masked-language-model head, "
            f"got 'masked-lm' for {type(teacher).__name__}. Load it by AutoModelForMaskedLM."
        )
    return masked_lm_loss if masks and loss != "task" else task_loss


def _is_masked_lm(teacher: PreTrainedModel) -> bool:
    return type(teacher).__name__.endswith("ForMaskedLM")


def task_loss(teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """The teacher's own loss, by the batch's labels.

    Raises:
        ValueError: The batch holds none.
    """
    loss = teacher(**batch, **forward_options(teacher)).get("loss")
    if loss is None:
        raise ValueError(
            f"batches must hold {' or '.join(find_labels(type(teacher)))} for the teacher's own "
            f"loss, got {', '.join(batch)}. Add labels, or score by loss='hidden'."
        )
    return loss


def masked_lm_loss(teacher: PreTrainedModel, batch: Batch) -> Tensor:
    """Cross-entropy of the tokens that are masked, as a collator has chosen them.

    Raises:
        ValueError: The batch has no labels, or labels every token: nothing is masked, and the loss
            would be that of copying.
    """
    labels = batch.get("labels")
    got = "none"
    if labels is not None:
        labelled = labels[_real(batch, labels)] != IGNORED
        if labelled.any() and not labelled.all():
            return task_loss(teacher, batch)
        got = f"{int(labelled.sum())} of {labelled.numel()}"
    raise ValueError(
        f"batches must hold labels of some tokens for loss='masked-lm', got {got}. "
        "Collate them with DataCollatorForLanguageModeling(tokenizer)."
    )


class HiddenProbe:
    """How far the last hidden states move, without labels.

    Their distance to themselves is 0 and so is its gradient; a random direction r for every token
    has one: L = sum_t <r_t, h_t> / sqrt(n), r ~ N(0, I), n tokens. The gradient in a mask m is then
    normal, and E|dL/dm| = sqrt(2 / pi) * sqrt(mean_t |dh_t/dm|^2): to first order, the root mean
    square of what removing the unit does to the states.
    """

    def __init__(self, seed: int) -> None:
        """Start the directions.

        Args:
            seed: Of a generator of its own.
        """
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, teacher: PreTrainedModel, batch: Batch) -> Tensor:
        """The projected states' sum: [].

        Raises:
            ValueError: The model below the head shows no last hidden states.
        """
        base = base_model(teacher)
        known = inspect.signature(base.forward).parameters
        shown = base(
            **{name: value for name, value in batch.items() if name in known},
            **forward_options(teacher),
        ).get("last_hidden_state")
        if shown is None:
            raise ValueError(
                "loss must be 'task' for a teacher that shows no last hidden state, got 'hidden' "
                f"for {type(teacher).__name__}. Add labels, or load it without its head."
            )
        states = shown[_real(batch, shown)]
        # Drawn for real tokens alone, so that padding does not shift what the others get.
        drawn = torch.randn(states.shape, generator=self._generator, dtype=torch.float32)
        direction = drawn.to(device=states.device)
        return (states.float() * direction).sum() / len(states) ** 0.5


def _real(batch: Batch, shown: Tensor) -> Tensor:
    """[B, T], of what is shown for each token [B, T, ...]: a decoder's where there is one."""
    for name in ("decoder_attention_mask", "attention_mask"):
        mask = batch.get(name)
        if mask is not None and mask.shape == shown.shape[:2]:
            return mask.bool()
    return torch.ones(shown.shape[:2], dtype=torch.bool, device=shown.device)
