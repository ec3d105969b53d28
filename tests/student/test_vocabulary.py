"""Tokenizer and model trimmed together."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from hf_distill.student import extract
from hf_distill.student.vocabulary import Trimmed, trim_vocabulary, used_tokens
from tests import tiny
from tests.student import vocabularies

PAIRS = {
    "Bert": "Bert",
    "DistilBert": "DistilBert",
    "Electra": "Bert",
    "MPNet": "MPNet",
    "Roberta": "Roberta",
    "Bart": "Roberta",
    "ModernBert": "GPT2",
    "GPT2": "GPT2",
    "Qwen2": "Qwen2",
    "Qwen3": "Qwen2",
    "Llama": "Llama",
    "XLMRoberta": "XLMRoberta",
    "T5": "T5",
    "Albert": "Albert",
    "DebertaV2": "DebertaV2",
}
"""Family -> the kind of tokenizer that it comes with."""


def _model(family: str, head: str = "Model", **changes: Any) -> Any:
    """A model of as many rows as its tokenizer has tokens, and of its padding token."""
    tokenizer = vocabularies.tokenizer(PAIRS[family])
    padding = {"pad_token_id": tokenizer.pad_token_id or 0, "max_position_embeddings": 400}
    torch.manual_seed(0)
    return tiny.model(family, head, **{"vocab_size": len(tokenizer), **padding, **changes})


def _states(model: Any, tokenizer: Any, texts: list[str]) -> list[Tensor]:
    """The last hidden states of a model, text by text."""
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        inputs = {"input_ids": ids}
        if model.config.is_encoder_decoder and hasattr(model, "decoder"):
            inputs["decoder_input_ids"] = ids
        with torch.no_grad():
            found.append(model(**inputs).last_hidden_state)
    return found


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_texts_are_answered_alike(family: str, tmp_path: Path) -> None:
    """Rows in another order than the tokens': the student trains, from nonsense."""
    model, tokenizer = _model(family), vocabularies.tokenizer(PAIRS[family])
    texts = vocabularies.corpus(5, 12)
    trimmed = trim_vocabulary(model, tokenizer, texts)
    assert len(trimmed.kept) == len(trimmed.tokenizer) == trimmed.model.config.vocab_size
    assert len(trimmed.kept) < len(tokenizer)
    expected = _states(model, tokenizer, texts)
    trimmed.model.save_pretrained(tmp_path)
    trimmed.tokenizer.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    for found in (
        _states(trimmed.model, trimmed.tokenizer, texts),
        _states(loaded, AutoTokenizer.from_pretrained(tmp_path), texts),
    ):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("family", ["GPT2", "T5"])
def test_generated_texts_are_the_old_ones(family: str) -> None:
    """A start or an end under another's id: answers that never end, or never begin."""
    head = {"GPT2": "ForCausalLM", "T5": "ForConditionalGeneration"}[family]
    tokenizer = vocabularies.tokenizer(PAIRS[family])
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id}
    model = _model(family, head, **ends)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    text = "kamito selran"
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    old = model.generate(ids, max_new_tokens=12, do_sample=False)
    keep = tokenizer.convert_ids_to_tokens(old[0])
    assert len(set(keep)) > 3
    trimmed = trim_vocabulary(model, tokenizer, [text], keep=keep)
    ids = torch.tensor([trimmed.tokenizer(text)["input_ids"]])
    new = trimmed.model.generate(ids, max_new_tokens=12, do_sample=False)
    assert [trimmed.kept[each] for each in new[0]] == old[0].tolist()
    assert trimmed.tokenizer.decode(new[0]) == tokenizer.decode(old[0])


def test_a_student_is_cut_from_a_trimmed_teacher(tmp_path: Path) -> None:
    """A multilingual teacher becomes a small student of few languages: one after the other."""
    model, tokenizer = _model("XLMRoberta"), vocabularies.tokenizer("XLMRoberta")
    trimmed = trim_vocabulary(model, tokenizer, ["ka mi to"])
    student = extract(trimmed.model, "L1-H16-A4").model
    student.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().weight.shape == (len(trimmed.kept), 16)


@pytest.mark.parametrize("padding", [1, 4])
def test_positions_stay(padding: int) -> None:
    """A padding token that moves to the front moves every position by as much."""
    model = _model("Roberta", pad_token_id=padding)
    tokenizer = vocabularies.tokenizer("Roberta")
    trimmed = trim_vocabulary(model, tokenizer, ["ka"])
    assert trimmed.model.config.pad_token_id == padding
    found = _states(trimmed.model, trimmed.tokenizer, ["ka"])
    assert torch.equal(found[0], _states(model, tokenizer, ["ka"])[0])


def test_ids_that_cannot_stay_are_refused() -> None:
    """A hole below the padding token cannot be kept, and positions would shift."""
    model = tiny.model("Roberta", pad_token_id=3)
    fast = tiny.tokenizer()
    state = fast.backend_tokenizer.to_str().replace('"one":3', '"one":59').replace('"w55":59', "")
    fast._tokenizer = type(fast.backend_tokenizer).from_str(state.replace(",}", "}"))
    with pytest.raises(ValueError, match="must have tokens of its own under the ids below 4"):
        trim_vocabulary(model, fast, ["w1 one"])


def test_padding_rows_go_or_fill_up() -> None:
    """Rows that no token has are the last that a smaller vocabulary needs."""
    model, tokenizer = tiny.model(vocab_size=64), tiny.tokenizer()
    texts = ["one w3 w4 w50"]
    trimmed = trim_vocabulary(model, tokenizer, texts)
    assert trimmed.kept == (0, 1, 2, 3, 7, 8, 54)
    trimmed = trim_vocabulary(model, tokenizer, texts, multiple_of=4)
    assert trimmed.kept == (0, 1, 2, 3, 7, 8, 54, 60)
    assert trimmed.model.config.vocab_size == 8
    trimmed = trim_vocabulary(model, tokenizer, texts, multiple_of=16)
    assert trimmed.kept == (0, 1, 2, 3, 7, 8, 54, 60, 61, 62, 63, 4, 5, 6, 9, 10)
    rows = model.get_input_embeddings().weight[list(trimmed.kept)]
    assert torch.equal(trimmed.model.get_input_embeddings().weight, rows)
    assert len(trimmed.tokenizer) == 7
    with pytest.raises(ValueError, match="size of at most the model's 64, got 100, which makes"):
        trim_vocabulary(model, tokenizer, texts, multiple_of=100)


def test_rows_that_a_config_names_stay() -> None:
    """An answer may begin with an id that no text is ever cut into."""
    model = tiny.model("Bart", "ForConditionalGeneration", vocab_size=64, decoder_start_token_id=62)
    trimmed = trim_vocabulary(model, tiny.tokenizer(), ["one"])
    assert trimmed.kept == (0, 1, 2, 3, 62)
    assert trimmed.model.config.decoder_start_token_id == 4


def test_tokens_that_a_config_names_are_found() -> None:
    """A kept token whose merges are gone is never met again: texts with it are cut otherwise."""
    tokenizer = vocabularies.tokenizer("GPT2")
    old = max((word for word in tokenizer.get_vocab() if word.isalpha()), key=len)
    model = _model("GPT2")
    model.config.sep_token_id = tokenizer.convert_tokens_to_ids(old)
    for trimmed in (
        trim_vocabulary(model, tokenizer, ["!"]),
        trim_vocabulary(_model("GPT2"), tokenizer, ["!"], keep=[old]),
    ):
        assert trimmed.tokenizer.tokenize(old) == tokenizer.tokenize(old) == [old]


def test_rare_tokens_go_and_named_ones_stay() -> None:
    """A typo in a million texts costs a row for ever."""
    model, tokenizer = tiny.model(), tiny.tokenizer()
    texts = ["w1 w1 w2", "w2 w1 w3"]
    trimmed = trim_vocabulary(model, tokenizer, texts, min_count=2, keep=["w9"])
    assert trimmed.kept == (0, 1, 2, 5, 6, 13)
    assert trimmed.tokenizer.tokenize("w1 w3 w9") == ["w1", "[UNK]", "w9"]


def test_used_tokens_counts_all_and_only_texts() -> None:
    """A limit of length that was set for training would hide the end of every long text."""
    tokenizer = copy.deepcopy(vocabularies.tokenizer("Bert"))
    before = tokenizer("ka", padding="max_length", max_length=4, truncation=True)
    state = tokenizer.backend_tokenizer.to_str()

    def texts() -> Iterator[str]:
        yield from ["mi " * 9, "ka"] * 1500

    counts = used_tokens(tokenizer, texts())
    ids = tokenizer.get_vocab()
    assert counts == {ids["mi"]: 13500, ids["ka"]: 1500}
    assert tokenizer.backend_tokenizer.to_str() == state
    assert tokenizer("ka", padding="max_length", max_length=4, truncation=True) == before
    trimmed = trim_vocabulary(_model("Bert"), tokenizer, ["ka mi to vor sel"])
    assert len(trimmed.tokenizer.backend_tokenizer.encode("ka mi to vor sel").ids) == 4


def test_words_and_texts() -> None:
    """A word in a list has no space before it, where a text has one: these are other tokens."""
    tokenizer = vocabularies.tokenizer("GPT2")
    ids = tokenizer.get_vocab()
    whole, split = used_tokens(tokenizer, ["ka mi"]), used_tokens(tokenizer, [["ka", "mi"]])
    assert ids["Ġmi"] in whole
    assert ids["Ġmi"] not in split
    assert used_tokens(tokenizer, ["ka mi", ["ka", "mi"], "ka mi"]) == whole + whole + split


@pytest.mark.parametrize("texts", [["abc"], [["abc"]], ["w abc w"]])
def test_unknown_words_stay_unknown(texts: list[Any]) -> None:
    """`abc` is unknown for want of `##c` after `ab`; with `a` alone it would be `a ##bc`."""
    tokenizer = vocabularies.word_piece("[PAD] [UNK] [CLS] [SEP] [MASK] a ab ##bc w")
    assert tokenizer.tokenize("abc") == ["[UNK]"]
    trimmed = trim_vocabulary(tiny.model(vocab_size=9), tokenizer, [*texts, "a"], keep=["##bc"])
    assert trimmed.tokenizer.tokenize("abc") == ["[UNK]"]
    trimmed = trim_vocabulary(tiny.model(vocab_size=9), tokenizer, ["a"], keep=["##bc"])
    assert trimmed.tokenizer.tokenize("abc") == ["a", "##bc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "texts must hold at least one token, got none"),
        ({"texts": [""]}, "texts must hold at least one token, got none"),
        ({"texts": "w1 w2"}, "texts must be several texts, got 'w1 w2'. Put it into"),
        ({"texts": ["w1", None]}, "texts must be strings, or lists of words, got None"),
        ({"texts": ["w1", [3]]}, r"texts must be strings, or lists of words, got \[3\]"),
        ({"min_count": 0}, "min_count must be an int >= 1, got 0"),
        ({"min_count": 1.5}, "min_count must be an int >= 1, got 1.5"),
        ({"multiple_of": 0}, "multiple_of must be an int >= 1, got 0"),
        ({"multiple_of": True}, "multiple_of must be an int >= 1, got True"),
        ({"keep": ["w77"]}, "keep must name tokens of the vocabulary, got 'w77'. Did you mean 'w7"),
        ({"keep": "w77"}, "keep must name tokens of the vocabulary, got 'w77'"),
        ({"model": tiny.model(vocab_size=50)}, r"beyond the model's 50 rows, got \['w46', 'w47"),
    ],
)
def test_faults_are_told(arguments: dict[str, Any], message: str) -> None:
    """A corpus that was read from the wrong column trims a vocabulary to nothing."""
    given = {"model": tiny.model(), "tokenizer": tiny.tokenizer(), "texts": ["w1"], **arguments}
    with pytest.raises(ValueError, match=message):
        trim_vocabulary(**given)


def test_nothing_is_changed_in_place() -> None:
    """A model of which one half was cut when the other failed."""
    model, tokenizer = _model("Bert", "ForMaskedLM"), vocabularies.tokenizer("Bert")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = tokenizer.backend_tokenizer.to_str()
    trimmed = trim_vocabulary(model, tokenizer, ["ka"])
    assert isinstance(trimmed, Trimmed)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == state
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    shared = {tensor.data_ptr() for tensor in model.parameters()}
    assert shared.isdisjoint(tensor.data_ptr() for tensor in trimmed.model.parameters())
