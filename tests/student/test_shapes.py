"""The identities at shapes drawn at random."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_distill.student import CHOICES, extract
from tests.student.teachers import close, expected, inputs, outputs, teacher

HEADS = {
    "Bert": "ForTokenClassification",
    "Electra": "ForMaskedLM",
    "DebertaV2": "ForMaskedLM",
    "MPNet": "Model",
    "ModernBert": "ForMaskedLM",
    "GPT2": "ForCausalLM",
    "Llama": "ForCausalLM",
    "Qwen3": "Model",
    "T5": "ForConditionalGeneration",
    "Bart": "Model",
}
GROUPED = ("Llama", "Qwen3")
ROTARY = (*GROUPED, "ModernBert")
"""Pairs turn as they did where the teacher's head size is a multiple of the student's."""
HEAD_SIZE = {"Llama": "head_dim", "Qwen3": "head_dim", "T5": "d_kv"}
DECODER = {"T5": "num_decoder_layers", "Bart": "decoder_layers"}


@st.composite
def cuts(draw: st.DrawFn, family: str) -> tuple[dict[str, int], str]:
    """A teacher's sizes, and the name of a size that fits into it."""

    def pair(most: int) -> tuple[int, int]:
        """At most the second of the second."""
        whole = draw(st.integers(1, most))
        return draw(st.integers(1, whole)), whole

    layers, depth = pair(3)
    groups, all_groups = pair(3) if family in GROUPED else (1, 1)
    heads, all_heads = pair(3)
    heads, all_heads = heads * groups, all_heads * all_groups
    inside, channels = pair(5)
    if family in ROTARY:
        inside, channels = 2 * inside, 2 * inside * draw(st.integers(1, 3))
    ffn, all_ffn = pair(12)
    width, whole = heads * inside, all_heads * channels
    name = f"L{layers}-H{width}-A{heads}-F{ffn}"
    sizes = {
        "num_hidden_layers": depth,
        "hidden_size": whole,
        "num_attention_heads": all_heads,
        "intermediate_size": all_ffn,
    }
    if family in HEAD_SIZE:
        # The residual stream is as wide as it likes.
        spread, all_spread = pair(6)
        width, whole = heads * min(spread, all_spread), all_heads * all_spread
        name = f"L{layers}-H{width}-A{heads}-F{ffn}-K{inside}"
        sizes |= {HEAD_SIZE[family]: channels, "hidden_size": whole}
    if family in GROUPED:
        name, sizes = f"{name}-G{groups}", sizes | {"num_key_value_heads": all_groups}
    if family in DECODER:
        name, sizes = f"{name}-D{layers}", sizes | {DECODER[family]: depth}
    if family == "Electra":
        name, sizes = f"{name}-E{width + 1}", sizes | {"embedding_size": whole + 1}
    if family == "Bart":
        sizes |= {"decoder_attention_heads": all_heads, "decoder_ffn_dim": all_ffn}
    return sizes, name


@pytest.mark.parametrize("family", HEADS)
def test_students_of_any_shape_equal_their_masked_teachers(family: str) -> None:
    """Two axes that happen to be of one length in the tiny models hide a set used for another."""

    @settings(max_examples=8, deadline=None, derandomize=True, database=None)
    @given(cuts(family), st.sampled_from(sorted(CHOICES)), st.integers(0, 9))
    def check(cut: tuple[dict[str, int], str], how: str, seed: int) -> None:
        sizes, name = cut
        model, batch = teacher(family, HEADS[family], **sizes), inputs(HEADS[family])
        student, indices, _ = extract(model, name, how=how, seed=seed, rescale_qk=True)
        assert close(outputs(student, batch), expected(model, indices, batch), 1e-11)

    check()
