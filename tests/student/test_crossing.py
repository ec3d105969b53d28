"""Students of another family than the teacher's: equal where families compute alike."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from hf_distill.student import Extraction, Size, extract
from tests import tiny
from tests.student.teachers import skip_what_cannot_run, teacher

WHOLE: dict[str, dict[str, Any]] = {
    "Electra": {"embedding_size": 32},
    "MPNet": {"pad_token_id": 1},
    "Qwen3": {"head_dim": 8},
}
"""Family -> changes of its config that make it as large as BERT's."""


def asked(family: str, **changes: Any) -> Any:
    return tiny.config(family, **{**WHOLE.get(family, {}), **changes})


def batch(pad: int = 0) -> dict[str, Tensor]:
    """Two sequences, the second one padded on the right."""
    ids, mask = torch.randint(3, tiny.VOCABULARY, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    ids[1, -2:], mask[1, -2:] = pad, 0
    return {"input_ids": ids, "attention_mask": mask}


def distance(first: nn.Module, second: nn.Module, pad: int = 0) -> tuple[float, float]:
    """How far hidden states and first outputs are apart, where tokens are real."""
    inputs = batch(pad)
    with torch.no_grad():
        ours, theirs = (model(**inputs, output_hidden_states=True) for model in (first, second))
    real = inputs["attention_mask"].bool()
    states = [
        float((a - b)[real].abs().max())
        for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True)
    ]
    mine, other = ours[0], theirs[0]
    gap = (mine - other).abs()
    gap = gap[real] if gap.shape[:2] == real.shape else gap
    return max(states), float(gap.max())


def crossed(model: nn.Module, config: Any) -> Extraction:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="nothing in the teacher")
        return extract(model, config, layers="first")  # type: ignore[arg-type]


ALIKE = [
    *((one, other) for one in ("Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert")
      for other in ("Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert") if one != other),
    ("Llama", "Qwen2"), ("Qwen2", "Llama"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_families_that_compute_alike_show_equal_states(one: str, other: str) -> None:
    """Positions that are off by one, or a type that is lost, cost accuracy and no error."""
    model = teacher(one, "ForTokenClassification", **WHOLE.get(one, {}), num_labels=3)
    found = crossed(model, asked(other))
    assert type(found.model).__name__ == f"{other}ForTokenClassification"
    assert max(distance(model, found.model)) < 1e-12
    assert not found.report.of_kind("new")
    assert not found.report.of_kind("cut")
    assert not found.report.left_out
    assert found.model.config.id2label == model.config.id2label


@pytest.mark.parametrize("pad", [0, 1, 5])
def test_positions_move_with_the_paddings_id(pad: int) -> None:
    """RoBERTa counts from the row after its padding's; BERT from row 0."""
    model = teacher("Roberta", pad_token_id=pad)
    found = crossed(model, asked("Bert"))
    assert found.model.config.max_position_embeddings == 40 - pad - 1
    assert found.model.config.pad_token_id == pad
    assert max(distance(model, found.model, pad)) < 1e-12
    back = crossed(found.model, asked("XLMRoberta", pad_token_id=2)).model
    assert max(distance(model, back, pad)) < 1e-12
    rows = back.embeddings.position_embeddings.weight[pad + 1 :]
    assert torch.equal(rows, model.embeddings.position_embeddings.weight[pad + 1 :])
    notes = {origin.name: origin.note for origin in found.origins}
    assert notes["embeddings.position_embeddings.weight"] == f"rows moved by {-pad - 1}"


@pytest.mark.parametrize(("one", "other"), [("Roberta", "MPNet"), ("Bert", "MPNet")])
def test_a_bias_for_distances_begins_at_nothing(one: str, other: str) -> None:
    """Left at random, it moves every attention of the student."""
    model = teacher(one, "ForMaskedLM", pad_token_id=1)
    found = crossed(model, asked(other))
    assert [origin.name for origin in found.report.of_kind("neutral")] == [
        "encoder.relative_attention_bias.weight"
    ]
    assert max(distance(model, found.model, pad=1)) < 1e-12


def test_an_albert_is_unrolled_into_an_electra() -> None:
    """Both normalise embeddings before their projection; a product of the two would not."""
    model = teacher("Albert", "ForQuestionAnswering", num_hidden_layers=3, hidden_act="gelu")
    found = crossed(model, asked("Electra", embedding_size=16, num_hidden_layers=3))
    assert max(distance(model, found.model)) < 1e-12
    assert found.model.config.num_hidden_layers == 3
    sources = [each.source for each in found.origins if ".query.weight" in each.name]
    assert set(sources) == {"encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight"}


@pytest.mark.parametrize("head", ["ForSequenceClassification", "ForMultipleChoice"])
def test_heads_that_classify_through_tanh_are_carried_over(head: str) -> None:
    """BERT's pooler is RoBERTa's dense layer before its labels; by name, neither would be found."""
    model = teacher("Bert", head)
    inputs = batch()
    if head == "ForMultipleChoice":
        inputs = {name: each.unsqueeze(0) for name, each in inputs.items()}
    for family in ("Roberta", "XLMRoberta"):
        skip_what_cannot_run(family, head)
        found = crossed(model, asked(family))
        assert not found.report.of_kind("new")
        back = crossed(found.model, asked("Bert")).model
        for each in (found.model, back):
            assert (each(**inputs).logits - model(**inputs).logits).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["Electra", "DistilBert"])
def test_a_head_that_computes_otherwise_is_new_and_named(family: str) -> None:
    """Weights trained before tanh mean nothing before relu, though they fit."""
    model = teacher("Bert", "ForSequenceClassification")
    with pytest.warns(UserWarning, match=r"nothing in the teacher is the source of .*classifier"):
        found = extract(model, asked(family), seed=3)
    new = {origin.name for origin in found.report.of_kind("new")}
    assert len(new) == 4
    assert all("classifier" in name for name in new)
    assert not {origin.source for origin in found.report.of_kind("new")} - {""}
    assert "classifier.weight" in found.report.left_out
    for name in new:
        assert f"  {name} " in found.report.summary()
    states = [crossed(model, asked(family)).model.state_dict() for _ in range(2)]
    assert all(torch.equal(each, states[1][name]) for name, each in states[0].items())


def test_masked_language_models_stay_tied_and_equal() -> None:
    """A decoder of its own, at random, or a bias under another name."""
    for one, other in ALIKE[:-2]:
        model = teacher(one, "ForMaskedLM", **WHOLE.get(one, {}))
        student = crossed(model, asked(other)).model
        assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
        assert max(distance(model, student)) < 1e-12, (one, other)


def test_a_base_model_gets_no_random_pooler() -> None:
    """It would be saved, and loaded as if it had been trained."""
    found = crossed(teacher("DistilBert"), asked("Bert"))
    assert found.model.pooler is None
    assert not found.report.of_kind("new")


def test_norms_of_queries_are_told() -> None:
    """Nothing stands for a norm that is not there, and nobody would know."""
    with pytest.warns(UserWarning, match=r"layers\.0\.self_attn\.q_norm\.weight"):
        found = extract(teacher("Qwen2"), asked("Qwen3"))
    new = found.report.of_kind("new")
    assert {origin.name.split(".")[-2] for origin in new} == {"q_norm", "k_norm"}
    back = crossed(teacher("Qwen3", **WHOLE["Qwen3"]), asked("Qwen2"))
    assert "layers.0.self_attn.q_norm.weight" in back.report.left_out


def test_a_narrower_student_is_that_of_its_own_family() -> None:
    """A crossing followed by a cut is the cut followed by the crossing."""
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20}
    model = teacher("Roberta", "ForTokenClassification", num_hidden_layers=4, pad_token_id=1)
    found = crossed(model, asked("Bert", **small, num_hidden_layers=2))
    cut = extract(model, "L2-H16-A2-F20", layers="first")
    assert str(Size.of(found.model.config)) == "L2-H16-A2-F20"
    assert found.indices == cut.indices
    assert max(distance(found.model, cut.model, pad=1)) < 1e-12
    assert found.report.layers_left_out == (3, 4)


def test_settings_are_the_teachers() -> None:
    """Another activation, or ids of another vocabulary, and the copied weights mean nothing."""
    model = teacher(
        "Roberta", "ForSequenceClassification", hidden_act="relu", layer_norm_eps=1e-5,
        vocab_size=50, pad_token_id=1, bos_token_id=4, eos_token_id=6, num_labels=5,
    )  # fmt: skip
    config = crossed(model, asked("Bert", layer_norm_eps=1e-3)).model.config
    assert (config.hidden_act, config.layer_norm_eps, config.vocab_size) == ("relu", 1e-5, 50)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (1, 4, 6)
    assert config.num_labels == 5
    found = crossed(model, asked("DistilBert"))
    assert found.model.config.activation == "relu"
    assert "Norms add 1e-12 to the variance, the teacher's 1e-05" in found.report.summary()


def test_a_folder_crosses_as_its_model_does(tmp_path: Path) -> None:
    """A decoder that is tied is in no file, and would be taken for new."""
    model = teacher("Bert", "ForMaskedLM").float()
    model.save_pretrained(tmp_path)
    from_folder = extract(tmp_path, asked("Roberta"))
    from_memory = extract(model, asked("Roberta"))
    assert not from_folder.report.of_kind("new")
    theirs = from_memory.model.state_dict()
    for name, tensor in from_folder.model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    decoder = from_folder.model.get_output_embeddings().weight
    assert decoder is from_folder.model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ("GPT2", "Bert", "which normalises before each sublayer, and sees no later token"),
        ("Bert", "Llama", r"got 'llama' for a bert, which .* Of its kind are roberta"),
        ("DebertaV2", "Bert", "compare contents with distances"),
        ("Bert", "Albert", "An ALBERT runs one layer several times"),
        ("Albert", "Bert", "would skip the norm: take an ElectraConfig"),
        ("Bert", "MPNet", "pad_token_id must be 1 for an MPNet"),
    ],
)
def test_families_that_compute_otherwise_are_refused(one: str, other: str, message: str) -> None:
    """Weights that fit in shape and mean something else train from worse than nothing."""
    with pytest.raises(ValueError, match=message):
        extract(teacher(one), asked(other))


def test_heads_that_the_other_family_lacks_are_refused() -> None:
    """A student without the head would be taken for one that has it."""
    with pytest.raises(ValueError, match=r"got 'BertForPreTraining'\. Cross its base model"):
        extract(teacher("Bert", "ForPreTraining"), asked("Roberta"))
    decoder: Any = transformers.BertModel(tiny.config(is_decoder=True))
    with pytest.raises(ValueError, match="must be an encoder where"):
        extract(decoder, asked("Roberta"))
