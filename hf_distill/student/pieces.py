"""Which tokens a smaller vocabulary needs beside those that are wanted, to cut texts alike.

Each kind of model finds its tokens in its own way, and misses other ones when they are gone:

- WordPiece takes the longest piece that fits. A piece that is not there is never the longest, so
  nothing else is needed.
- BPE merges its way up from characters. A token needs every token that it passes on that way.
- Unigram takes the cut of the best score. Characters without a piece of their own, and the worst
  score of all, decide what an unknown character costs, so both stay as they were.

All of them keep the characters of what they keep, so that other words of the same alphabet can
still be spelt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def companions(model: Mapping[str, Any], tokens: Iterable[str]) -> set[str]:
    """Tokens that must be kept with `tokens`, themselves among them.

    A text that the whole vocabulary cuts into companions alone, these alone cut in the same way.

    Args:
        model: The model of a tokenizer, as its JSON has it.
        tokens: What is wanted.

    Raises:
        ValueError: The model is of another kind, or one that cuts at random.
    """
    kinds = {"WordLevel": _words, "WordPiece": _pieces, "BPE": _merged, "Unigram": _scored}
    if model["type"] not in kinds:
        raise ValueError(
            f"tokenizer must be one of {', '.join(kinds)}, got {model['type']!r}. "
            "Trim a model of such a tokenizer."
        )
    if model.get("dropout"):
        raise ValueError(
            f"dropout of the tokenizer must be none, got {model['dropout']!r}. "
            "Set it to None: texts are cut at random."
        )
    vocabulary = set(_tokens(model))
    return kinds[model["type"]](model, vocabulary, vocabulary.intersection(tokens))


def failed_pieces(model: Mapping[str, Any], word: str) -> list[str]:
    """The pieces that a WordPiece finds in a word before it gives up; none where it does not.

    Without them, it might find shorter ones, and get through.
    """
    vocabulary, prefix = model["vocab"], model["continuing_subword_prefix"]
    found: list[str] = []
    at = 0
    while at < len(word) <= model["max_input_chars_per_word"]:
        ends = range(len(word), at, -1)
        pieces = ((prefix if at else "") + word[at:end] for end in ends)
        longest = next((piece for piece in pieces if piece in vocabulary), None)
        if longest is None:
            return found
        found.append(longest)
        at += len(longest) - (len(prefix) if at else 0)
    return []


def _tokens(model: Mapping[str, Any]) -> Iterator[str]:
    for entry in model["vocab"]:
        yield entry[0] if model["type"] == "Unigram" else entry


def _words(model: Mapping[str, Any], vocabulary: set[str], tokens: set[str]) -> set[str]:
    return tokens


def _pieces(model: Mapping[str, Any], vocabulary: set[str], tokens: set[str]) -> set[str]:
    characters = set("".join(tokens))
    continued = {model["continuing_subword_prefix"] + character for character in characters}
    return tokens | (characters | continued) & vocabulary


def _scored(model: Mapping[str, Any], vocabulary: set[str], tokens: set[str]) -> set[str]:
    worst, _ = min(model["vocab"], key=lambda entry: entry[1])
    found = {worst, *tokens}
    found |= set("".join(found)) & vocabulary
    return found | _bytes(vocabulary) if model["byte_fallback"] else found


def _merged(model: Mapping[str, Any], vocabulary: set[str], tokens: set[str]) -> set[str]:
    prefix = model["continuing_subword_prefix"] or ""
    suffix = model["end_of_word_suffix"] or ""
    ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
    found = set(tokens)
    for token in tokens:
        found |= _passed(token, ranks, prefix, suffix)
    if model["byte_fallback"]:
        return found | _bytes(vocabulary)
    # Of a byte-level one, these are the 256 bytes.
    return found | {
        token for token in vocabulary if len(token.removeprefix(prefix).removesuffix(suffix)) == 1
    }


def _passed(token: str, ranks: Mapping[tuple[str, str], int], prefix: str, suffix: str) -> set[str]:
    """What is merged on the way to a token, characters among them.

    A token is built in the same way wherever it stands: no merge reaches over its borders, or it
    would not be a token of that text, and inside them the merge of the lowest rank comes first,
    the leftmost of equals. One that no merges lead to is found whole, and needs nothing.
    """
    start = prefix if token.startswith(prefix) else ""
    end = suffix if token.endswith(suffix) else ""
    symbols = [prefix + character for character in token[len(start) : len(token) - len(end)]]
    if not symbols:
        return set()
    symbols[0] = start + symbols[0].removeprefix(prefix)
    symbols[-1] += end
    passed = set(symbols)
    while len(symbols) > 1:
        rank, at = min((ranks.get(pair, math.inf), at) for at, pair in enumerate(pairwise(symbols)))
        if rank == math.inf:
            return set()
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1].removeprefix(prefix)]
        passed.add(symbols[at])
    return passed


def _bytes(vocabulary: set[str]) -> set[str]:
    return {token for token in vocabulary if _BYTE.fullmatch(token)}
