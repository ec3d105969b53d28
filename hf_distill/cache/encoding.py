"""Rows as they are stored: in full, in half, in a byte each; or the likeliest classes of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Storage = Literal["float32", "bfloat16", "int8"]
"""The precision that is stored."""
Parts = Mapping[str, Tensor]
"""What is stored of one signal's rows, by the end of its name: "" for the numbers themselves."""

_STEPS = 127


def encode(rows: Tensor, storage: Storage) -> dict[str, Tensor]:
    """What is stored of rows [R, W].

    `int8` divides each row by the 127th part of its largest absolute number (part "scale", [R],
    float32) and rounds.
    """
    if storage != "int8":
        return {"": rows.to(getattr(torch, storage))}
    wide = rows.float()
    # Of a row of zeros it is no 0, which would divide them.
    scale = (wide.abs().amax(-1) / _STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    whole = (wide / scale.unsqueeze(-1)).round()
    return {"": whole.to(torch.int8), "scale": scale}


def decode(parts: Parts) -> Tensor:
    """The rows that `encode` was given, as far as they are stored."""
    scale = parts.get("scale")
    return parts[""] if scale is None else parts[""].float() * scale.unsqueeze(-1)


def encode_top(logits: Tensor, count: int, storage: Storage) -> dict[str, Tensor]:
    """What is stored of the `count` largest of each row's logits [R, C].

    Beside them (as `encode` stores them) stand their classes (part "class", [R, count], int32) and
    the logarithm of what the others' exponentials sum to (part "rest", [R], float32), so that the
    probabilities of the classes that are kept stay what they were.
    """
    wide = logits.float()
    largest, classes = wide.topk(count, dim=-1)
    rest = wide.scatter(-1, classes, -math.inf).logsumexp(-1)
    return {**encode(largest, storage), "class": classes.to(torch.int32), "rest": rest}


def decode_top(parts: Parts, classes: int) -> Tensor:
    """Logits [R, C] of which the rest's probability is spread evenly over the other classes.

    Exact for what is kept at temperature 1; at others the rest's share is what such an even rest
    would have.
    """
    largest = decode(parts).float()
    others = classes - largest.shape[-1]
    even = parts["rest"] - math.log(max(others, 1))
    whole = even.unsqueeze(-1).repeat(1, classes)
    return whole.scatter(-1, parts["class"].long(), largest)


class Error(NamedTuple):
    """What is lost by storing: sums, so that those of many batches can be added."""

    lost: float = 0.0
    """Squared differences; with `top`, the divergence KL(full || kept) in nats."""
    whole: float = 0.0
    """Squares; with `top`, rows."""

    @property
    def relative(self) -> float:
        """Root mean square of what is lost, divided by that of the rows."""
        return math.sqrt(self.lost / self.whole) if self.whole else 0.0

    @property
    def nats(self) -> float:
        """Mean divergence of a row."""
        return self.lost / max(self.whole, 1.0)

    def plus(self, other: Error) -> Error:
        """Of both together."""
        return Error(self.lost + other.lost, self.whole + other.whole)


def error(rows: Tensor, parts: Parts) -> Error:
    """What of rows [R, W] is lost by storing these parts."""
    wide = rows.double()
    if "class" not in parts:
        difference = decode(parts).double() - wide
        return Error(difference.square().sum().item(), wide.square().sum().item())
    kept = decode_top(parts, rows.shape[-1]).double().log_softmax(-1)
    full = wide.log_softmax(-1)
    return Error((full.exp() * (full - kept)).sum().item(), float(len(rows)))
