"""Inner products within a sentence: of tokens (Gram), of neurons (NST), of two layers (FSP)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.precision import products, wide_pair, widened
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.objectives.settings import check_flag
from hf_distill.signals.signals import Signals, Unit


def _inside(hidden: Tensor, mask: Tensor) -> Tensor:
    return widened(hidden).masked_fill(~mask.unsqueeze(-1), 0)


def token_gram(hidden: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """Inner products of a sentence's tokens: [B, T, D] and [B, T] -> [B, T, T]; 0 on padding.

    With `normalize` they are cosines; without, divided by the width D.
    """
    states = _inside(hidden, mask)
    if normalize:
        states = unit_length(states, dim=-1)
        return products(states, states)
    return products(states, states) / states.shape[-1]


def token_gram_mse(
    student: Tensor, teacher: Tensor, mask: Tensor, normalize: bool = True
) -> Tensor:
    """Squared difference of inner products, mean over the sentence's real tokens.

    Args:
        student: [B, T, D].
        teacher: [B, T, D], of any width.
        mask: [B, T] bool, the real tokens.
        normalize: See `token_gram`.

    Returns:
        [B, T], one value per token.
    """
    mine, theirs = wide_pair(
        token_gram(student, mask, normalize), token_gram(teacher, mask, normalize)
    )
    return (mine - theirs).square().sum(-1) / mask.sum(-1, keepdim=True).clamp(min=1)


def neuron_selectivity(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over neurons i of f_i f_i^T: [B, T, D] and [B, T] -> [B, T, T]; 0 on padding.

    f_i is what neuron i shows at the sentence's real tokens, at length 1.
    """
    patterns = unit_length(_inside(hidden, mask), dim=-2)
    return products(patterns, patterns) / patterns.shape[-1]


def nst(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the neurons of both sides, as in 1707.01219.

    With f_i of the student's neurons, g_j of the teacher's, both over the sentence's real tokens
    and at length 1, and the polynomial kernel k(x, y) = (x . y)^2:

        mean_ii' k(f_i, f_i') + mean_jj' k(g_j, g_j') - 2 mean_ij k(f_i, g_j)

    As k(x, y) is the inner product of x x^T and y y^T, it is the squared Frobenius distance of
    their means over the neurons. It is computed so: never below 0, and without a matrix of neurons.

    Args:
        student: [B, T, D].
        teacher: [B, T, D], of any width.
        mask: [B, T] bool, the real tokens.

    Returns:
        [B]; at most 2.
    """
    mine, theirs = wide_pair(neuron_selectivity(student, mask), neuron_selectivity(teacher, mask))
    return (mine - theirs).square().sum((-2, -1))


def flow(lower: Tensor, upper: Tensor, mask: Tensor, normalize: bool) -> Tensor:
    """Mean over real tokens of lower upper^T, as in Yim et al. 2017 over places of an image.

    Args:
        lower: [B, T, D], states of one layer.
        upper: [B, T, D], states of a later layer.
        mask: [B, T] bool, the real tokens.
        normalize: Whether states are brought to length 1 before.

    Returns:
        [B, D, D]; 0 for an empty sentence.
    """
    sides = [_inside(side, mask) for side in (lower, upper)]
    if normalize:
        sides = [unit_length(side, dim=-1) for side in sides]
    total = products(*(side.transpose(-2, -1) for side in sides))
    return total / mask.sum(-1).clamp(min=1)[:, None, None]


def fsp(
    student: tuple[Tensor, Tensor],
    teacher: tuple[Tensor, Tensor],
    mask: Tensor,
    normalize: bool = True,
) -> Tensor:
    """Squared Frobenius distance of the flows between two layers.

    Args:
        student: States of two layers, [B, T, D].
        teacher: States of two layers, [B, T, D], of the same width.
        mask: [B, T] bool, the real tokens.
        normalize: Whether states are brought to length 1 before; the value is then at most 4.

    Returns:
        [B].
    """
    mine, theirs = wide_pair(*(flow(*side, mask, normalize) for side in (student, teacher)))
    return (mine - theirs).square().sum((-2, -1))


@dataclass(frozen=True)
class TokenGramMSE(Objective):
    """Squared difference of the inner products of a sentence's tokens, at any widths.

    Args:
        normalize: Whether tokens have length 1, so that the products are cosines. Without, they
            are divided by the width; a few huge channels then rule them, and float16 is too narrow
            for their gradient.
    """

    normalize: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "token"
    citation: ClassVar[str] = (
        "Yang et al.: TextBrewer: An Open-Source Knowledge Distillation Toolkit for Natural "
        "Language Processing. 2020. arXiv:2002.12620"
    )

    def __post_init__(self) -> None:
        """Raise ValueError unless `normalize` is true or false."""
        check_flag("normalize", self.normalize)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            token_gram_mse(
                student.hidden[mine], teacher.hidden[theirs], student.mask, self.normalize
            )
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class NST(Objective):
    """Neuron selectivity transfer: which tokens of a sentence neurons respond to, at any widths.

    Maximum mean discrepancy under the paper's polynomial kernel, see `nst`. Which neuron responds
    does not matter, only how many do in a like way.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    citation: ClassVar[str] = (
        "Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer. 2017. "
        "arXiv:1707.01219"
    )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B]."""
        return mean_over_pairs(
            nst(student.hidden[mine], teacher.hidden[theirs], student.mask)
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class FSP(Objective):
    """Flow of solution procedure: how a sentence's states change from layer to layer.

    Between each mapped pair of layers and the next one in the mapping's order, averaged over these.
    A flow is of D x D numbers for each sentence.

    Args:
        normalize: Whether states have length 1. The paper takes them as they are; a few huge
            channels then rule the loss, and float16 is too narrow for its gradient.
    """

    normalize: bool = True

    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unit: ClassVar[Unit] = "sequence"
    equal_width: ClassVar[bool] = True
    least_pairs: ClassVar[int] = 2
    citation: ClassVar[str] = (
        "Yim, Joo, Bae, Kim: A Gift from Knowledge Distillation: Fast Optimization, Network "
        "Minimization and Transfer Learning. 2017."
    )

    def __post_init__(self) -> None:
        """Raise ValueError unless `normalize` is true or false."""
        check_flag("normalize", self.normalize)

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B].

        Raises:
            ValueError: There is a single pair of layers.
        """
        if len(pairs) == 1:
            raise ValueError(
                f"pairs must hold at least two pairs of layers for FSP, got {tuple(pairs)!r}. "
                "A flow runs between two layers: map more, such as 'uniform' does."
            )
        return mean_over_pairs(
            fsp(
                (student.hidden[mine], student.hidden[next_mine]),
                (teacher.hidden[theirs], teacher.hidden[next_theirs]),
                student.mask,
                self.normalize,
            )
            for (mine, theirs), (next_mine, next_theirs) in pairwise(pairs)
        )
