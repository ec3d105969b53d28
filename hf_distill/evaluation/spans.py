"""Answers that are spans of a context: features to learn from, and texts from logits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

Offset = Sequence[int]
"""(first character, one past the last) of a token, in the context."""


class Columns(Protocol):
    """Anything with named columns: a dict of lists, a batch of `datasets.map`, a Dataset."""

    def __getitem__(self, name: str, /) -> Any:
        """The column of that name."""


def prepare_span_features(
    examples: Columns,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
    training: bool,
) -> dict[str, list[Any]]:
    """Questions and contexts as windows of at most `max_length` tokens.

    An answer that is not whole inside a window is labelled with the window's first token. Windows
    are left unpadded for a collator that pads on the right; where the tokenizer pads on the left
    they are padded here to `max_length`, since padding on the left later would move the labels.

    Args:
        examples: Columns "question", "context", "answers" (SQuAD's: "text" and "answer_start"; the
            first one is learnt), and "id" where not training.
        tokenizer: A fast tokenizer.
        max_length: Most tokens of a window, question and special tokens included.
        stride: Tokens that two neighbouring windows of a context share.
        training: True for what a model takes. False adds the columns "example_id" and
            "offset_mapping" (None outside the context) that `best_answers` needs, and does without
            "answers" (then there are no labels).
    """
    questions = [question.lstrip() for question in examples["question"]]
    _check_room(questions, tokenizer, max_length, stride)
    encoded = tokenizer(
        questions,
        list(examples["context"]),
        truncation="only_second",
        max_length=max_length,
        stride=stride,
        padding="max_length" if tokenizer.padding_side == "left" else False,
        return_attention_mask=True,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    origins, offsets = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
    inside = [
        [offset if part == 1 else None for offset, part in zip(row, parts, strict=True)]
        for row, parts in zip(offsets, map(encoded.sequence_ids, range(len(offsets))), strict=True)
    ]
    features: dict[str, list[Any]] = dict(encoded)
    if training or _has(examples, "answers"):
        answers = list(examples["answers"])
        starts = [mask.index(1) for mask in features["attention_mask"]]
        rows = zip(inside, origins, starts, strict=True)
        spans = [_token_span(row, answers[at]) or (first, first) for row, at, first in rows]
        features["start_positions"] = [start for start, _ in spans]
        features["end_positions"] = [end for _, end in spans]
    if not training:
        ids = list(examples["id"])
        features["example_id"] = [ids[origin] for origin in origins]
        features["offset_mapping"] = inside
    return features


def best_answers(
    start_logits: npt.ArrayLike,
    end_logits: npt.ArrayLike,
    features: Columns,
    examples: Columns,
    n_best: int = 20,
    max_answer_tokens: int = 30,
) -> dict[Any, str]:
    """The text of the best span of each example, by its id; "" where no span is possible.

    A span's score is its start logit plus its end logit. Of equal scores the earliest window,
    start and end win.

    Args:
        start_logits: One row per feature; what is beyond a feature's length is not looked at.
        end_logits: Likewise.
        features: What `prepare_span_features` gave with `training=False`.
        examples: What it was given: columns "id" and "context".
        n_best: Starts, and ends, that are paired in each window.
        max_answer_tokens: The longest answer.
    """
    offsets, owners = list(features["offset_mapping"]), list(features["example_id"])
    starts, ends = np.asarray(start_logits), np.asarray(end_logits)
    if not len(starts) == len(ends) == len(owners):
        raise ValueError(
            f"start_logits and end_logits must have a row for each of the {len(owners)} features, "
            f"got {len(starts)} and {len(ends)}. Predict on the same features, unshuffled."
        )
    windows: dict[Any, list[int]] = defaultdict(list)
    for row, owner in enumerate(owners):
        windows[owner].append(row)
    _check_owners(set(windows), list(examples["id"]))
    answers = {}
    for key, context in zip(examples["id"], examples["context"], strict=True):
        found = [
            _best_span(starts[row], ends[row], offsets[row], n_best, max_answer_tokens)
            for row in windows[key]
        ]
        best = max(found, key=lambda span: span.score)
        answers[key] = context[best.start : best.end]
    return answers


class _Span(NamedTuple):
    score: float
    start: int
    end: int


_NO_SPAN = _Span(-np.inf, 0, 0)


def _best_span(
    start_logits: npt.NDArray[Any],
    end_logits: npt.NDArray[Any],
    offsets: Sequence[Offset | None],
    n_best: int,
    max_answer_tokens: int,
) -> _Span:
    """The best span of one window, in characters."""
    context = _context(offsets)
    positions = np.fromiter(context, dtype=int)
    starts, ends = (_highest(logits, positions, n_best) for logits in (start_logits, end_logits))
    if not len(positions):
        return _NO_SPAN
    length = ends[None, :] - starts[:, None] + 1
    scores = start_logits[starts].astype(float)[:, None] + end_logits[ends].astype(float)[None, :]
    possible = (length >= 1) & (length <= max_answer_tokens) & np.isfinite(scores)
    scores = np.where(possible, scores, -np.inf)
    start, end = np.unravel_index(int(scores.argmax()), scores.shape)
    if not possible[start, end]:
        return _NO_SPAN
    first, last = context[int(starts[start])][0], context[int(ends[end])][1]
    return _Span(float(scores[start, end]), first, last)


def _highest(logits: npt.NDArray[Any], positions: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """The positions of the highest logits, in reading order; the earlier of equal ones."""
    order = np.argsort(-logits[positions].astype(float), kind="stable")[:count]
    return np.sort(positions[order])


def _token_span(
    offsets: Sequence[Offset | None], answers: dict[str, Sequence[Any]]
) -> tuple[int, int] | None:
    """First and last token of the first answer, or None where it is not whole inside the window."""
    context = _context(offsets)
    if not answers["text"] or not context:
        return None
    text, begin = answers["text"][0], answers["answer_start"][0]
    end = begin + len(text.rstrip())
    begin += len(text) - len(text.lstrip())
    tokens = [at for at, (first, last) in context.items() if last > begin and first < end]
    whole = min(context.values())[0] <= begin and end <= max(context.values())[1]
    return (tokens[0], tokens[-1]) if whole and tokens else None


def _context(offsets: Sequence[Offset | None]) -> dict[int, tuple[int, int]]:
    """Characters of each token of the context, by its position."""
    return {at: (each[0], each[1]) for at, each in enumerate(offsets) if each is not None}


def _check_room(
    questions: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> None:
    """A tokenizer would abort the process where a window has no room to move."""
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer must be a fast one, got {type(tokenizer).__name__!r}. "
            "Load it with AutoTokenizer: only fast tokenizers know the characters of a token."
        )
    if tokenizer.padding_side not in ("left", "right"):
        raise ValueError(
            f"padding_side must be 'left' or 'right', got {tokenizer.padding_side!r}. "
            "Set it on the tokenizer."
        )
    if stride < 0:
        raise ValueError(f"stride must be 0 or more, got {stride!r}. Try max_length // 3.")
    if not questions:
        return
    tokens = tokenizer(list(questions), add_special_tokens=False)["input_ids"]
    longest = max(range(len(tokens)), key=lambda at: len(tokens[at]))
    needed = len(tokens[longest]) + tokenizer.num_special_tokens_to_add(pair=True) + stride + 1
    if max_length < needed:
        raise ValueError(
            f"max_length must be at least {needed} for question {longest} and stride {stride}, got "
            f"{max_length!r}. Raise max_length, lower stride, or shorten or drop that question."
        )


def _has(examples: Columns, name: str) -> bool:
    try:
        examples[name]
    except KeyError:
        return False
    return True


def _check_owners(owners: set[Any], keys: Sequence[Any]) -> None:
    """Features and examples that do not belong together would be scored all the same."""
    if len(set(keys)) < len(keys):
        raise ValueError(
            f"examples must have an id each, got {len(keys) - len(set(keys))} that are used twice. "
            "Number them afresh."
        )
    if owners != set(keys):
        strays = sorted(map(str, owners ^ set(keys)))[:5]
        raise ValueError(
            f"features must be those of the examples, got ids on one side only: {strays!r}. "
            "Prepare the features again from these examples."
        )
