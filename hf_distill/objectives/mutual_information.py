"""Mutual information between hidden states of student and teacher, by a learnt critic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.bounds import jensen_shannon, mutual_information, tuba
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.precision import widened
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.settings import check_flag, check_number, check_temperature
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.signals import Scores, Signals, Unit

_POOLE = (
    "Poole, Ozair, van den Oord, Alemi, Tucker: On Variational Bounds of Mutual Information. 2019. "
    "arXiv:1905.06922"
)


@dataclass(frozen=True)
class _Bound(Objective):
    """What all bounds share. The value is the negative of the bound: it may fall below 0.

    Args:
        temperature: Divides the scores; > 0.
        critic: What is scored, and how; in a recipe a mapping of the arguments of `Critic`.
    """

    temperature: Number = 1.0
    critic: Critic = field(default_factory=Critic)  # type: ignore[misc]

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    zero_when_equal: ClassVar[bool] = False
    compares_batch: ClassVar[bool] = True
    citation: ClassVar[str] = _POOLE

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range; count tokens where tokens are scored."""
        check_temperature(self.temperature)
        if isinstance(self.critic, Mapping):
            # Read from YAML.
            object.__setattr__(self, "critic", _critic(self.critic))
        if self.critic.pooling == "tokens":
            object.__setattr__(self, "unit", "token")

    @property
    def reads(self) -> Pooling:
        """What the critic scores."""
        return self.critic.pooling

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B], or [B, T] where the critic scores tokens."""
        return -mean_over_pairs(self.bound(self._tempered(student.scores[pair])) for pair in pairs)

    @abstractmethod
    def bound(self, scores: Scores) -> Tensor:
        """[*N], in nats."""

    def _tempered(self, scores: Scores) -> Scores:
        temperature = fixed(self.temperature)
        return replace(
            scores,
            positive=widened(scores.positive) / temperature,
            negative=widened(scores.negative) / temperature,
        )


def _critic(settings: Mapping[str, Any]) -> Critic:
    known = {field.name for field in fields(Critic)}
    if unknown := set(settings) - known:
        raise ValueError(
            f"critic must hold only {', '.join(sorted(known))}, got {sorted(unknown)}. "
            "Correct the name."
        )
    return Critic(**settings)


@dataclass(frozen=True)
class MIAlpha(_Bound):
    """Mutual information, I_alpha: between InfoNCE (alpha 1) and a learnt baseline (alpha 0).

    Distiller's objective. Small alpha is tighter where student and teacher share much, and noisier.

    Args:
        alpha: 0 < value <= 1; for 0 take TUBA. The paper's code has 0.9.
        exact: Whether the exact leave-one-out form is computed.
    """

    alpha: Number = 0.9
    exact: bool = False

    learns_baseline: ClassVar[bool] = True
    citation: ClassVar[str] = (
        "He, Shi, Zhang, Wang, Li, Yuan: Distiller: A Systematic Study of Model Distillation "
        "Methods in Natural Language Processing. 2021. arXiv:2109.11105"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        super().__post_init__()
        remedy = "For 0 take TUBA, which clamps its exponent."
        check_number("alpha", self.alpha, remedy, above=0, at_most=1)
        check_flag("exact", self.exact)

    def bound(self, scores: Scores) -> Tensor:
        """[*N]."""
        return mutual_information(scores, fixed(self.alpha), self.exact)


@dataclass(frozen=True)
class InfoNCE(_Bound):
    """Mutual information, InfoNCE: the own teacher state among the candidates. At most log(K+1)."""

    citation: ClassVar[str] = (
        "van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding. "
        "2018. arXiv:1807.03748"
    )

    def bound(self, scores: Scores) -> Tensor:
        """[*N]."""
        return mutual_information(scores, alpha=1.0)


@dataclass(frozen=True)
class _Unnormalised(_Bound):
    """A bound with an exponential of single scores.

    Args:
        clamp: The exponent of a negative counts as at most this; > 0. The value is then no strict
            bound, but training does not diverge.
    """

    clamp: Number = 5.0

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range."""
        super().__post_init__()
        remedy = "Above 80 its exponential leaves float32; 5 to 10 is usual."
        check_number("clamp", self.clamp, remedy, above=0, at_most=80)


@dataclass(frozen=True)
class TUBA(_Unnormalised):
    """Mutual information, TUBA: unnormalised, with a learnt baseline. I_alpha at alpha 0."""

    learns_baseline: ClassVar[bool] = True

    def bound(self, scores: Scores) -> Tensor:
        """[*N]."""
        return tuba(scores, fixed(self.clamp))


@dataclass(frozen=True)
class NWJ(_Unnormalised):
    """Mutual information, NWJ: TUBA with the baseline e, also known as f-GAN KL and MINE-f."""

    citation: ClassVar[str] = (
        "Nguyen, Wainwright, Jordan: Estimating Divergence Functionals and the Likelihood Ratio by "
        "Convex Risk Minimization. 2010. arXiv:0809.0853"
    )

    def bound(self, scores: Scores) -> Tensor:
        """[*N]."""
        with_e = replace(scores, baseline=torch.ones_like(scores.baseline))
        return tuba(with_e, fixed(self.clamp))


@dataclass(frozen=True)
class JensenShannonMI(_Bound):
    """Mutual information, Jensen-Shannon: a critic that tells joint from product, stable always.

    The value is no number of nats: see `jensen_shannon`.
    """

    citation: ClassVar[str] = (
        "Hjelm et al.: Learning Deep Representations by Mutual Information Estimation and "
        "Maximization. 2018. arXiv:1808.06670"
    )

    def bound(self, scores: Scores) -> Tensor:
        """[*N]."""
        return jensen_shannon(scores)
