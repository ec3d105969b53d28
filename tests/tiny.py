"""Tiny models of every supported family, built from configs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn

VOCABULARY = 60
SPECIAL = {"pad_token_id": 0}

_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "classifier_dropout": 0.0,
}

_DECODES = {"decoder_start_token_id": 0, "eos_token_id": 2}
_GROUPED = {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}

FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {},
    "XLMRoberta": {},
    "DistilBert": {
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
        "qa_dropout": 0.0,
    },
    "Electra": {"embedding_size": 16},
    "Albert": {"embedding_size": 16, "classifier_dropout_prob": 0.0},
    "DebertaV2": {
        "relative_attention": True,
        "position_buckets": 16,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_dropout": 0.0,
    },
    "MPNet": {},
    "ModernBert": {
        "cls_token_id": 1,
        "sep_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "attention_dropout": 0.0,
        "mlp_dropout": 0.0,
        "embedding_dropout": 0.0,
        "local_attention": 8,
        "global_attn_every_n_layers": 2,
    },
    "GPT2": {
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "Llama": _GROUPED,
    "Qwen2": _GROUPED,
    "Qwen3": {**_GROUPED, "head_dim": 16},
    "T5": {"d_kv": 16, "num_decoder_layers": 2, "dropout_rate": 0.0, **_DECODES},
    "Bart": {
        "decoder_layers": 2,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "dropout": 0.0,
        **_DECODES,
    },
}

_NAMES = {
    "DistilBert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
    "GPT2": {"intermediate_size": "n_inner"},
    "T5": {"intermediate_size": "d_ff"},
    "Bart": {
        "num_hidden_layers": "encoder_layers",
        "intermediate_size": "encoder_ffn_dim",
        "initializer_range": "init_std",
    },
}
"""Family -> what it calls what BERT's config calls otherwise, where it does not know both."""

_CLASSES = {"GPT2ForCausalLM": "GPT2LMHeadModel", "T5Model": "T5EncoderModel"}


def config(family: str = "Bert", **changes: Any) -> transformers.PretrainedConfig:
    """A tiny config; `changes` in BERT's names."""
    values = {**_BASE, **FAMILIES[family], **changes}
    names = _NAMES.get(family, {})
    values = {names.get(name, name): value for name, value in values.items()}
    return getattr(transformers, f"{family}Config")(**values)


def heads(family: str, among: Iterable[str]) -> list[str]:
    """Those heads that the family has a class for."""
    return [head for head in among if hasattr(transformers, _class(family, head))]


def model(family: str = "Bert", head: str = "Model", **changes: Any) -> nn.Module:
    """A tiny random model, as in `model("Bert", "ForSequenceClassification", num_labels=3)`."""
    return getattr(transformers, _class(family, head))(config(family, **changes)).eval()


def _class(family: str, head: str) -> str:
    return _CLASSES.get(f"{family}{head}", f"{family}{head}")


def tokenizer(first: str = "one") -> transformers.PreTrainedTokenizerFast:
    """A tokenizer of 60 words, whose first word is named and whose others are w0 to w55."""
    words = ["[PAD]", "[UNK]", "[MASK]", first, *(f"w{number}" for number in range(56))]
    made = Tokenizer(WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special)
