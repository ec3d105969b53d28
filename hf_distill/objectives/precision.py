"""Arithmetic in float32 or wider, whatever the models and autocast compute in."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """The same values in float32, or in their own type where that is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def wide_pair(student: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides widened to one type, the target (a teacher's or gold) without gradient.

    Raises:
        ValueError: The shapes differ; broadcasting would compare what does not belong together.
    """
    if student.shape != target.shape:
        raise ValueError(
            f"target must have the student's shape {tuple(student.shape)}, "
            f"got {tuple(target.shape)!r}. Give both sides the same classes, width and heads."
        )
    student, target = widened(student), widened(target.detach())
    wider = torch.promote_types(student.dtype, target.dtype)
    return student.to(wider), target.to(wider)


def products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of all rows: [..., M, D] and [..., N, D] -> [..., M, N].

    Autocast would cast the factors of a matrix product back to half precision, so it is off here.
    """
    with torch.autocast(left.device.type, enabled=False):
        return widened(left) @ widened(right).transpose(-2, -1)
