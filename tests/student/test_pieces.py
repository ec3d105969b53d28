"""Which tokens must stay with others, worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from hf_distill.student.pieces import companions, failed_pieces


def _state(model: Any) -> dict[str, Any]:
    return json.loads(Tokenizer(model).to_str())["model"]


def _bpe(words: str, merges: str, **settings: Any) -> dict[str, Any]:
    pairs = [tuple(merge.split("+")) for merge in merges.split()]
    vocabulary = {word: at for at, word in enumerate(words.split())}
    return _state(models.BPE(vocab=vocabulary, merges=pairs, **settings))


def test_bpe_needs_what_it_merges_on_its_way() -> None:
    """Without `lo` and `er` there is no `lower`: the token stays in the vocabulary, never found."""
    model = _bpe("l o w e r lo er low lower we", "l+o e+r lo+w low+er w+e", byte_fallback=True)
    assert companions(model, {"lower"}) == set("lower") | {"lo", "er", "low", "lower"}
    assert companions(model, {"we"}) == {"w", "e", "we"}


def test_bpe_needs_one_way_to_a_token() -> None:
    """Vocabularies that list every split of a token would keep most of themselves."""
    model = _bpe("a b c ab bc abc", "a+b b+c ab+c a+bc", byte_fallback=True)
    assert companions(model, {"abc"}) == {"a", "b", "c", "ab", "abc"}


def test_bpe_ties_go_to_the_left() -> None:
    """`aaa` is `aa` and `a`, so that `a` and `aa` would be another way to it."""
    model = _bpe("a aa aaa", "a+a a+aa aa+a", byte_fallback=True)
    assert companions(model, {"aaa"}) == {"a", "aa", "aaa"}
    model = _bpe("a aa aaa aaaa aaaaa", "a+a a+aa aa+aa aa+a aaaa+a", byte_fallback=True)
    assert companions(model, {"aaaaa"}) == {"a", "aa", "aaaa", "aaaaa"}


def test_bpe_keeps_its_alphabet() -> None:
    """Without some byte, a text that has it cannot be encoded at all."""
    model = _bpe("a b c ab <0x41> <0x42>", "a+b")
    assert companions(model, {"ab"}) == {"a", "b", "c", "ab"}
    model = _bpe("a b c ab <0x41> <0x42>", "a+b", byte_fallback=True)
    assert companions(model, {"ab"}) == {"a", "b", "ab", "<0x41>", "<0x42>"}


def test_bpe_with_marks_of_words() -> None:
    """The last character of a word is another token, and its merges are found under that name."""
    model = _bpe("a b b</w> ab ab</w>", "a+b</w> a+b", end_of_word_suffix="</w>")
    assert companions(model, {"ab</w>"}) == {"a", "b", "b</w>", "ab</w>"}
    model = _bpe("a ##b ##c ##bc abc", "##b+##c a+##bc", continuing_subword_prefix="##")
    assert companions(model, {"abc"}) == {"a", "##b", "##c", "##bc", "abc"}


def test_bpe_token_that_no_merges_lead_to() -> None:
    """A word that is found whole; its characters merge to something else."""
    model = _bpe("a b c ab abc", "a+b", byte_fallback=True)
    assert companions(model, {"abc"}) == {"abc"}


def test_unigram_keeps_the_worst_score_and_the_characters() -> None:
    """An unknown character costs ten below the worst score: another one, and other cuts win."""
    pieces = [("<unk>", 0.0), ("a", -2.0), ("b", -2.5), ("ab", -1.0), ("xyz", -30.0), ("z", -9.0)]
    model = _state(models.Unigram(vocab=[*pieces, ("c", -3.0)], unk_id=0))
    assert companions(model, {"ab"}) == {"a", "b", "ab", "xyz", "z"}


def test_word_piece_keeps_characters_in_both_places() -> None:
    """A word of known characters that becomes unknown, since one of them never came first."""
    words = ["[UNK]", "a", "##a", "b", "##b", "ab", "##c", "c"]
    model = _state(models.WordPiece({word: at for at, word in enumerate(words)}))
    assert companions(model, {"ab"}) == {"ab", "a", "##a", "b", "##b"}


def test_failed_pieces() -> None:
    """An unknown word that becomes a known one, since its first piece is shorter now."""
    words = ["[UNK]", "a", "ab", "##bc", "##d"]
    model = _state(models.WordPiece({word: at for at, word in enumerate(words)}))
    assert failed_pieces(model, "abc") == ["ab"]
    assert failed_pieces(model, "abdc") == ["ab", "##d"]
    assert failed_pieces(model, "abd") == []
    assert failed_pieces(model, "x") == []
    assert failed_pieces(model, "ab" * 60) == []


def test_bpe_that_cuts_at_random_is_refused() -> None:
    """What one pass over the texts did not meet may be met by the next."""
    with pytest.raises(ValueError, match=r"dropout of the tokenizer must be none, got 0\.1"):
        companions(_bpe("a", "", dropout=0.1), {"a"})


def test_other_kinds_are_refused() -> None:
    """A kind that nobody thought of would lose tokens in its own way."""
    with pytest.raises(ValueError, match="must be one of WordLevel, WordPiece, BPE, Unigram, got"):
        companions({"type": "Other", "vocab": {}}, set())
