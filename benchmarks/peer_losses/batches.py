"""Random signals of a student and a teacher: the same at every call, with and without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hf_distill.objectives.pooling import pooled
from hf_distill.signals.signals import Scores, Signals

Padding = Literal["none", "right", "left"]
"""Where the padding of the shorter sentences stands."""
Head = Literal["sentence", "token", "number"]
"""What the logits belong to: a sentence or a token, both of CLASSES, or a sentence's number."""

LENGTHS = (8, 5, 3, 7, 6, 2)
SENTENCES, TOKENS, CLASSES, HEADS = len(LENGTHS), max(LENGTHS), 5, 4
WIDTH, WIDE = 48, 96
"""The width of hidden states, and of the teacher's third layer and its queries, keys and values."""
IGNORED = -100
HOT = 4.0
"""The temperature at which losses on logits are compared."""
BOTH, WIDER = ((1, 1), (2, 2)), ((1, 3),)
"""Pairs of layers: two of one width; a wider one of the teacher."""


@dataclass(frozen=True)
class Batch:
    """What both models show of one batch, and the student's tensors that take a gradient."""

    student: Signals
    teacher: Signals
    leaves: tuple[Tensor, ...]

    @property
    def mask(self) -> Tensor:
        """[B, T] bool."""
        return self.student.mask

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        """Those of student and teacher, [*R, C]."""
        if self.student.logits is None or self.teacher.logits is None:
            raise ValueError("a batch must have logits, got none. Make it with `batch`.")
        return self.student.logits, self.teacher.logits

    @property
    def labels(self) -> Tensor:
        """[*R] classes, or [B, 1] numbers."""
        if self.student.labels is None:
            raise ValueError("a batch must have labels, got none. Make it with `batch`.")
        return self.student.labels

    def hidden(self, layer: int = 1, theirs: int | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states of student and teacher, [B, T, D]."""
        return self.student.hidden[layer], self.teacher.hidden[theirs or layer]

    def pooled(self, theirs: int = 1) -> tuple[Tensor, Tensor]:
        """Both sides' mean over the real tokens, [B, D]."""
        mine, shown = self.hidden(1, theirs)
        return pooled(mine, self.mask, "mean")[0], pooled(shown, self.mask, "mean")[0]


def batch(padding: Padding = "none", head: Head = "sentence") -> Batch:
    """One batch in float64, drawn anew from the same seed."""
    mask = mask_of(padding)
    labels, counted = _labels(head, mask)
    student, leaves = _side(mask, head, seed=1, width=WIDTH)
    teacher, _ = _side(mask, head, seed=2, width=WIDE)
    student = replace(student, labels=labels, labelled=counted, rows=counted)
    teacher = replace(teacher, rows=counted)
    return Batch(student, teacher, leaves)


def mask_of(padding: Padding) -> Tensor:
    """[B, T] bool, the real tokens."""
    lengths = torch.tensor(LENGTHS if padding != "none" else (TOKENS,) * SENTENCES)
    mask = torch.arange(TOKENS) < lengths.unsqueeze(-1)
    return mask.flip(-1) if padding == "left" else mask


def _labels(head: Head, mask: Tensor) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(3)
    if head == "number":
        numbers = torch.randn(SENTENCES, 1, generator=make, dtype=torch.float64)
        return numbers, torch.ones(SENTENCES, dtype=torch.bool)
    if head == "sentence":
        classes = torch.randint(CLASSES, (SENTENCES,), generator=make)
        return classes, torch.ones(SENTENCES, dtype=torch.bool)
    classes = torch.randint(CLASSES, mask.shape, generator=make)
    return classes.masked_fill(~mask, IGNORED), mask


def _side(mask: Tensor, head: Head, seed: int, width: int) -> tuple[Signals, tuple[Tensor, ...]]:
    make = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=make, dtype=torch.float64)
        return values.requires_grad_(width == WIDTH)

    hidden = {layer: drawn(SENTENCES, TOKENS, WIDTH) for layer in (1, 2)}
    hidden[3] = drawn(SENTENCES, TOKENS, width)
    scores = drawn(SENTENCES, HEADS, TOKENS, TOKENS)
    query, key, value = (drawn(SENTENCES, HEADS, TOKENS, width // HEADS) for _ in range(3))
    shapes = {"sentence": (CLASSES,), "token": (TOKENS, CLASSES), "number": (1,)}
    logits = drawn(SENTENCES, *shapes[head])
    signals = Signals(
        mask=mask,
        logits=logits,
        hidden=hidden,
        attention={1: probabilities(scores, mask)},
        attention_scores={1: scores},
        query={1: query},
        key={1: key},
        value={1: value},
    )
    return signals, (*hidden.values(), scores, query, key, value, logits)


def probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    """Attention maps as a model gives them: [B, A, T, T], 0 on keys that are padding."""
    return scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)


def with_padding_counted(given: Batch) -> Batch:
    """The same signals, of which every position is said to be real."""
    return with_mask(given, torch.ones_like(given.mask))


def with_mask(given: Batch, mask: Tensor) -> Batch:
    """The same signals under another mask; token rows follow it."""
    rows = given.student.rows
    if rows is not None and rows.shape == mask.shape:
        rows = mask
    return replace(
        given,
        student=replace(given.student, mask=mask, rows=rows),
        teacher=replace(given.teacher, mask=mask, rows=rows),
    )


def with_logits(given: Batch, student: Tensor, teacher: Tensor, rows: Tensor) -> Batch:
    """The same signals with other logits."""
    return replace(
        given,
        student=replace(given.student, logits=student, rows=rows),
        teacher=replace(given.teacher, logits=teacher, rows=rows),
    )


def with_attention(given: Batch, student: Tensor, teacher: Tensor) -> Batch:
    """The same signals with other attention maps."""
    return replace(
        given,
        student=replace(given.student, attention={1: student}),
        teacher=replace(given.teacher, attention={1: teacher}),
    )


def with_critic(given: Batch, scores: Tensor) -> Batch:
    """The same signals with a critic's scores of all pairs of sentences, [B, B]."""
    real = ~torch.eye(len(scores), dtype=torch.bool)
    shown = Scores(scores.diagonal(), scores, real, torch.zeros_like(scores.diagonal()))
    return replace(given, student=replace(given.student, scores={(1, 1): shown}))
