"""A vocabulary cut to what a corpus uses: tokenizer and embeddings together.

Trim a teacher before a student is cut out of it, and both speak the same ids.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_distill.student.pieces import companions, failed_pieces
from hf_distill.student.renumbering import fixed_ids, named_ids, trim_model, vocabulary_axes
from hf_distill.student.tokenizer import backend, specials, trim_tokenizer

Text = str | Sequence[str]
"""A text, or its words where it comes cut into words."""

_BATCH = 1000


class Trimmed(NamedTuple):
    """A model and a tokenizer over fewer tokens, and what they were cut from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept: tuple[int, ...]
    """The old id of each new one: `old_logits[..., kept]` are logits over the new vocabulary."""


def used_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[Text]) -> Counter[int]:
    """How often each token occurs in texts, by its id; special tokens of a template do not count.

    The pieces that a WordPiece finds in an unknown word before it gives up count too.

    Args:
        tokenizer: A fast tokenizer. Its settings of padding and truncation count for nothing.
        texts: Texts, or lists of words as token classification has them. They are read once, and
            never held all together.

    Raises:
        ValueError: The tokenizer is not a fast one, or `texts` are neither.
    """
    cutter = backend(tokenizer)
    model = json.loads(cutter.to_str())["model"]
    ids = cutter.get_vocab()
    counts: Counter[int] = Counter()
    for batch in _batches(texts):
        split = not isinstance(batch[0], str)
        found = cutter.encode_batch(batch, is_pretokenized=split, add_special_tokens=False)
        for text, encoding in zip(batch, found, strict=True):
            counts.update(encoding.ids)
            if model["type"] == "WordPiece" and ids.get(model["unk_token"]) in encoding.ids:
                counts.update(
                    ids[piece]
                    for word in _unknown_words(cutter, text, ids[model["unk_token"]])
                    for piece in failed_pieces(model, word)
                )
    return counts


def trim_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[Text],
    *,
    min_count: int = 1,
    keep: Iterable[str] = (),
    multiple_of: int = 1,
) -> Trimmed:
    """Keep the tokens that texts use; both model and tokenizer are copies.

    Texts that the old tokenizer cuts into kept tokens are cut alike by the new one, and the new
    model answers them as the old one does. Specials, added tokens, whatever a config names by its
    id, and what other tokens are made of stay: the characters of kept tokens, all bytes of a BPE,
    and the tokens that its merges pass on their way.

    Args:
        model: A transformers model, with or without a head. It is not changed.
        tokenizer: Its fast tokenizer. It is not changed.
        texts: What the student will read, as `used_tokens` takes it.
        min_count: How often a token must occur. Above 1, texts with rarer ones are cut otherwise.
        keep: Further tokens to keep, as the vocabulary spells them.
        multiple_of: What the new size must be a multiple of. It is filled up with old rows that
            no token has, then with those of tokens that are gone.

    Returns:
        The model, as trainable and on the same device as it was, its tokenizer, and the old ids.

    Raises:
        ValueError: The family or the kind of tokenizer is not known here, the tokenizer has tokens
            that the model has no row for, or an argument is out of range.
    """
    _check_counts(min_count=min_count, multiple_of=multiple_of)
    axes, cutter = vocabulary_axes(model), backend(tokenizer)
    ids: dict[str, int] = cutter.get_vocab()
    _check_rows(ids, model.config.vocab_size)
    special = specials(tokenizer)
    fixed = set(range(fixed_ids(model, axes)))
    named = named_ids(model) | fixed | {ids[token] for token in _spelled(keep, ids)}
    counts = used_tokens(tokenizer, texts)
    if not counts:
        raise ValueError("texts must hold at least one token, got none. Name a corpus.")
    wanted = {old for old, count in counts.items() if count >= min_count} | named
    wanted -= special  # They are found as they stand: they are made of nothing.
    tokens = [token for token, old in ids.items() if old in wanted]
    closed = companions(json.loads(cutter.to_str())["model"], tokens)
    needed = {ids[token] for token in closed} | named | special
    trimmed, order = trim_tokenizer(tokenizer, needed.intersection(ids.values()))
    if set(order[: len(fixed)]) != fixed:
        raise ValueError(
            f"tokenizer must have tokens of its own under the ids below {len(fixed)}, from which "
            f"this model counts positions, got {order[: len(fixed)]!r}. "
            "Take the tokenizer that the model was trained with."
        )
    rows = _filled(order, needed, set(ids.values()), model.config.vocab_size, multiple_of)
    return Trimmed(trim_model(model, axes, rows), trimmed, rows)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 1:
            raise ValueError(f"{name} must be an int >= 1, got {count!r}. Leave it out for 1.")


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Lists of texts, or lists of lists of words."""
    if isinstance(texts, str):
        raise ValueError(f"texts must be several texts, got {texts!r}. Put it into a list.")
    for _, alike in groupby(texts, _is_text):
        while batch := list(islice(alike, _BATCH)):
            yield batch


def _is_text(text: Text) -> bool:
    words = [text] if isinstance(text, str) else text
    if not isinstance(words, Sequence) or not all(isinstance(word, str) for word in words):
        raise ValueError(
            f"texts must be strings, or lists of words, got {text!r}. Name the column of the text."
        )
    return isinstance(text, str)


def _unknown_words(cutter: Tokenizer, text: Text, unknown: int) -> Iterator[str]:
    """The words that a tokenizer does not know, as its model gets to see them."""
    for string in [text] if isinstance(text, str) else text:
        encoding = cutter.encode(string, add_special_tokens=False)
        for found, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if found == unknown:
                word = string[start:end]
                if cutter.normalizer is not None:
                    word = cutter.normalizer.normalize_str(word)
                if cutter.pre_tokenizer is None:
                    yield word
                else:
                    yield from (part for part, _ in cutter.pre_tokenizer.pre_tokenize_str(word))


def _check_rows(ids: dict[str, int], rows: int) -> None:
    beyond = sorted((token for token, old in ids.items() if old >= rows), key=ids.__getitem__)
    if beyond:
        raise ValueError(
            f"tokenizer must have no token beyond the model's {rows} rows, got {beyond[:5]!r}. "
            "Call model.resize_token_embeddings(len(tokenizer)), or take the model's tokenizer."
        )


def _spelled(tokens: Iterable[str], ids: dict[str, int]) -> set[str]:
    """The tokens that a caller asks for, all of them in the vocabulary."""
    asked = {tokens} if isinstance(tokens, str) else set(tokens)
    for token in asked:
        if token not in ids:
            near = difflib.get_close_matches(str(token), ids, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else "Or name texts that use it."
            raise ValueError(f"keep must name tokens of the vocabulary, got {token!r}. {remedy}")
    return asked


def _filled(
    order: Sequence[int], needed: set[int], tokens: set[int], rows: int, multiple: int
) -> tuple[int, ...]:
    """The rows to keep: those of the tokens, those without one that are needed, and filling."""
    kept = [*order, *sorted(needed.difference(order))]
    size = math.ceil(len(kept) / multiple) * multiple
    if size > rows:
        raise ValueError(
            f"multiple_of must leave a size of at most the model's {rows}, got {multiple!r}, "
            f"which makes {size}. Take a smaller one."
        )
    others = sorted(set(range(rows)).difference(kept), key=lambda old: (old in tokens, old))
    return (*kept, *others[: size - len(kept)])
