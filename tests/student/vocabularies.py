"""Small tokenizers of every kind, trained in memory, and texts drawn by a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

_SYLLABLES = (
    "ka",
    "mi",
    "to",
    "ran",
    "sel",
    "ü",
    "el",
    "vor",
    "ing",
    "st",
    "abab",
    "aab",
    "b",
    "é",
)
_STRANGE = ("ж", "日本", "🙂", "ñandú", "q" * 120, "x1", "zz.zz", "[MASK]", "don't")


def sentence(draw: random.Random, strange: float = 0.1) -> str:
    """A sentence of made-up words, some with characters that no tokenizer was trained on."""
    words = []
    for _ in range(draw.randint(1, 9)):
        word = "".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4)))
        word = word.capitalize() if draw.random() < 0.2 else word
        words.append(draw.choice(_STRANGE) if draw.random() < strange else word)
    return " ".join(words) + draw.choice(["", ".", " !", "  "])


def corpus(seed: int, size: int, strange: float = 0.1) -> list[str]:
    draw = random.Random(seed)
    return [sentence(draw, strange) for _ in range(size)]


def _trained(made: Tokenizer, trainer: Any) -> dict[str, Any]:
    """The model of a trained tokenizer, as its JSON has it."""
    made.train_from_iterator(corpus(0, 400, strange=0.0), trainer)
    return json.loads(made.to_str())["model"]


def word_piece(pieces: str) -> Any:
    """BERT's tokenizer of these pieces."""
    vocabulary = {piece: at for at, piece in enumerate(pieces.split())}
    return transformers.BertTokenizer(vocab=vocabulary)


def _word_piece(kind: Any, special: str) -> Any:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=special.split(), show_progress=False
    )
    return kind(vocab=_trained(made, trainer)["vocab"])


def _bytes(kind: Any, special: str) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special.split(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model = _trained(made, trainer)
    return kind(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def _llama() -> Any:
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False)
    model = _trained(made, trainer)
    merges = [tuple(merge) for merge in model["merges"]]
    return transformers.LlamaTokenizer(vocab=model["vocab"], merges=merges)


def _whole_words() -> Any:
    """As Llama 3: words found whole, merges of every split, its template after the byte level's."""
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<start>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    state = json.loads(made.to_str())
    model = _trained(made, trainer)
    ids = model["vocab"]
    splits = ((word[:at], word[at:]) for word in ids for at in range(1, len(word)))
    known = (pair for pair in splits if pair[0] in ids and pair[1] in ids)
    model["merges"] = sorted(known, key=lambda pair: ids["".join(pair)])
    ids["Ġunreachable"] = len(ids)
    made = Tokenizer.from_str(json.dumps({**state, "model": model}))
    made.decoder = decoders.ByteLevel()
    template = processors.TemplateProcessing(
        single="<start> $A", pair="<start> $A <start> $B", special_tokens=[("<start>", 0)]
    )
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    )


def _word_ends() -> Any:
    """A BPE whose words end in </w>, as GPT-1 and HerBERT have it."""
    made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=160,
        special_tokens=["<unk>", "<pad>"],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    made.train_from_iterator(corpus(0, 400, strange=0.0), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>"
    )


def unigram(kind: Any, special: str, unknown: str, **settings: Any) -> Any:
    """A SentencePiece tokenizer, with its first pieces named."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=special.split(), unk_token=unknown, show_progress=False
    )
    model = _trained(made, trainer)
    return kind(vocab=[tuple(entry) for entry in model["vocab"]], **settings)


_BERT = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK]"
_BUILD: dict[str, Callable[[], Any]] = {
    "Bert": lambda: _word_piece(transformers.BertTokenizer, _BERT),
    "DistilBert": lambda: _word_piece(transformers.DistilBertTokenizer, _BERT),
    "MPNet": lambda: _word_piece(transformers.MPNetTokenizer, "<s> <pad> </s> [UNK] <mask>"),
    "Roberta": lambda: _bytes(transformers.RobertaTokenizer, "<s> <pad> </s> <unk> <mask>"),
    "GPT2": lambda: _bytes(transformers.GPT2Tokenizer, "<|endoftext|>"),
    "Qwen2": lambda: _bytes(transformers.Qwen2Tokenizer, "<|endoftext|>"),
    "Llama": _llama,
    "whole words": _whole_words,
    "word ends": _word_ends,
    "XLMRoberta": lambda: unigram(
        transformers.XLMRobertaTokenizer, "<s> <pad> </s> <unk>", "<unk>"
    ),
    "T5": lambda: unigram(transformers.T5Tokenizer, "<pad> </s> <unk>", "<unk>", extra_ids=7),
    "Albert": lambda: unigram(
        transformers.AlbertTokenizer, "<pad> <unk> [CLS] [SEP] [MASK]", "<unk>"
    ),
    "DebertaV2": lambda: unigram(
        transformers.DebertaV2Tokenizer, "[PAD] [CLS] [SEP] [UNK]", "[UNK]"
    ),
}
KINDS = tuple(_BUILD)


@cache
def tokenizer(kind: str) -> Any:
    """A tokenizer of this kind; shared, so tests must not change it."""
    return _BUILD[kind]()
