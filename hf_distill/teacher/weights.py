"""A teacher's weights: of which type they are, and what may be done to them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import nn

from hf_distill.architectures import plain_model, twin

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
"""What a teacher's weights can be cast to; "auto" is what the device computes fastest in."""

_BFLOAT16_ON_CPU = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""Queries of `torch.cpu`, of which early versions may lack some."""


def check_dtype(name: Any) -> None:
    """Raise ValueError unless it is one of `Dtype`, or None."""
    if name is not None and name not in get_args(Dtype):
        raise ValueError(
            f"teacher_dtype must be one of {', '.join(get_args(Dtype))}, got {name!r}. Leave it "
            "out to run the teacher as it is."
        )


def dtype_on(device: torch.device, name: Dtype) -> torch.dtype:
    """The type that a name stands for on a device.

    "auto" is bfloat16 where the device computes in it by itself, on a CUDA device float16
    otherwise, on any other float32.
    """
    if name != "auto":
        found: torch.dtype = getattr(torch, name)
        return found
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    queries = [getattr(torch.cpu, query, lambda: False) for query in _BFLOAT16_ON_CPU]
    native = device.type == "cpu" and any(query() for query in queries)
    return torch.bfloat16 if native else torch.float32


def spelt(dtype: torch.dtype) -> str:
    """A type as users name it."""
    return str(dtype).removeprefix("torch.")


def is_movable(model: nn.Module) -> bool:
    """Whether weights may be moved, cast and shared: not if quantized, or spread over devices."""
    plain = plain_model(model)
    places = set((getattr(plain, "hf_device_map", None) or {}).values())
    spread = len(places) > 1 or "disk" in places
    return not spread and not getattr(plain, "is_quantized", False)


def cast(model: nn.Module, dtype: torch.dtype) -> Any:
    """A copy of a frozen model with weights of one type.

    Weights that are of that type already are shared. Buffers keep theirs: rounded frequencies of
    rotary positions would turn far tokens elsewhere. In float16 the modules that a family names
    for it stay in float32, since they overflow.
    """
    done: dict[int, Any] = {}
    for parameter, target in _targets(model, dtype):
        if parameter.dtype == target:
            done[id(parameter)] = parameter
        else:
            narrow = parameter.detach().to(target)
            done[id(parameter)] = nn.Parameter(narrow, requires_grad=False)
    return copy.deepcopy(twin(model), done)


def cast_in_place(model: nn.Module, dtype: torch.dtype) -> None:
    """The same for a model that nobody else holds: each weight goes as its successor comes."""
    for parameter, target in _targets(model, dtype):
        parameter.data = parameter.data.to(target)


def _targets(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[nn.Parameter, torch.dtype]]:
    """Each weight of floating point, and the type that it is to have."""
    named = getattr(plain_model(model), "_keep_in_fp32_modules", None) or ()
    wide = set(named) if dtype == torch.float16 else set()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            kept = not wide.isdisjoint(name.split("."))
            yield parameter, torch.float32 if kept else dtype
