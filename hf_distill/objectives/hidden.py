"""Hidden states, coordinate by coordinate, of mapped layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import mse_loss
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.divergence import kl
from hf_distill.objectives.pooling import SENTENCE
from hf_distill.objectives.precision import wide_pair
from hf_distill.objectives.settings import check_flag
from hf_distill.objectives.states import PooledStates
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Signals, Unit


def _squares(student: Tensor, teacher: Tensor, normalize: bool) -> Tensor:
    student, teacher = wide_pair(student, teacher)
    if normalize:
        student, teacher = unit_length(student, dim=-1), unit_length(teacher, dim=-1)
    # Unlike a difference that is squared, it holds no third tensor of their size.
    return mse_loss(student, teacher, reduction="none")


def hidden_mse(student: Tensor, teacher: Tensor, normalize: bool = False) -> Tensor:
    """Squared difference, mean over the width: [..., D] twice -> [...].

    With `normalize`, states have length 1 before: (2 - 2 cos) / D.
    """
    return _squares(student, teacher, normalize).mean(-1)


def hidden_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine: [..., D] twice -> [...].

    Computed as half the squared distance of unit vectors, which is exactly 0 when they are equal
    and never below 0.
    """
    return _squares(student, teacher, normalize=True).sum(-1) / 2


def hidden_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of the softmax over the width: [..., D] twice -> [...]."""
    student, teacher = (side.log_softmax(-1) for side in wide_pair(student, teacher))
    return kl(student, teacher)


@dataclass(frozen=True)
class _Coordinates(PooledStates):
    """What losses on single coordinates share: they count tokens, or sentences once pooled."""

    pooling: Pooling = field(default="tokens", kw_only=True)

    poolings: ClassVar[tuple[Pooling, ...]] = ("tokens", *SENTENCE)
    unit: ClassVar[Unit] = "token"
    equal_width: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Raise ValueError on an unknown pooling; count what it leaves."""
        super().__post_init__()
        if self.pooling != "tokens":
            # Frozen.
            object.__setattr__(self, "unit", "sequence")


@dataclass(frozen=True)
class HiddenMSE(_Coordinates):
    """Mean squared difference of hidden states, per token.

    Args:
        normalize: Whether states are brought to length 1 first, so that only directions count. The
            value is then at most 4 / width: give the term a larger weight.
        pooling: "tokens"; or "first" or "mean", which compare one state of each sentence.
    """

    normalize: bool = False

    citation: ClassVar[str] = (
        "Jiao et al.: TinyBERT: Distilling BERT for Natural Language Understanding. 2019. "
        "arXiv:1909.10351"
    )

    def __post_init__(self) -> None:
        """Raise ValueError unless `normalize` is true or false."""
        super().__post_init__()
        check_flag("normalize", self.normalize)

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B, T] or [B]."""
        return hidden_mse(student, teacher, self.normalize)


@dataclass(frozen=True)
class HiddenCosine(_Coordinates):
    """1 - cosine of hidden states, per token. DistilBERT uses it on the last layer.

    Args:
        pooling: "tokens"; or "first" or "mean", which compare one state of each sentence.
    """

    citation: ClassVar[str] = (
        "Sanh et al.: DistilBERT, a distilled version of BERT: smaller, faster, cheaper and "
        "lighter. 2019. arXiv:1910.01108"
    )

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B, T] or [B]."""
        return hidden_cosine(student, teacher)


@dataclass(frozen=True)
class HiddenKL(_Coordinates):
    """KL(teacher || student) of softmax over the coordinates of a hidden state, per token.

    Distiller's "ce", without the teacher's entropy: same gradient, but 0 when equal.

    Args:
        pooling: "tokens"; or "first" or "mean", which compare one state of each sentence.
    """

    citation: ClassVar[str] = (
        "He, Shi, Zhang, Wang, Li, Yuan: Distiller: A Systematic Study of Model Distillation "
        "Methods in Natural Language Processing. 2021. arXiv:2109.11105"
    )

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B, T] or [B]."""
        return hidden_kl(student, teacher)


@dataclass(frozen=True)
class PKD(Objective):
    """Patient distillation: squared distance of the first token's states at length 1.

    That is twice HiddenCosine(pooling="first"): the paper's formula. Its code takes the mean over
    the width, so divide the weight that it gives by the width. The paper leaves the last layer out
    and adds the layers up; here pairs are averaged, so weigh by their number to get the sum.
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
        return 2 * HiddenCosine(pooling="first").forward(student, teacher, pairs)
