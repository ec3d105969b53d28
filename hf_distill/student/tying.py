"""Tensors that a class ties, and that a teacher holds apart all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.student.slicing import inner_name


def untie(student: Any, weights: Mapping[str, Tensor]) -> None:
    """Give a student parameters of its own where the teacher's differ.

    T5 1.1 is such a teacher: its config says that the head is the embeddings, its checkpoint holds
    both, and transformers then ties neither.

    Args:
        student: A model as its class builds it.
        weights: The teacher's, by name without the base model's prefix.
    """
    tied: dict[str, str] = student.all_tied_weights_keys
    for name, source in list(tied.items()):
        pair = [weights.get(inner_name(each, student.base_model_prefix)) for each in (name, source)]
        if not _differ(*pair):
            continue
        module, _, leaf = name.rpartition(".")
        own = student.get_parameter(source).detach().clone()
        setattr(student.get_submodule(module), leaf, nn.Parameter(own))
        del tied[name]


def _differ(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None or first.data_ptr() == second.data_ptr():
        return False
    return not torch.equal(first, second)
