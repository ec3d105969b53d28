"""Which families compute alike, and the config of a teacher written as one of another family."""

from __future__ import annotations

import copy

from transformers import PretrainedConfig

from hf_distill.architectures import anatomy
from hf_distill.student.size import Size, write_size

_KIN = (
    ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "mpnet", "albert"),
    ("llama", "qwen2", "qwen3"),
)
"""Families whose layers do the same with the same tensors."""

_WAYS = {
    "bert": "normalises after each sublayer, and counts positions from the first token",
    "llama": "normalises before each sublayer, rotates queries and keys, and sees no later token",
    "deberta-v2": "lets attention compare contents with distances",
    "modernbert": "normalises before each sublayer, and rotates queries and keys",
    "gpt2": "normalises before each sublayer, and sees no later token",
    "t5": "normalises before each sublayer, and adds a bias for distances",
    "bart": "has a decoder beside its encoder",
}

_SETTINGS = (
    "vocab_size",
    "rms_norm_eps",
    "rope_parameters",
    "mlp_bias",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "tie_word_embeddings",
    "initializer_range",
    "problem_type",
    "id2label",
    "label2id",
)
"""What is the teacher's where both families know it, beside the ids of special tokens."""

_EPSILON = 1e-12
"""Of the norms of families that do not name it."""


def relative_config(teacher: PretrainedConfig, asked: PretrainedConfig) -> PretrainedConfig:
    """The teacher's config as one of the family that is asked for, in the teacher's sizes.

    Vocabulary, ids, labels, activation and the norms' epsilon are the teacher's; positions are as
    many as the teacher's tokens have. What the teacher's family does not know stays as asked.

    Args:
        teacher: Its config.
        asked: A config of another family.

    Raises:
        ValueError: The families compute in other ways, or this teacher does.
    """
    _check_kin(teacher, asked)
    config = copy.deepcopy(asked)
    shared = {
        name: getattr(teacher, name)
        for name in (*_SETTINGS, *_token_ids(asked))
        if hasattr(teacher, name)
    }
    for name, value in {**shared, **_translated(teacher)}.items():
        if hasattr(config, name):
            setattr(config, name, copy.deepcopy(value))
    write_size(Size.of(teacher), config)
    for each in (teacher, config):
        _check_padding(each)
    shift = position_offset(config) - position_offset(teacher)
    config.max_position_embeddings = teacher.max_position_embeddings + shift
    return config


def _translated(teacher: PretrainedConfig) -> dict[str, object]:
    """What families call by several names, or leave unsaid."""
    found: dict[str, object] = {
        "hidden_act": activation(teacher),
        "activation": activation(teacher),
        "layer_norm_eps": epsilon(teacher),
        "attention_bias": has_attention_bias(teacher),
        "layer_types": _layer_types(teacher),
    }
    types = getattr(teacher, "type_vocab_size", 0)
    return {**found, "type_vocab_size": types} if types else found


def position_offset(config: PretrainedConfig) -> int:
    """The row of the first position."""
    offset = anatomy(config).position_offset
    return int(config.pad_token_id) + 1 if offset == "pad" else int(offset)


def activation(config: PretrainedConfig) -> str:
    """The activation of feed-forward layers."""
    return str(getattr(config, "hidden_act", None) or getattr(config, "activation", ""))


def epsilon(config: PretrainedConfig) -> float:
    """What norms add to the variance."""
    named = getattr(config, "layer_norm_eps", None) or getattr(config, "rms_norm_eps", None)
    return float(named or _EPSILON)


def has_attention_bias(config: PretrainedConfig) -> bool:
    """Whether queries, keys and values have biases; Qwen2, which always has them, does not say."""
    return bool(getattr(config, "attention_bias", True))


def _token_ids(config: PretrainedConfig) -> list[str]:
    return [name for name in vars(config) if name.endswith("token_id")]


def _layer_types(teacher: PretrainedConfig) -> list[str]:
    """Of each layer, which tokens it attends to."""
    return getattr(teacher, "layer_types", None) or ["full_attention"] * Size.of(teacher).layers


def _check_kin(teacher: PretrainedConfig, asked: PretrainedConfig) -> None:
    anatomy(asked)
    mine, theirs = asked.model_type, teacher.model_type
    kin = next((family for family in _KIN if theirs in family), ())
    if mine not in kin:
        others = [each for each in kin if each not in (theirs, "albert")]
        remedy = f"Of its kind are {', '.join(others)}." if others else "No other family does so."
        raise ValueError(
            f"size must be a config of a family that computes as the teacher's does, got {mine!r} "
            f"for a {theirs}, which {_way(theirs)}. {remedy}"
        )
    if mine == "albert":
        raise ValueError(
            "size must be a config of a family whose layers have weights of their own, got "
            f"{mine!r} for a {theirs}. An ALBERT runs one layer several times: distil into one "
            "that begins at random."
        )
    if getattr(teacher, "is_decoder", False) or getattr(asked, "is_decoder", False):
        raise ValueError(
            "teacher must be an encoder where its student is of another family, got is_decoder="
            "True. Not all of these families can see earlier tokens alone."
        )
    _check_embeddings(teacher, asked)
    _check_windows(teacher, asked)


def _check_embeddings(teacher: PretrainedConfig, asked: PretrainedConfig) -> None:
    """An embedding that is normalised before its projection cannot be one that is so after."""
    size = Size.of(teacher)
    if getattr(teacher, "inner_group_num", 1) != 1:
        raise ValueError(
            f"inner_group_num of the teacher must be 1, got {teacher.inner_group_num!r}. "
            "Take a student of its own family."
        )
    if size.embedding == size.width and not anatomy(teacher).projects:
        return
    if asked.model_type != "electra" or size.embedding == size.width:
        raise ValueError(
            "size must be a config of a family that projects its embeddings after their norm, as "
            f"the teacher's are ({size.embedding} to {size.width}), got {asked.model_type!r}. "
            "The product of the two would skip the norm: take an ElectraConfig with an "
            "embedding_size below its hidden_size."
        )


def _check_windows(teacher: PretrainedConfig, asked: PretrainedConfig) -> None:
    kinds = set(getattr(teacher, "layer_types", None) or ()) - {"full_attention"}
    if kinds and getattr(asked, "layer_types", None) is None:
        raise ValueError(
            "size must be a config of a family that knows the teacher's kinds of attention "
            f"{sorted(kinds)}, got {asked.model_type!r}. Take one of the teacher's own family."
        )


def _check_padding(config: PretrainedConfig) -> None:
    """Positions are counted from the padding's id where the family does so."""
    if anatomy(config).position_offset == "pad" and config.pad_token_id is None:
        raise ValueError(
            f"pad_token_id must be known where positions are counted from it ({config.model_type})"
            ", got None. Set it in the teacher's config."
        )
    if config.model_type == "mpnet" and config.pad_token_id != 1:
        raise ValueError(
            "pad_token_id must be 1 for an MPNet, which counts positions from there whatever its "
            f"config says, got {config.pad_token_id!r}. Choose another family, such as BERT."
        )


def _way(model_type: str) -> str:
    first = next((family[0] for family in _KIN if model_type in family), model_type)
    return _WAYS[first]
