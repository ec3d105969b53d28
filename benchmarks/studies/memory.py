"""How much memory a process took."""

from __future__ import annotations

from pathlib import Path

import torch


def peak(device: str = "cpu") -> int:
    """The most bytes that this process held: of its address space, or of the device given.

    On a device they are those of tensors.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Linux hands ru_maxrss on to a child: ask for the peak of this address space.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
