"""Relations between tokens in attention: which queries, keys or values resemble which (MiniLM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from torch import Tensor

from hf_distill.objectives.attention import attention_kl, check_heads
from hf_distill.objectives.base import Objective, Pairs, Shape
from hf_distill.objectives.divergence import kl, log_probabilities
from hf_distill.objectives.precision import products, widened
from hf_distill.objectives.reduce import mean_over_pairs
from hf_distill.objectives.settings import check_count
from hf_distill.signals.signals import Signals, Unit

_PARTS = ("query", "key", "value")
RELATIONS = tuple(f"{left}-{right}" for left, right in product(_PARTS, _PARTS))
"""Names of the relations between two parts of an attention layer."""


def split_heads(states: Tensor, heads: int) -> Tensor:
    """[B, A, T, d] -> [B, heads, T, A * d / heads]: all heads side by side, cut anew.

    Raises:
        ValueError: The width A * d has no such cut.
    """
    width = states.shape[1] * states.shape[3]
    if width % heads:
        raise ValueError(
            f"relation_heads must divide the width {width}, got {heads!r}. Choose a divisor."
        )
    # The heads move next to their channels first; cutting [B, A, T, d] itself would mix positions.
    together = states.transpose(1, 2).flatten(2)
    return together.reshape(*together.shape[:2], heads, width // heads).transpose(1, 2)


def log_relation(left: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """Logarithm of softmax(left right^T / sqrt(d)) over real keys.

    Args:
        left: [B, R, T, d].
        right: [B, R, T, d].
        mask: [B, T] bool, the real keys.

    Returns:
        [B, R, T, T] log-probabilities, float32 or wider.
    """
    # Scaled before they are multiplied: T^2 products are more than T * d numbers.
    scores = products(widened(left) / math.sqrt(left.shape[-1]), right)
    return log_probabilities(scores, mask[:, None, None])


def relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """KL(teacher || student) of one relation, mean over relation heads (2012.15828, section 3).

    Args:
        student: Left and right side, [B, R, T, d]; d may differ from the teacher's.
        teacher: Left and right side, [B, R, T, d].
        mask: [B, T] bool, the real tokens.

    Returns:
        [B, T], one value per query.
    """
    left, right = (side.detach() for side in teacher)
    return kl(log_relation(*student, mask), log_relation(left, right, mask)).mean(1)


@dataclass(frozen=True)
class MiniLM(Objective):
    """MiniLM: KL of the attention maps plus KL of the value relations, of one layer.

    The paper uses it alone, on the last layer of both. Heads must be as many on both sides, widths
    may differ; MiniLMv2 lifts the restriction and needs no attention maps. The loss is a mean over
    all real tokens, not over each sentence's first.

    What stands above the attention of the last layer gets no gradient: its output projection and
    feed-forward layers, and the head. Fine-tuning trains them.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"attention", "value"})
    unit: ClassVar[Unit] = "token"
    default_mapping: ClassVar[str] = "last"
    citation: ClassVar[str] = (
        "Wang et al.: MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of "
        "Pre-Trained Transformers. 2020. arXiv:2002.10957"
    )

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raise ValueError unless both have the same number of heads."""
        check_heads("MiniLM", student, teacher, "or use MiniLMv2")

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(
            attention_kl(student.attention[mine], teacher.attention[theirs], student.mask)
            + relation_kl(
                (student.value[mine], student.value[mine]),
                (teacher.value[theirs], teacher.value[theirs]),
                student.mask,
            )
            for mine, theirs in pairs
        )


@dataclass(frozen=True)
class MiniLMv2(Objective):
    """MiniLMv2: the sum of the KLs of self-attention relations, for any heads and widths.

    The paper matches the student's last layer with the teacher's last (base size) or an upper
    middle layer (large size: for layer 21 and a student of six layers the mapping [[6, 21]]), and
    uses 48 relation heads for a width of 768, 64 for 1024. As with MiniLM, what stands above the
    attention of the student's layer gets no gradient.

    With `relations: [value-value]` it is the value relation alone: MiniLM's second part, for any
    heads.

    Args:
        relation_heads: Heads into which queries, keys and values are cut anew; must divide the
            widths of both. None: as many as the teacher has attention heads.
        relations: Which relations are compared, each with weight 1; of `RELATIONS`.
    """

    relation_heads: int | None = None
    relations: Sequence[str] = ("query-query", "key-key", "value-value")

    needs: ClassVar[frozenset[str]] = frozenset(_PARTS)
    unit: ClassVar[Unit] = "token"
    default_mapping: ClassVar[str] = "last"
    citation: ClassVar[str] = (
        "Wang et al.: MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing "
        "Pretrained Transformers. 2020. arXiv:2012.15828"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on settings out of range; narrow `needs` to what is compared."""
        remedy = "Use None for the teacher's number of heads."
        check_count("relation_heads", self.relation_heads, remedy)
        named = () if isinstance(self.relations, str) else tuple(self.relations)
        if not named or len(set(named)) < len(named) or not set(named) <= set(RELATIONS):
            raise ValueError(
                f"relations must be different names, at least one, got {self.relations!r}. "
                f"Choose from {', '.join(RELATIONS)}."
            )
        # Frozen, and a list when read from YAML.
        object.__setattr__(self, "relations", named)
        parts = frozenset(part for name in named for part in name.split("-"))
        object.__setattr__(self, "needs", parts)

    def check(self, student: Shape, teacher: Shape) -> None:
        """Raise ValueError unless the relation heads divide both widths."""
        heads = self.relation_heads or teacher.heads
        ours, theirs = student.attention_width, teacher.attention_width
        common = math.gcd(ours, theirs)
        if common % heads:
            nearest = max(number for number in range(1, heads) if common % number == 0)
            raise ValueError(
                f"relation_heads must divide the widths of student ({ours}) and teacher "
                f"({theirs}), got {self.relation_heads!r} (that is {heads}). "
                f"Choose a divisor of {common}, such as {nearest}."
            )

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        """[B, T]."""
        return mean_over_pairs(self._compared(student, teacher, *pair) for pair in pairs)

    def _compared(self, student: Signals, teacher: Signals, mine: int, theirs: int) -> Tensor:
        parts = sorted(self.needs)
        heads = self.relation_heads or _part(teacher, parts[0], theirs).shape[1]
        ours = {part: split_heads(_part(student, part, mine), heads) for part in parts}
        shown = {part: split_heads(_part(teacher, part, theirs), heads) for part in parts}
        named = [name.split("-") for name in self.relations]
        first, *others = (
            relation_kl((ours[left], ours[right]), (shown[left], shown[right]), student.mask)
            for left, right in named
        )
        return sum(others, start=first)


def _part(signals: Signals, part: str, layer: int) -> Tensor:
    return {"query": signals.query, "key": signals.key, "value": signals.value}[part][layer]
