"""Hidden states, coordinate by coordinate, of mapped layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.precision import wide_pair
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.signals.signals import Signals, Unit


def _squares(student: Tensor, teacher: Tensor, normalize: bool) -> Tensor:
    student, teacher = wide_pair(student, teacher)
    if normalize:
        student, teacher = unit_length(student, dim=-1), unit_length(teacher, dim=-1)
    return (student - teacher).square()


def hidden_mse(student: Tensor, teacher: Tensor, normalize: bool = False) -> Tensor:
    """Squared difference, mean over the width: [B, T, D] twice -> [B, T].

    With `normalize`, states have length 1 before: (2 - 2 cos) / D.
    """
    return _squares(student, teacher, normalize).mean(-1)


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine: [B, T, D] twice -> [B, T].

    Computed as half the squared distance of unit vectors, which is exactly 0 when they are equal
    and never below 0.
    """
    return _squares(student, teacher, normalize=True).sum(-1) / 2


def pkd(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of the first tokens' states at length 1: [B, T, D] twice, [B, T] -> [B].

    The first token is the first that is not padding; a sequence without any has value 0.
    """
    rows = torch.arange(mask.shape[0], device=mask.device)
    first = mask.int().argmax(-1)
    values = _squares(student[rows, first], teacher[rows, first], normalize=True).sum(-1)
    return values.masked_fill(~mask.any(-1), 0)


@dataclass(frozen=True)
class HiddenMSE(Objective):
    """Mean squared difference of hidden states, per token.

    Args:
        normalize: Whether states are brought to length 1 first, so that only directions count. The
            value is then at most 4 / width: give the term a larger weight.
    """

    normalize: bool = False

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "token"
    equal_width: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding. 2019. "
        "arXiv:1909.10351"
    )

    def __post_init__(self) -> None:
        """Raise ValueError unless `normalize` is true or false."""
        if not isinstance(self.normalize, bool):
            raise ValueError(
                f"normalize must be true or false, got {self.normalize!r}. Write it without quotes."
            )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            hidden_mse(student.hidden[mine], teacher.hidden[theirs], self.normalize)
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class HiddenCosine(Objective):
    """1 - cosine of hidden states, per token. DistilBERT uses it on the last layer."""

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "token"
    equal_width: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Sanh et al.: DistilBERT, a distilled version of BERT: smaller, faster, cheaper and "
        "lighter. 2019. arXiv:1910.01108"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            hidden_cosine(student.hidden[mine], teacher.hidden[theirs]) for mine, theirs in pairs
        )


@dataclass(frozen=True)
class PKD(Objective):
    """Patient distillation: squared distance of the first token's states at length 1.

    The paper leaves the last layer out and adds the layers up; here pairs are averaged, so weigh by
    their number to get the sum.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    equal_width: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "Sun, Cheng, Gan, Liu: Patient Knowledge Distillation for BERT Model Compression. 2019. "
        "arXiv:1908.09355"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B]."""
        return mean_over_pairs(
            pkd(student.hidden[mine], teacher.hidden[theirs], student.mask)
            for mine, theirs in pairs
        )
