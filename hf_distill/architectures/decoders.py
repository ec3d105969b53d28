"""The tensors of decoders, and of encoders with one."""

from __future__ import annotations

from hf_distill.architectures.parts import (
    CHANNEL,
    CONTEXT,
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
    conv1d,
    linear,
    norm,
    sizes,
    table,
)

_HEADS = {
    **linear("lm_decoder", "lm_head", WHOLE, HIDDEN),
    **linear("score", "score", WHOLE, HIDDEN),
    **linear("classifier", "classifier", WHOLE, HIDDEN),
    **linear("qa_outputs", "qa_outputs", WHOLE, HIDDEN),
}

GPT2 = Anatomy(
    stacks=(
        Stack(
            "h",
            {
                **norm("attention_norm", "ln_1"),
                **conv1d("query_key_value", "attn.c_attn", (QUERY, KEY, VALUE), HIDDEN),
                **conv1d("output", "attn.c_proj", HIDDEN, CONTEXT),
                **norm("ffn_norm", "ln_2"),
                **conv1d("ffn_in", "mlp.c_fc", FFN, HIDDEN),
                **conv1d("ffn_out", "mlp.c_proj", HIDDEN, FFN),
            },
        ),
    ),
    outer={
        **table("words", "wte"),
        **table("positions", "wpe", POSITIONS),
        **norm("final_norm", "ln_f"),
        **_HEADS,
        **linear("summary", "multiple_choice_head.summary", WHOLE, HIDDEN),
    },
    sizes=sizes(ffn="n_inner"),
)

LLAMA = Anatomy(
    stacks=(
        Stack(
            "layers",
            {
                **norm("attention_norm", "input_layernorm"),
                **attention(
                    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"
                ),
                **norm("query_norm", "self_attn.q_norm", CHANNEL),
                **norm("key_norm", "self_attn.k_norm", CHANNEL),
                **norm("ffn_norm", "post_attention_layernorm"),
                **linear("ffn_gate", "mlp.gate_proj", FFN, HIDDEN),
                **linear("ffn_in", "mlp.up_proj", FFN, HIDDEN),
                **linear("ffn_out", "mlp.down_proj", HIDDEN, FFN),
            },
        ),
    ),
    outer={
        **table("words", "embed_tokens"),
        **norm("final_norm", "norm"),
        **_HEADS,
    },
    sizes=sizes(head_size="head_dim", groups="num_key_value_heads"),
    rotary=True,
)
"""Llama, Qwen2 and Qwen3; Qwen3 alone normalises queries and keys."""


def _t5(*, decoder: bool) -> Stack:
    def own(leaf: str) -> str:
        return f"layer.0.SelfAttention.{leaf}"

    def other(leaf: str) -> str:
        return f"layer.1.EncDecAttention.{leaf}"

    ffn = f"layer.{1 + decoder}"
    parts = {
        **norm("attention_norm", "layer.0.layer_norm"),
        **attention(own("q"), own("k"), own("v"), own("o")),
        **norm("ffn_norm", f"{ffn}.layer_norm"),
        **linear("ffn_in", f"{ffn}.DenseReluDense.wi", FFN, HIDDEN),
        **linear("ffn_gate", f"{ffn}.DenseReluDense.wi_0", FFN, HIDDEN),
        **linear("ffn_in", f"{ffn}.DenseReluDense.wi_1", FFN, HIDDEN),
        **linear("ffn_out", f"{ffn}.DenseReluDense.wo", HIDDEN, FFN),
    }
    if decoder:
        parts |= norm("cross_norm", "layer.1.layer_norm")
        parts |= attention(other("q"), other("k"), other("v"), other("o"), of="cross_")
    bias = table("relative_bias", own("relative_attention_bias"), WHOLE, HEADS)
    return Stack("decoder.block" if decoder else "encoder.block", parts, bias)


T5 = Anatomy(
    stacks=(_t5(decoder=False), _t5(decoder=True)),
    outer={
        **table("words", "shared"),
        **table("words", "encoder.embed_tokens"),
        **table("words", "decoder.embed_tokens"),
        **norm("final_norm", "encoder.final_layer_norm"),
        **norm("decoder_final_norm", "decoder.final_layer_norm"),
        **linear("classification_dense", "classification_head.dense", HIDDEN, HIDDEN),
        **linear("classification_out", "classification_head.out_proj", WHOLE, HIDDEN),
        **_HEADS,
    },
    sizes=sizes(ffn="d_ff", head_size="d_kv", decoder="num_decoder_layers"),
    scaled=False,
    same_heads=True,
)


def _bart(*, decoder: bool) -> Stack:
    def within(module: str) -> list[str]:
        return [f"{module}.{leaf}_proj" for leaf in ("q", "k", "v", "out")]

    parts = {
        **attention(*within("self_attn")),
        **norm("attention_norm", "self_attn_layer_norm"),
        **linear("ffn_in", "fc1", FFN, HIDDEN),
        **linear("ffn_out", "fc2", HIDDEN, FFN),
        **norm("ffn_norm", "final_layer_norm"),
    }
    if decoder:
        parts |= attention(*within("encoder_attn"), of="cross_")
        parts |= norm("cross_norm", "encoder_attn_layer_norm")
    return Stack("decoder.layers" if decoder else "encoder.layers", parts)


BART = Anatomy(
    stacks=(_bart(decoder=False), _bart(decoder=True)),
    outer={
        **table("words", "shared"),
        **table("words", "encoder.embed_tokens"),
        **table("words", "decoder.embed_tokens"),
        **table("positions", "encoder.embed_positions", POSITIONS),
        **table("decoder_positions", "decoder.embed_positions", POSITIONS),
        **norm("embedding_norm", "encoder.layernorm_embedding"),
        **norm("decoder_embedding_norm", "decoder.layernorm_embedding"),
        "final_logits_bias": Part("words_bias", (WHOLE, WHOLE)),
        **linear("classification_dense", "classification_head.dense", HIDDEN, HIDDEN),
        **linear("classification_out", "classification_head.out_proj", WHOLE, HIDDEN),
        **_HEADS,
    },
    sizes=sizes(layers="encoder_layers", ffn="encoder_ffn_dim", decoder="decoder_layers"),
    # Early configs hold the encoder's depth twice.
    also={
        "num_hidden_layers": "layers",
        "decoder_attention_heads": "heads",
        "decoder_ffn_dim": "ffn",
    },
    position_offset=2,
)
