"""The tensors of encoders."""

from __future__ import annotations

from hf_distill.architectures.parts import (
    CONTEXT,
    EMBEDDING,
    FFN,
    HEADS,
    HIDDEN,
    KEY,
    POSITIONS,
    QUERY,
    VALUE,
    WHOLE,
    Anatomy,
    Part,
    Stack,
    attention,
    linear,
    norm,
    sizes,
    table,
)


def _embeddings(columns: str = HIDDEN) -> dict[str, Part]:
    return {
        **table("words", "embeddings.word_embeddings", WHOLE, columns),
        **table("positions", "embeddings.position_embeddings", POSITIONS, columns),
        **table("types", "embeddings.token_type_embeddings", WHOLE, columns),
        **norm("embedding_norm", "embeddings.LayerNorm", columns),
    }


_FEED_FORWARD = {
    **linear("ffn_in", "intermediate.dense", FFN, HIDDEN),
    **linear("ffn_out", "output.dense", HIDDEN, FFN),
    **norm("ffn_norm", "output.LayerNorm"),
}

_LAYER = {
    **attention(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
    ),
    **norm("attention_norm", "attention.output.LayerNorm"),
    **_FEED_FORWARD,
}

_TOKEN_HEADS = {
    **linear("classifier", "classifier", WHOLE, HIDDEN),
    **linear("qa_outputs", "qa_outputs", WHOLE, HIDDEN),
}
"""Heads of one projection."""

_CLASSIFICATION_HEAD = {
    **linear("classifier.dense", "classifier.dense", HIDDEN, HIDDEN),
    **linear("classifier.out_proj", "classifier.out_proj", WHOLE, HIDDEN),
}

_BERT_OUTER = {
    **_embeddings(),
    **linear("pooler", "pooler.dense", HIDDEN, HIDDEN),
    **_TOKEN_HEADS,
    "cls.predictions.bias": Part("words_bias", (WHOLE,)),
    **linear("lm_dense", "cls.predictions.transform.dense", HIDDEN, HIDDEN),
    **norm("lm_norm", "cls.predictions.transform.LayerNorm"),
    **linear("lm_decoder", "cls.predictions.decoder", WHOLE, HIDDEN),
    **linear("next_sentence", "cls.seq_relationship", WHOLE, HIDDEN),
}

_LM_HEAD = {
    "lm_head.bias": Part("words_bias", (WHOLE,)),
    **linear("lm_dense", "lm_head.dense", HIDDEN, HIDDEN),
    **norm("lm_norm", "lm_head.layer_norm"),
    **linear("lm_decoder", "lm_head.decoder", WHOLE, HIDDEN),
}

BERT = Anatomy(stacks=(Stack("encoder.layer", _LAYER),), outer=_BERT_OUTER)

ROBERTA = Anatomy(
    stacks=(Stack("encoder.layer", _LAYER),),
    outer={
        **_embeddings(),
        **linear("pooler", "pooler.dense", HIDDEN, HIDDEN),
        **_TOKEN_HEADS,
        **_CLASSIFICATION_HEAD,
        **_LM_HEAD,
    },
    position_offset="pad",
)

ELECTRA = Anatomy(
    stacks=(Stack("encoder.layer", _LAYER),),
    outer={
        **_embeddings(EMBEDDING),
        **linear("embedding_projection", "embeddings_project", HIDDEN, EMBEDDING),
        **_TOKEN_HEADS,
        **_CLASSIFICATION_HEAD,
        **norm("generator_norm", "generator_predictions.LayerNorm", EMBEDDING),
        **linear("generator_dense", "generator_predictions.dense", EMBEDDING, HIDDEN),
        **linear("generator_decoder", "generator_lm_head", WHOLE, EMBEDDING),
        **linear("discriminator_dense", "discriminator_predictions.dense", HIDDEN, HIDDEN),
        **linear("discriminator_out", "discriminator_predictions.dense_prediction", WHOLE, HIDDEN),
        # The pooled summary of its multiple-choice head.
        **linear("summary", "sequence_summary.summary", HIDDEN, HIDDEN),
    },
    sizes=sizes(embedding="embedding_size"),
)

DISTILBERT = Anatomy(
    stacks=(
        Stack(
            "transformer.layer",
            {
                **attention(
                    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"
                ),
                **norm("attention_norm", "sa_layer_norm"),
                **linear("ffn_in", "ffn.lin1", FFN, HIDDEN),
                **linear("ffn_out", "ffn.lin2", HIDDEN, FFN),
                **norm("ffn_norm", "output_layer_norm"),
            },
        ),
    ),
    outer={
        **_embeddings(),
        **linear("pre_classifier", "pre_classifier", HIDDEN, HIDDEN),
        **_TOKEN_HEADS,
        **linear("lm_dense", "vocab_transform", HIDDEN, HIDDEN),
        **norm("lm_norm", "vocab_layer_norm"),
        **linear("lm_decoder", "vocab_projector", WHOLE, HIDDEN),
    },
    sizes=sizes(ffn="hidden_dim"),
)

ALBERT = Anatomy(
    stacks=(
        Stack(
            "encoder.albert_layer_groups",
            {
                **attention(
                    "albert_layers.0.attention.query",
                    "albert_layers.0.attention.key",
                    "albert_layers.0.attention.value",
                    "albert_layers.0.attention.dense",
                ),
                **norm("attention_norm", "albert_layers.0.attention.LayerNorm"),
                **linear("ffn_in", "albert_layers.0.ffn", FFN, HIDDEN),
                **linear("ffn_out", "albert_layers.0.ffn_output", HIDDEN, FFN),
                **norm("ffn_norm", "albert_layers.0.full_layer_layer_norm"),
            },
        ),
    ),
    outer={
        **_embeddings(EMBEDDING),
        **linear("embedding_projection", "encoder.embedding_hidden_mapping_in", HIDDEN, EMBEDDING),
        **linear("pooler", "pooler", HIDDEN, HIDDEN),
        **_TOKEN_HEADS,
        "predictions.bias": Part("words_bias", (WHOLE,)),
        **linear("generator_dense", "predictions.dense", EMBEDDING, HIDDEN),
        **norm("generator_norm", "predictions.LayerNorm", EMBEDDING),
        **linear("generator_decoder", "predictions.decoder", WHOLE, EMBEDDING),
        **linear("sentence_order", "sop_classifier.classifier", WHOLE, HIDDEN),
    },
    sizes=sizes(embedding="embedding_size"),
    projects=True,
    shared=True,
)

MPNET = Anatomy(
    stacks=(
        Stack(
            "encoder.layer",
            {
                **attention(
                    "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"
                ),
                **norm("attention_norm", "attention.LayerNorm"),
                **_FEED_FORWARD,
            },
        ),
    ),
    outer={
        **_embeddings(),
        **table("relative_bias", "encoder.relative_attention_bias", WHOLE, HEADS),
        **linear("pooler", "pooler.dense", HIDDEN, HIDDEN),
        **_TOKEN_HEADS,
        **_CLASSIFICATION_HEAD,
        **_LM_HEAD,
    },
    position_offset="pad",
    same_heads=True,
)

DEBERTA_V2 = Anatomy(
    stacks=(
        Stack(
            "encoder.layer",
            {
                **attention(
                    "attention.self.query_proj",
                    "attention.self.key_proj",
                    "attention.self.value_proj",
                    "attention.output.dense",
                ),
                **linear("position_key", "attention.self.pos_key_proj", KEY, HIDDEN),
                **linear("position_query", "attention.self.pos_query_proj", QUERY, HIDDEN),
                **norm("attention_norm", "attention.output.LayerNorm"),
                **_FEED_FORWARD,
            },
        ),
    ),
    outer={
        **_embeddings(EMBEDDING),
        **linear("embedding_projection", "embeddings.embed_proj", HIDDEN, EMBEDDING),
        # The norm is behind the projection.
        **norm("embedding_norm", "embeddings.LayerNorm"),
        **table("relative_positions", "encoder.rel_embeddings"),
        **norm("relative_norm", "encoder.LayerNorm"),
        "encoder.conv.conv.weight": Part("convolution.weight", (HIDDEN, HIDDEN, WHOLE)),
        "encoder.conv.conv.bias": Part("convolution.bias", (HIDDEN,)),
        **norm("convolution_norm", "encoder.conv.LayerNorm"),
        **linear("pooler", "pooler.dense", HIDDEN, HIDDEN),
        **_TOKEN_HEADS,
        "cls.predictions.bias": Part("words_bias", (WHOLE,)),
        **linear("lm_dense", "cls.predictions.transform.dense", EMBEDDING, HIDDEN),
        **norm("lm_norm", "cls.predictions.transform.LayerNorm", EMBEDDING),
        **linear("lm_decoder", "cls.predictions.decoder", WHOLE, EMBEDDING),
        **linear("lm_dense", "lm_predictions.lm_head.dense", HIDDEN, HIDDEN),
        **norm("lm_norm", "lm_predictions.lm_head.LayerNorm"),
        "lm_predictions.lm_head.bias": Part("words_bias", (WHOLE,)),
    },
    sizes=sizes(embedding="embedding_size"),
    also={"pooler_hidden_size": "width"},
)

MODERNBERT = Anatomy(
    stacks=(
        Stack(
            "layers",
            {
                **norm("attention_norm", "attn_norm"),
                **linear("query_key_value", "attn.Wqkv", (QUERY, KEY, VALUE), HIDDEN),
                **linear("output", "attn.Wo", HIDDEN, CONTEXT),
                **norm("ffn_norm", "mlp_norm"),
                **linear("ffn_in", "mlp.Wi", (FFN, FFN), HIDDEN),
                **linear("ffn_out", "mlp.Wo", HIDDEN, FFN),
            },
            takes_up={"attn.Wqkv.weight": "attn_norm.weight"},
        ),
    ),
    outer={
        **table("words", "embeddings.tok_embeddings"),
        **norm("embedding_norm", "embeddings.norm"),
        **norm("final_norm", "final_norm"),
        **linear("head_dense", "head.dense", HIDDEN, HIDDEN),
        **norm("head_norm", "head.norm"),
        **_TOKEN_HEADS,
        **linear("lm_decoder", "decoder", WHOLE, HIDDEN),
    },
    rotary=True,
)
