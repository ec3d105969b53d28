"""What a device can do, and what a step asks of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class Traffic(TorchDispatchMode):
    """Counts the bytes that operators read and write, views left out.

    What a fused operator keeps to itself is not counted, and what a cache serves is.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what was asked, and count."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            leaves = tree_leaves((args, kwargs, out))
            self.bytes += sum(each.nbytes for each in leaves if isinstance(each, Tensor))
        return out


class Counted(ExitStack):
    """Counts floating-point operations and bytes from `__enter__` to `close`."""

    def __enter__(self) -> Counted:
        """Begin."""
        super().__enter__()
        self._flops = self.enter_context(FlopCounterMode(display=False))
        self._traffic = self.enter_context(Traffic())
        return self

    def facts(self) -> dict[str, int]:
        """What was counted."""
        return {"flops": self._flops.get_total_flops(), "bytes": self._traffic.bytes}


def rates(device: str, size: int = 8192) -> dict[str, float]:
    """Operations per second of a matrix product in bfloat16, bytes per second of a copy.

    Args:
        device: That is measured.
        size: Of the square matrices.
    """
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "ab")
    there = torch.empty_like(left)
    product = _seconds(lambda: torch.mm(left, right, out=there), device)
    copy = _seconds(lambda: there.copy_(left), device)
    return {"flops": 2 * size**3 / product, "bytes": 2 * left.nbytes / copy}


def _seconds(run: Callable[[], Any], device: str, repeats: int = 20) -> float:
    """Of the fastest of a few."""
    fastest = float("inf")
    for _ in range(repeats):
        wait_for(device)
        began = time.perf_counter()
        run()
        wait_for(device)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest


def wait_for(device: str) -> None:
    """Until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
