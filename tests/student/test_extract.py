"""Extraction as a whole: every parameter from the teacher, and an ordinary checkpoint out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from hf_distill.student import IndexSets, Size, extract, fresh
from tests import tiny
from tests.student.teachers import CASES, case, close, inputs, narrow, outputs, teacher

SIZE = "L2-H16-A2-F20"


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_a_slice_of_the_teachers(name: str) -> None:
    """A parameter left at random (a peer forgot the embedding norm) costs accuracy, no error."""
    model, _ = case(name)
    student, *_ = extract(model, narrow(model, "L2-H16-F20"))
    theirs = model.state_dict()
    assert type(student) is type(model)
    assert student.state_dict().keys() == theirs.keys()
    for key, tensor in student.state_dict().items():
        source = theirs[key]
        assert torch.isin(tensor, source).all(), key
        assert tensor.untyped_storage().data_ptr() != source.untyped_storage().data_ptr(), key


def test_the_embedding_norm_is_the_teachers() -> None:
    """Left at ones and zeros it rescales every input of the first layer."""
    model = teacher()
    student, indices, _ = extract(model, SIZE)
    norm, whole = student.embeddings.LayerNorm, model.embeddings.LayerNorm
    assert torch.equal(norm.weight, whole.weight[list(indices.hidden)])
    assert torch.equal(norm.bias, whole.bias[list(indices.hidden)])
    assert not torch.equal(norm.bias, torch.zeros_like(norm.bias))


def test_config_describes_the_student(tmp_path: Path) -> None:
    """A config.json with one of the teacher's sizes cannot be loaded, or loads random weights."""
    student, *_ = extract(teacher("Bert", "ForSequenceClassification", num_labels=3), SIZE)
    student.save_pretrained(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    assert str(Size.of(config)) == SIZE
    assert config.num_labels == 3
    assert config.architectures == ["BertForSequenceClassification"]
    shapes = {tuple(layer.intermediate.dense.weight.shape) for layer in student.bert.encoder.layer}
    assert shapes == {(20, 16)}


@pytest.mark.parametrize("name", CASES)
def test_saved_and_loaded_students_answer_alike(name: str, tmp_path: Path) -> None:
    """A tensor that is not saved comes back at random; a size that is not, in another shape."""
    model, batch = case(name, layers=4)
    student, indices, _ = extract(model, narrow(model, "L2-H16-F20"))
    if "lm_predictions.lm_head.weight" in (student._tied_weights_keys or {}):
        pytest.skip("early versions tie a weight that this model lacks, and cannot load it")
    # Early versions load some of T5's weights in float32 whatever is asked for.
    student.float().double().save_pretrained(tmp_path)
    indices.save(tmp_path)
    loaded, report = getattr(transformers, student.config.architectures[0]).from_pretrained(
        tmp_path, dtype=torch.float64, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    loaded.double()
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[key]), key
    # Outputs may differ in the last bit: what is read from a file is aligned otherwise in memory.
    assert close(outputs(loaded, batch), outputs(student, batch))
    assert IndexSets.load(tmp_path) == indices
    assert sum(each.numel() for each in loaded.parameters()) < sum(
        each.numel() for each in model.parameters()
    )


TIED = [name for name in CASES if re.search("ForMaskedLM|ForCausalLM|Generation|tied", name)]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", TIED)
def test_weights_are_tied_just_where_the_teachers_are(name: str, tied: bool) -> None:
    """A decoder tied anew loses its own weights; an untied one trains apart from the embeddings."""
    family, head, _ = CASES[name]
    if family == "T5" and not tied:
        pytest.skip("transformers ties it whatever the config says")
    model = teacher(family, head, tie_word_embeddings=tied)
    student, indices, _ = extract(model, narrow(model, "L2-H16-F20"))
    decoder, words = student.get_output_embeddings().weight, student.get_input_embeddings().weight
    assert (decoder is words) == tied
    kept = indices.embedding if decoder.shape[1] == len(indices.embedding) else indices.hidden
    assert torch.equal(decoder, model.get_output_embeddings().weight[:, list(kept)])
    assert torch.equal(words, model.get_input_embeddings().weight[:, list(indices.embedding)])


@pytest.mark.parametrize("from_folder", [True, False])
def test_a_head_that_a_checkpoint_holds_apart_stays_apart(
    from_folder: bool, tmp_path: Path
) -> None:
    """T5 1.1's config says that head and embeddings are one; its checkpoint holds two tables.

    A student tied by its class would have lost the head.
    """
    model = teacher("T5", "ForConditionalGeneration", feed_forward_proj="gated-gelu")
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.save_pretrained(tmp_path / "teacher")
    loaded = type(model).from_pretrained(tmp_path / "teacher", dtype=torch.float64)
    student, indices, _ = extract(tmp_path / "teacher" if from_folder else loaded, "L1-H16")
    student.save_pretrained(tmp_path / "student")
    for each in (student, type(model).from_pretrained(tmp_path / "student", dtype=torch.float64)):
        assert torch.equal(each.lm_head.weight, model.lm_head.weight[:, list(indices.hidden)])
        assert torch.equal(each.shared.weight, model.shared.weight[:, list(indices.hidden)])
        assert each.encoder.embed_tokens.weight is each.shared.weight


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_a_teacher_without_pooler_gives_a_student_without(head: str) -> None:
    """A pooler that the teacher lacks could only be random."""
    model: Any = tiny.model("Bert", head)
    if head == "Model":
        model = transformers.BertModel(tiny.config(), add_pooling_layer=False)
    student, *_ = extract(model, SIZE)
    assert not [name for name in student.state_dict() if "pooler" in name]
    assert len(outputs(student, inputs())) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_student_has_the_teachers_dtype(dtype: torch.dtype) -> None:
    """A half-precision student of a full-precision teacher does not train with a plain AdamW."""
    student, *_ = extract(tiny.model().to(dtype), SIZE, rescale_qk=True)
    assert {parameter.dtype for parameter in student.parameters()} == {dtype}


def test_a_frozen_teacher_gives_a_trainable_student_in_eval_mode() -> None:
    """A student that inherits requires_grad=False trains without moving."""
    model = teacher("Bert", "ForSequenceClassification").requires_grad_(False)
    model.train()
    student, *_ = extract(model, SIZE)
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert not any(module.training for module in student.modules())
    assert model.training


def test_extraction_leaves_teacher_and_generators_alone() -> None:
    """A draw from the global generator shifts all later shuffling and dropout."""
    model = teacher()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    state = torch.get_rng_state()
    student, *_ = extract(model, SIZE, how="random")
    fresh(model, SIZE, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.config.to_dict() == config


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_fresh_is_the_same_student_from_random_weights(head: str) -> None:
    """A control that holds a slice of the teacher, or has another shape, proves nothing."""
    model = teacher("Roberta", head)
    control, again, other = fresh(model, SIZE, 1), fresh(model, SIZE, 1), fresh(model, SIZE, 2)
    student, *_ = extract(model, SIZE)
    assert control.config.to_dict() == student.config.to_dict()
    assert {n: t.shape for n, t in control.state_dict().items()} == {
        n: t.shape for n, t in student.state_dict().items()
    }
    batch = inputs()
    assert close(outputs(control, batch), outputs(again, batch))
    assert not close(outputs(control, batch), outputs(other, batch), tolerance=1e-6)
    words = control.get_input_embeddings().weight
    assert words.dtype == torch.float64
    assert not torch.isin(words[2:], model.get_input_embeddings().weight).any()


def test_a_head_of_ones_own_is_refused_by_name() -> None:
    """A tensor that no table names would be left at random without a word."""

    class Own(transformers.BertForSequenceClassification):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.extra = nn.Linear(config.hidden_size, 2)

    with pytest.raises(ValueError, match=r"got \['extra\.weight', 'extra\.bias'\]\. Extract"):
        extract(Own(tiny.config()), SIZE)
    decoder = tiny.model("Bert", "LMHeadModel", is_decoder=True, add_cross_attention=True)
    with pytest.raises(ValueError, match="crossattention"):
        extract(decoder, SIZE)


def test_other_families_are_refused() -> None:
    """The message names the families that can be cut."""
    model = transformers.FNetModel(
        transformers.FNetConfig(hidden_size=8, num_hidden_layers=1, intermediate_size=8)
    )
    for make in (extract, fresh):
        with pytest.raises(ValueError, match=r"\(bert, roberta, .*\), got model_type 'fnet'"):
            make(model, "L1")


def test_what_is_no_transformers_model_is_refused() -> None:
    """A wrapped teacher's state dict has other names."""
    with pytest.raises(ValueError, match=r"must be a transformers model, got 'Sequential'\. Merge"):
        extract(nn.Sequential(tiny.model()), "L1")


def test_layers_follow_the_teachers_numbering() -> None:
    """Layers counted from 0 give the student the layers above the ones it is taught by."""
    model = teacher(num_hidden_layers=6)
    with torch.no_grad():
        for number, layer in enumerate(model.encoder.layer, start=1):
            layer.output.dense.bias.fill_(number)
    for layers, expected in {
        "uniform": [2, 4, 6], "first": [1, 2, 3], "last": [4, 5, 6], (1, 4, 6): [1, 4, 6],
    }.items():  # fmt: skip
        student, indices, _ = extract(model, "L3", layers=layers)
        got = [layer.output.dense.bias[0].item() for layer in student.encoder.layer]
        assert got == expected == list(indices.sources)
