"""Choosing what is kept of a teacher: by score, evenly, or at random."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from random import Random

import torch
from torch import Tensor
from transformers import PretrainedConfig

from hf_distill.architectures import anatomy
from hf_distill.student.depth import source_layers
from hf_distill.student.indices import AttentionSets, IndexSets, Indices, LayerSets
from hf_distill.student.scores import AttentionScores, Importance, LayerScores, magnitudes
from hf_distill.student.size import Size

Choice = Callable[[int, Tensor, Random], Indices]
"""(how many, a score for each candidate [n], source of chance) -> that many of 0..n-1, ascending"""


def largest(count: int, scores: Tensor, chance: Random) -> Indices:
    """Those of the highest score; of equal scores the earlier."""
    found = torch.argsort(scores, descending=True, stable=True)[:count]
    return tuple(sorted(found.tolist()))


def stride(count: int, scores: Tensor, chance: Random) -> Indices:
    """Evenly spaced, from the first on."""
    return tuple(index * len(scores) // count for index in range(count))


def random(count: int, scores: Tensor, chance: Random) -> Indices:
    """Drawn without replacement, by seed (ETD-Rand)."""
    return tuple(sorted(chance.sample(range(len(scores)), count)))


CHOICES: dict[str, Choice] = {"magnitude": largest, "stride": stride, "random": random}
"""Name -> function. `magnitude` scores hidden units by the variance of their word embeddings, and
others by weight norm; the others look at no score."""


def choose(
    config: PretrainedConfig,
    teacher: PretrainedConfig,
    weights: Mapping[str, Tensor],
    *,
    how: str | Importance,
    layers: str | Sequence[int],
    decoder_layers: str | Sequence[int],
    seed: int,
) -> IndexSets:
    """The index sets that cut a student of this config out of the teacher.

    Where the student has fewer heads than the teacher, whole heads are chosen, the same for
    queries, keys and values; where its heads are smaller, channels are chosen inside each head.

    Args:
        config: The student's, from `student_config`.
        teacher: The teacher's.
        weights: Its tensors, read for `magnitude` alone.
        how: A name of `CHOICES`, or scores of the teacher's units, of which the highest are kept.
        layers: A name of `SOURCES`, or teacher layers counted from 1.
        decoder_layers: The same of the decoder.
        seed: For `random`. A layer's draw does not depend on which other layers are kept.

    Raises:
        ValueError: A name is unknown, or the layers or the scores do not fit.
    """
    choice, scores = _scores(how, weights, teacher)
    student, whole, family = Size.of(config), Size.of(teacher), anatomy(teacher)
    cutter = _Cutter(student, whole, choice, seed, rotary=family.rotary)
    hidden = choice(student.width, scores.hidden, Random(f"{seed}/hidden"))
    projected = family.projects or whole.embedding != whole.width
    embedding = (
        choice(student.embedding, scores.embedding, Random(f"{seed}/embedding"))
        if projected
        else hidden
    )
    depth = source_layers(layers, student.layers, whole.layers)
    kept = (1,) if family.shared else depth
    decoder = source_layers(decoder_layers, student.decoder, whole.decoder) if whole.decoder else ()
    return IndexSets(
        hidden,
        embedding,
        cutter.stack("", scores.layers, kept, same_heads=family.same_heads),
        cutter.stack("decoder/", scores.decoder, decoder, same_heads=family.same_heads),
    )


def _scores(
    how: str | Importance, weights: Mapping[str, Tensor], teacher: PretrainedConfig
) -> tuple[Choice, Importance]:
    """How units are chosen, and by which scores."""
    if isinstance(how, Importance):
        how.check(teacher)
        return largest, how
    if how == "magnitude":
        return largest, magnitudes(weights, teacher)
    if how in CHOICES:
        return CHOICES[how], Importance.equal(teacher)
    near = difflib.get_close_matches(str(how).lower(), CHOICES, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else "Choose one, or give scores."
    raise ValueError(f"how must be one of {', '.join(CHOICES)}, got {how!r}. {remedy}")


class _Cutter:
    """Chooses within layers, for one pair of sizes."""

    def __init__(
        self, student: Size, teacher: Size, choice: Choice, seed: int, *, rotary: bool
    ) -> None:
        self.student, self.teacher = student, teacher
        self.choice, self.seed, self.rotary = choice, seed, rotary

    def stack(
        self, name: str, scores: Sequence[LayerScores], kept: Indices, *, same_heads: bool
    ) -> tuple[LayerSets, ...]:
        """The sets of the kept layers of one stack; its name parts its chance from others'."""
        heads = None
        if same_heads and scores:
            total = torch.stack([each.attention.heads for each in scores]).sum(dim=0)
            heads = self._heads(total, Random(f"{self.seed}/{name}heads"))
        found = []
        for layer in kept:
            each, chance = scores[layer - 1], Random(f"{self.seed}/{name}{layer}")
            ffn = self.choice(self.student.ffn, each.ffn, chance)
            own = self._attention(each.attention, chance, heads)
            other = None if each.cross is None else self._attention(each.cross, chance, None)
            found.append(LayerSets(layer, ffn, own, other))
        return tuple(found)

    def _heads(self, scores: Tensor, chance: Random) -> Indices:
        """Heads of keys and values first, then query heads of each."""
        each = self.teacher.heads // self.teacher.groups
        kept = self.student.heads // self.student.groups
        grouped = scores.view(self.teacher.groups, each)
        groups = self.choice(self.student.groups, grouped.sum(dim=1), chance)
        return tuple(
            group * each + head
            for group in groups
            for head in self.choice(kept, grouped[group], chance)
        )

    def _attention(
        self, scores: AttentionScores, chance: Random, heads: Indices | None
    ) -> AttentionSets:
        heads = heads or self._heads(scores.heads, chance)
        each = self.teacher.heads // self.teacher.groups
        groups = tuple(dict.fromkeys(head // each for head in heads))
        query_key = self._channels(groups, scores.query_key, chance, rotary=self.rotary)
        value = self._channels(groups, scores.value, chance, rotary=False)
        return AttentionSets(heads, query_key, value)

    def _channels(
        self, groups: Indices, scores: Tensor, chance: Random, *, rotary: bool
    ) -> Indices:
        """Channels inside each kept head, counted through all heads; scores are [G, k]."""
        size, whole = self.student.head_size, self.teacher.head_size
        return tuple(
            group * whole + channel
            for group in groups
            for channel in (
                rotary_channels(size, whole) if rotary else self.choice(size, scores[group], chance)
            )
        )


def rotary_channels(size: int, whole: int) -> Indices:
    """Channels of a rotated head, both of each pair (i, i + whole / 2), evenly spaced.

    There is no choice: pair i of a head of d channels turns by position * base^(-2 i / d), so only
    evenly spaced pairs turn in the smaller head as they did. Where `whole` is no multiple of
    `size`, the nearest pair before is taken, and turns somewhat slower than it did.
    """
    pairs = tuple(index * whole // size for index in range(size // 2))
    return pairs + tuple(pair + whole // 2 for pair in pairs)
