"""Tiny teachers whose every weight is distinct, and the same teachers with parts masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from hf_distill.architectures import base_model, layers
from hf_distill.student import IndexSets
from tests import tiny

FAMILIES = ("Bert", "Roberta", "XLMRoberta")
HEADS = (
    "Model",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMaskedLM",
    "ForMultipleChoice",
)


def teacher(family: str = "Bert", head: str = "Model", **changes: Any) -> Any:
    """A tiny model in float64; norms and biases are random too, so that a forgotten one shows."""
    if (family, head, transformers.__version__) == ("XLMRoberta", "ForMultipleChoice", "5.0.0"):
        pytest.skip("this model of transformers 5.0.0 asks for an output that is not there")
    model = tiny.model(family, head, **changes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def inputs(head: str = "Model", length: int = 7) -> dict[str, Tensor]:
    """A batch of two sequences, the second of them padded."""
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, -2:] = 0
    batch = {"input_ids": torch.randint(2, tiny.VOCABULARY, (2, length)), "attention_mask": mask}
    if head == "ForMultipleChoice":
        return {name: tensor.unsqueeze(0) for name, tensor in batch.items()}
    return batch


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """Every tensor that a model answers with."""
    with torch.no_grad():
        found = model(**batch)
    return [value for value in found.values() if isinstance(value, Tensor)]


def close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-12) -> bool:
    """Whether two lists of tensors are equal up to a tolerance."""
    return len(first) == len(second) and all(
        a.shape == b.shape and bool((a - b).abs().max() < tolerance)
        for a, b in zip(first, second, strict=True)
    )


def kept(width: int, indices: Any) -> Tensor:
    """[width] of ones where an index is kept, zeros elsewhere."""
    mask = torch.zeros(width, dtype=torch.float64)
    mask[list(indices)] = 1.0
    return mask


def _masking(indices: Any, module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * kept(output.shape[-1], indices)


def _norm_over(indices: Any, module: nn.LayerNorm, args: Any, output: Tensor) -> Tensor:
    """LayerNorm over the kept units alone, zero elsewhere."""
    units = list(indices)
    result = torch.zeros_like(output)
    result[..., units] = nn.functional.layer_norm(
        args[0][..., units], (len(units),), module.weight[units], module.bias[units], module.eps
    )
    return result


@contextmanager
def masked(model: nn.Module, indices: IndexSets) -> Iterator[None]:
    """The model with all masked that the index sets leave out. Its layers must all be kept."""
    handles = []

    def mask(module: nn.Module, chosen: Any) -> None:
        handles.append(module.register_forward_hook(partial(_masking, chosen)))

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            handles.append(module.register_forward_hook(partial(_norm_over, indices.hidden)))
    pooler = getattr(base_model(model), "pooler", None)
    dense = getattr(getattr(model, "classifier", None), "dense", None)
    for module in (pooler, dense):
        if module is not None:
            mask(module, indices.hidden)
    for layer, sets in zip(layers(model), indices.layers, strict=True):
        mask(layer.get_submodule("intermediate"), sets.ffn)
        mask(layer.get_submodule("attention.self.query"), sets.attention.query_key)
        mask(layer.get_submodule("attention.self.value"), sets.attention.value)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
