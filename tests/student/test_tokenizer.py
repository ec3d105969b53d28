"""Tokenizers over fewer tokens."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import AutoTokenizer

from hf_distill.student.pieces import companions
from hf_distill.student.tokenizer import backend, specials, trim_tokenizer
from hf_distill.student.vocabulary import used_tokens
from tests import tiny
from tests.student import vocabularies

every_kind = pytest.mark.parametrize("kind", vocabularies.KINDS)


def _trimmed(tokenizer: Any, texts: list[Any]) -> tuple[Any, tuple[int, ...]]:
    ids = tokenizer.get_vocab()
    used = used_tokens(tokenizer, texts)
    model = json.loads(backend(tokenizer).to_str())["model"]
    closed = companions(model, {token for token, old in ids.items() if old in used})
    return trim_tokenizer(tokenizer, specials(tokenizer) | {ids[token] for token in closed})


def _same(old: Any, new: Any, kept: tuple[int, ...], *text: str) -> bool:
    found = new(*text)
    names = set(found) - {"input_ids"}
    expected = old(*text)
    return [kept[each] for each in found["input_ids"]] == expected["input_ids"] and all(
        found[name] == expected[name] for name in names
    )


@every_kind
def test_texts_are_cut_alike(kind: str) -> None:
    """A student that reads other pieces than its teacher did, where nothing says so."""
    old = vocabularies.tokenizer(kind)
    for seed in range(1, 9):
        texts = vocabularies.corpus(seed, 10)
        new, kept = _trimmed(old, texts)
        assert len(new) == len(kept) < len(old)
        assert all(_same(old, new, kept, text) for text in texts)
        assert _same(old, new, kept, texts[0], texts[1])


@every_kind
def test_other_texts_of_kept_tokens_are_cut_alike(kind: str) -> None:
    """Equal on the corpus alone would be learning it by heart."""
    old = vocabularies.tokenizer(kind)
    seen = 0
    for seed in range(1, 5):
        new, kept = _trimmed(old, vocabularies.corpus(seed, 10))
        # What a WordPiece does not know may be known in shorter pieces, unless the corpus had it.
        unknown = {old.unk_token_id} if "##" in str(old.backend_tokenizer.decoder) else set()
        for text in vocabularies.corpus(100 + seed, 100, strange=0.03):
            if set(old(text)["input_ids"]) <= set(kept) - unknown:
                seen += 1
                assert _same(old, new, kept, text)
    assert seen > 20


@every_kind
def test_a_fresh_load_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    """Many classes build themselves anew from the vocabulary, with ids of their own in mind."""
    texts = vocabularies.corpus(1, 10)
    new, kept = _trimmed(vocabularies.tokenizer(kind), texts)
    new.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(new)
    assert len(loaded) == len(kept)
    assert loaded.get_vocab() == new.get_vocab()
    assert loaded(texts)["input_ids"] == new(texts)["input_ids"]
    assert loaded(texts[0], texts[1])["input_ids"] == new(texts[0], texts[1])["input_ids"]
    assert loaded.decode(loaded(texts[0])["input_ids"]) == new.decode(new(texts[0])["input_ids"])
    assert loaded.special_tokens_map == new.special_tokens_map


@every_kind
def test_specials_keep_their_names(kind: str) -> None:
    """A padding token under another's id is read as text."""
    old = vocabularies.tokenizer(kind)
    new, kept = _trimmed(old, vocabularies.corpus(1, 3))
    assert new.special_tokens_map == old.special_tokens_map
    assert new.all_special_tokens == old.all_special_tokens
    assert [kept[each] for each in new.all_special_ids] == old.all_special_ids
    assert [kept[each] for each in new.added_tokens_decoder] == list(old.added_tokens_decoder)
    assert list(kept) == sorted(kept)


@every_kind
def test_keeping_all_changes_nothing(kind: str) -> None:
    """A way through files that loses a normalizer loses it here."""
    old = vocabularies.tokenizer(kind)
    new, kept = trim_tokenizer(old, set(old.get_vocab().values()))
    assert kept == tuple(range(len(old)))
    texts = vocabularies.corpus(3, 50)
    assert new(texts)["input_ids"] == old(texts)["input_ids"]
    assert new.batch_decode(new(texts)["input_ids"]) == old.batch_decode(old(texts)["input_ids"])


@pytest.mark.parametrize("kind", ["Roberta", "GPT2", "Qwen2", "Llama", "whole words"])
def test_nothing_becomes_unencodable(kind: str) -> None:
    """A byte that the corpus lacks must still be spelt, as before."""
    old = vocabularies.tokenizer(kind)
    new, _ = _trimmed(old, ["ka"])
    for text in ("日本語 🙂", "ñandú", "mito vor\tka"):
        decoded = new.decode(new(text)["input_ids"], skip_special_tokens=True)
        assert decoded.strip() == text


def test_words_of_the_same_alphabet_stay_spelt() -> None:
    """Every new word of a language an unknown one: the cost of trimming would be its vocabulary."""
    old = vocabularies.tokenizer("Bert")
    new, _ = _trimmed(old, ["kamito selran vor"])
    assert new.unk_token_id not in new("kalose tomi rovna")["input_ids"]
    old = vocabularies.tokenizer("XLMRoberta")
    new, _ = _trimmed(old, ["kamito selran vor"])
    assert new.unk_token_id not in new("kalose tomi rovna")["input_ids"]


def test_settings_come_along() -> None:
    """A tokenizer that pads on the other side since it was trimmed."""
    old = copy.deepcopy(vocabularies.tokenizer("whole words"))
    old.padding_side, old.truncation_side, old.model_max_length = "left", "left", 17
    old.chat_template = "{{ messages }}"
    old.name_or_path = "some/teacher"
    new, kept = _trimmed(old, ["ka mi"])
    assert (new.padding_side, new.truncation_side, new.model_max_length) == ("left", "left", 17)
    assert new.chat_template == old.chat_template
    assert new.name_or_path == "some/teacher"
    batch = new(["ka", "ka mi"], padding=True)["input_ids"]
    assert kept[batch[0][0]] == old.pad_token_id


def test_tokens_that_were_added_stay() -> None:
    """Someone added them on purpose; that no text has them yet is no reason."""
    old = copy.deepcopy(vocabularies.tokenizer("Bert"))
    old.add_tokens(["<ent>", "</ent>"])
    old.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    new, kept = _trimmed(old, ["ka mi"])
    assert kept[-3:] == (150, 151, 152)
    assert new.tokenize("ka <ent> mi </ent><tool>") == ["ka", "<ent>", "mi", "</ent>", "<tool>"]
    assert _same(old, new, kept, "ka <ent> mi </ent><tool>")


def test_padding_of_the_backend_is_renumbered() -> None:
    """A backend that pads by itself does so with the id that it was told once."""
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3, "[PAD]": 4}, "?"))
    made.enable_padding(pad_id=4, pad_token="[PAD]", length=3)
    made.enable_truncation(2)
    old = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]")
    new, kept = trim_tokenizer(old, {1, 3, 4})
    assert kept == (1, 3, 4)
    assert new.backend_tokenizer.encode("b").ids == [0, 2, 2]
    assert new.backend_tokenizer.truncation["max_length"] == 2


def test_processors_are_renumbered() -> None:
    """An id in a template that was missed becomes that of another token."""
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[CLS]": 2, "[SEP]": 3, "?": 4}, "?"))
    for processor in (
        processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    ):
        made.post_processor = processor
        old = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
        assert specials(old) == {2, 3, 4}
        new, kept = trim_tokenizer(old, {1, 2, 3, 4})
        assert kept == (1, 2, 3, 4)
        assert new("b")["input_ids"] == [1, 0, 2]


def test_the_old_tokenizer_is_not_changed() -> None:
    """A teacher that reads with the student's tokenizer."""
    old = copy.deepcopy(vocabularies.tokenizer("Roberta"))
    before = old.backend_tokenizer.to_str()
    _trimmed(old, ["ka mi"])
    assert old.backend_tokenizer.to_str() == before


def test_a_tokenizer_that_its_class_rebuilds_otherwise_is_refused() -> None:
    """Its saved form cuts other pieces than it did when its tokens were counted."""
    old = copy.deepcopy(vocabularies.tokenizer("Bert"))
    old.backend_tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(ValueError, match="'BertTokenizer' that comes back with another normalizer"):
        _trimmed(old, ["ka mi"])


def test_an_unknown_token_out_of_place_is_refused() -> None:
    """T5's class takes id 2 for unknown characters, whatever the file says."""
    old = vocabularies.unigram(
        transformers.T5Tokenizer, "<pad> unused <unk> </s>", "<unk>", extra_ids=1
    )
    with pytest.raises(ValueError, match="'T5Tokenizer' that comes back with another model"):
        _trimmed(old, ["ka mi"])


def test_slow_tokenizers_are_refused() -> None:
    """Their vocabulary is in files of their own."""
    slow = transformers.ByT5Tokenizer()
    with pytest.raises(ValueError, match="must be a fast one, got 'ByT5Tokenizer'"):
        backend(slow)


def test_other_processors_are_refused() -> None:
    """One that nobody thought of may hold ids of its own."""
    state = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    state["post_processor"] = {"type": "Other"}

    class Odd:
        all_special_ids: tuple[int, ...] = ()

        class backend_tokenizer:  # noqa: N801
            @staticmethod
            def to_str() -> str:
                return json.dumps(state)

    with pytest.raises(ValueError, match="post_processor of the tokenizer must be Template"):
        specials(Odd())  # type: ignore[arg-type]


def test_ids_of_no_token_are_refused() -> None:
    """A template that adds an id which the vocabulary lacks."""
    made = Tokenizer(models.WordLevel({"a": 0}, "a"))
    made.post_processor = processors.BertProcessing(("[SEP]", 9), ("[CLS]", 0))
    old = transformers.PreTrainedTokenizerFast(tokenizer_object=made)
    with pytest.raises(ValueError, match=r"must name ids of its own tokens, got \[9\]"):
        specials(old)
