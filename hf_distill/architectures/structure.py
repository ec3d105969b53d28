"""Where each model family keeps its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One family's map, as dotted paths.

    `layers`, `embeddings`, `final_norm` and `decoder` are below the base model, the others below a
    layer. Of an encoder-decoder, the layers are the encoder's: those of its decoder have no number.
    """

    layers: str
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    fused: str | None = None
    """The projection that gives query, key and value at once, where the family has one."""
    embeddings: Sequence[str] = ("embeddings",)
    """The module whose output is layer 0: the last of these that the model has."""
    final_norm: str | None = None
    """A norm after the last layer, whose output counts as that layer's."""
    shared: bool = False
    """Whether `layers` lists groups that are run several times (ALBERT)."""
    scores: str | None = None
    """Where attention is more than softmax(QK^T / sqrt(d)): the dropout of its probabilities."""
    causal: bool = False
    """Whether a token sees only those before it."""
    decoder: str | None = None
    """The layers of a decoder beside the encoder."""
    least: int = 0
    """The fewest layers that its forward pass can do with."""
    shows: frozenset[str] = frozenset(
        {"hidden", "attention", "attention_scores", "query", "key", "value"}
    )
    """The layered signals that can be captured."""


_BERT = Architecture(layers="encoder.layer")
# Their scores hold relative positions, which are nowhere to be seen before the softmax.
_ALL_BUT_SCORES = _BERT.shows - {"attention_scores"}
# Relations and maps would need the causal mask, and keys as many as queries.
_LLAMA = Architecture(
    layers="layers",
    embeddings=("embed_tokens",),
    final_norm="norm",
    causal=True,
    shows=frozenset({"hidden"}),
)

ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": Architecture(
        layers="encoder.layer", embeddings=("embeddings", "embeddings_project")
    ),
    "distilbert": Architecture(
        layers="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
    ),
    "albert": Architecture(
        layers="encoder.albert_layer_groups",
        query="albert_layers.0.attention.query",
        key="albert_layers.0.attention.key",
        value="albert_layers.0.attention.value",
        embeddings=("encoder.embedding_hidden_mapping_in",),
        shared=True,
    ),
    "deberta-v2": Architecture(
        layers="encoder.layer",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        scores="attention.self.dropout",
        least=1,
        shows=_ALL_BUT_SCORES,
    ),
    "mpnet": Architecture(
        layers="encoder.layer",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        scores="attention.attn.dropout",
        shows=_ALL_BUT_SCORES,
    ),
    "modernbert": Architecture(
        layers="layers",
        fused="attn.Wqkv",
        final_norm="final_norm",
        # Its maps would need rotated queries and keys, and the windows of its local layers.
        shows=frozenset({"hidden", "query", "key", "value"}),
    ),
    "gpt2": Architecture(
        layers="h",
        embeddings=("drop",),
        final_norm="ln_f",
        causal=True,
        shows=frozenset({"hidden"}),
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "t5": Architecture(
        layers="encoder.block",
        query="layer.0.SelfAttention.q",
        key="layer.0.SelfAttention.k",
        value="layer.0.SelfAttention.v",
        # It runs twice, the first time on the embeddings.
        embeddings=("encoder.dropout",),
        final_norm="encoder.final_layer_norm",
        decoder="decoder.block",
        # Its maps would need the bias of relative positions.
        shows=frozenset({"hidden", "query", "key", "value"}),
    ),
    "bart": Architecture(
        layers="encoder.layers",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        embeddings=("encoder.layernorm_embedding",),
        decoder="decoder.layers",
    ),
}
"""model_type -> architecture. DeBERTa-v3 is of type deberta-v2."""


def architecture(config: Any) -> Architecture:
    """The architecture of a model's config.

    Raises:
        ValueError: The family is not known here.
    """
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(
            f"model must be of a known family ({known}), got model_type {config.model_type!r}."
        )
    return found


def plain_model(model: Any) -> Any:
    """The transformers model below PEFT adapters; any other model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_model(model: nn.Module) -> Any:
    """The model below a head and below PEFT adapters; a headless model itself."""
    return plain_model(model).base_model


def layers(model: nn.Module) -> list[nn.Module]:
    """The layer modules in order of execution; one that runs several times is listed as often."""
    base = base_model(model)
    family = architecture(base.config)
    found = list(base.get_submodule(family.layers))
    if not family.shared:
        return found
    depth: int = base.config.num_hidden_layers
    if base.config.inner_group_num != 1:
        raise ValueError(
            f"inner_group_num of an ALBERT must be 1, got {base.config.inner_group_num}."
        )
    return [found[index * len(found) // depth] for index in range(depth)]


def embeddings(model: nn.Module) -> nn.Module:
    """The module whose output is layer 0."""
    base = base_model(model)
    present: dict[str, nn.Module] = dict(base.named_modules())
    return [present[path] for path in architecture(base.config).embeddings if path in present][-1]


def decoder_layers(model: nn.Module) -> int:
    """How many layers the decoder of an encoder-decoder has; 0 of any other model."""
    base = base_model(model)
    path = architecture(base.config).decoder
    return len(base.get_submodule(path)) if path and base.config.is_encoder_decoder else 0


def forward_options(model: nn.Module) -> dict[str, bool]:
    """What a forward pass is told beside its inputs: not to cache keys and values for generation.

    An encoder keeps none, and is told nothing.
    """
    plain = plain_model(model)
    decodes = architecture(plain.config).causal or plain.config.is_encoder_decoder
    return {"use_cache": False} if decodes else {}
