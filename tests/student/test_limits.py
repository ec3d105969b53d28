"""What of a teacher cannot be cut, or not in one direction: refused with the reason."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import transformers

from hf_distill.student import extract, student_config
from tests import tiny
from tests.student.teachers import close, expected, inputs, outputs, teacher

YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
    "factor": 4.0,
    "original_max_position_embeddings": 10,
    "rope_theta": 10000.0,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 20,
    "rope_theta": 10000.0,
}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("family", "changes", "size", "message"),
    [
        ("Llama", {"rope_parameters": YARN}, "L2-K4", r"rope_type of the teacher .*, got 'yarn'"),
        ("Qwen3", {"rope_parameters": LONG}, "L2-H16-A2-K4", "got 'longrope', which turns"),
        ("Bart", {"scale_embedding": True}, "L2-H16", r"embeddings are multiplied by the root"),
        (
            "DebertaV2",
            {"conv_kernel_size": 3, "conv_groups": 2},
            "L2",
            "conv_groups of the teacher must be 1",
        ),
        ("Albert", {"num_hidden_groups": 2}, "L2", "num_hidden_groups of the teacher must be 1"),
        ("Albert", {"inner_group_num": 2}, "L1-H16", "inner_group_num of the teacher must be 1"),
        ("Bart", {"decoder_attention_heads": 2}, "L1", r"must be its heads \(4\), got 2"),
        ("Bart", {"decoder_ffn_dim": 24}, "L1", r"decoder_ffn_dim .* must be its ffn \(48\)"),
        ("Bert", {}, "L2-K4", r"head_size of size must be width over heads in a bert, got 4"),
        ("Bert", {}, "L2-E8", r"embedding of size must be the width"),
        ("Bert", {}, "L2-D1", r"decoder of size must be at most the teacher's \(0\)"),
        ("Bart", {"is_decoder": True, "is_encoder_decoder": False}, "L1", "the decoder of a bart"),
    ],
)
def test_what_would_compute_another_thing_is_refused(
    family: str, changes: dict[str, Any], size: str, message: str
) -> None:
    """Tensors of the right shapes, under positions, scales or groups that mean another thing."""
    with pytest.raises(ValueError, match=message):
        student_config(size, tiny.config(family, **changes))


@pytest.mark.parametrize(
    ("family", "changes", "size"),
    [
        ("Llama", {"rope_parameters": YARN}, "L2-H16-A2-F20"),
        ("Llama", {"rope_parameters": LLAMA_3}, "L2-K4"),
        ("Llama", {"rope_parameters": LINEAR}, "L2-H16-A4"),
        ("Bart", {"scale_embedding": True}, "L2-F20"),
    ],
)
def test_the_same_teachers_are_cut_where_it_is_exact(
    family: str, changes: dict[str, Any], size: str
) -> None:
    """A refusal that is wider than its reason takes a teacher away for nothing."""
    model, batch = teacher(family, **changes), inputs()
    student, indices, _ = extract(model, size, rescale_qk=True)
    assert close(outputs(student, batch), expected(model, indices, batch))


@pytest.mark.parametrize("layers", ["last", (1, 2), (2,)])
def test_a_layer_that_runs_several_times_is_not_chosen(layers: Any) -> None:
    """Taken without a word, a choice among layers that are one and the same changes nothing."""
    with pytest.raises(ValueError, match="layers must be 'uniform' where one layer is run several"):
        extract(tiny.model("Albert"), "L2", layers=layers)


def test_a_decoder_without_its_encoder_is_refused() -> None:
    """Its layers stand where the tables have the second stack."""
    model = transformers.BartForCausalLM(tiny.config("Bart"))
    with pytest.raises(
        ValueError, match="teacher must have its encoder, got the decoder of a bart"
    ):
        extract(model, "L1")


@pytest.mark.parametrize(
    ("layers", "version", "refused"),
    [
        ((1, 2), "5.0.0", False),
        ((3, 4), "5.0.0", False),
        ((1, 3), "5.0.0", True),
        ((2, 4), "5.0.0", True),
        ((2, 4), "5.1.0", False),
    ],
)
def test_layers_keep_their_windows(
    layers: tuple[int, int], version: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ModernBERT of transformers 5.0 looks at a layer's place, and not at its layer_types."""
    monkeypatch.setattr(transformers, "__version__", version)
    config = tiny.config("ModernBert", num_hidden_layers=4)
    expectation = pytest.raises(ValueError, match="layers must keep their windows where")
    with expectation if refused else nullcontext():
        student_config("L2", config, layers=layers)


@pytest.mark.parametrize("layers", [(1, 3), (2, 4)])
def test_a_first_layer_without_norm_takes_up_its_gain(layers: tuple[int, int]) -> None:
    """ModernBERT's first layer has no norm before its attention: another's gain would be lost."""
    model = teacher("ModernBert", num_hidden_layers=4)
    student, _, report = extract(model, "L2", layers=layers)
    source = model.layers[layers[0] - 1]
    gain = getattr(source.attn_norm, "weight", torch.ones(32, dtype=torch.float64))
    assert torch.equal(student.layers[0].attn.Wqkv.weight, source.attn.Wqkv.weight * gain)
    second = model.layers[layers[1] - 1].attn.Wqkv.weight
    assert torch.equal(student.layers[1].attn.Wqkv.weight, second)
    notes = [origin.note for origin in report.origins if origin.note]
    assert notes == ([] if layers[0] == 1 else ["times layers.1.attn_norm.weight"])
    assert "layers.1.attn_norm.weight" not in report.left_out


def test_scores_divided_by_the_layers_number_are_made_up_for() -> None:
    """The second of two layers halves its scores, where it was the fourth and took a quarter."""
    model = teacher("GPT2", num_hidden_layers=4, scale_attn_by_inverse_layer_idx=True)
    student, *_ = extract(model, "L2")
    ours, theirs = student.h[1].attn.c_attn, model.h[3].attn.c_attn
    assert torch.allclose(ours.weight[:, :32], theirs.weight[:, :32] / 2)
    assert torch.equal(ours.weight[:, 32:], theirs.weight[:, 32:])
    assert torch.allclose(ours.bias[:32], theirs.bias[:32] / 2)
