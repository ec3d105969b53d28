"""Alignment of whole representations: alike up to rotation and scale (CKA), at any widths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.pooling import SENTENCE
from hf_distill.objectives.precision import products, widened
from hf_distill.objectives.states import PooledStates
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Unit


def cka(student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
    """1 - linear centred kernel alignment, of 1905.00414.

    With X and Y the states of N examples, less their mean over the examples:

        1 - ||X^T Y||_F^2 / (||X^T X||_F ||Y^T Y||_F)

    Args:
        student: [..., D], one state for each example.
        teacher: [..., D], of any width.
        real: [...] bool, the examples that exist.

    Returns:
        A scalar from 0 to 1. 0 where the teacher's states are all the same, so with less than two
        examples; with two it is 0 whatever they are.
    """
    mine, theirs = _centred(student, real), _centred(teacher.detach(), real)
    # In the student's type: a product has one.
    theirs = theirs.to(mine.dtype)
    shared, own, target = (
        products(left.T, right.T).square().sum()
        for left, right in ((mine, theirs), (mine, mine), (theirs, theirs))
    )
    # The root of the product, not the product of the roots: 1 - 1 is then 0 for equal states.
    scale = (own * target).clamp(min=torch.finfo(own.dtype).tiny).sqrt()
    return (1 - shared / scale).clamp(min=0).masked_fill(target == 0, 0)


def _centred(states: Tensor, real: Tensor) -> Tensor:
    """[..., D] -> [N, D]: less their mean, and of length 1 all together; 0 where none is real."""
    states, real = widened(states).flatten(0, -2), real.flatten().unsqueeze(-1)
    mean = states.masked_fill(~real, 0).sum(0) / real.sum().clamp(min=1)
    apart = (states - mean).masked_fill(~real, 0)
    return unit_length(apart.flatten(), dim=0).view_as(apart)


@dataclass(frozen=True)
class CKA(PooledStates):
    """1 - linear centred kernel alignment of the batch's states, at any widths.

    Blind to rotation and to scale. One value of the whole batch, of one process, which each of its
    sequences is given.

    Args:
        pooling: What an example is: each of the "tokens"; or one state per sentence, the "mean" of
            its tokens or its "first" one. Have more examples than the width: with fewer, any two
            representations look alike.
    """

    pooling: Pooling = field(default="tokens", kw_only=True)

    poolings: ClassVar[tuple[Pooling, ...]] = ("tokens", *SENTENCE)
    unit: ClassVar[Unit] = "sequence"
    compares_batch: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Kornblith, Norouzi, Lee, Hinton: Similarity of Neural Network Representations Revisited. "
        "2019. arXiv:1905.00414"
    )

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B], the same value B times."""
        return cka(student, teacher, real).expand(len(real))
