"""Models over fewer tokens."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from hf_distill.student.renumbering import fixed_ids, named_ids, trim_model, vocabulary_axes
from tests import tiny

HEADS = (
    "Model",
    "ForMaskedLM",
    "ForCausalLM",
    "ForPreTraining",
    "ForConditionalGeneration",
    "ForSequenceClassification",
    "DoubleHeadsModel",
)
KEPT = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55)
SHAPES = [(family, head) for family in tiny.FAMILIES for head in tiny.heads(family, HEADS)]

every_shape = pytest.mark.parametrize(("family", "head"), SHAPES)


def _model(family: str, head: str, **changes: Any) -> Any:
    """A model whose every number is another, so that a row out of place shows."""
    model = tiny.model(family, head, **changes)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor + torch.randn_like(tensor) * 0.3)
    return model


def _trimmed(model: Any, kept: tuple[int, ...] = KEPT) -> Any:
    return trim_model(model, vocabulary_axes(model), kept)


def _answers(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Every tensor that a model shows for ids."""
    inputs = {"input_ids": ids}
    decodes = hasattr(model.base_model, "decoder") and model.config.is_encoder_decoder
    if decodes and "Classification" not in type(model).__name__:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    for name, value in found.items():
        if name.endswith("hidden_states"):
            tensors |= {f"{name}.{at}": state for at, state in enumerate(value)}
    return tensors


def _ids() -> Tensor:
    """Ids of the small vocabulary, each row closed by the id that BART's classifier looks for."""
    ids = torch.randint(3, len(KEPT), (2, 9))
    ids[:, -1] = 2
    return ids


@every_shape
def test_answers_are_the_old_ones(family: str, head: str) -> None:
    """One bias that keeps its old order, and every prediction is off by a little."""
    model = _model(family, head)
    ids = _ids()
    kept = torch.tensor(KEPT)
    old = _answers(model, kept[ids])
    new = _answers(_trimmed(model), ids)
    assert old.keys() == new.keys()
    for name, expected in old.items():
        if expected.shape == new[name].shape:
            assert torch.equal(new[name], expected), name
        else:
            # Another number of columns, and the product of matrices rounds its last bit otherwise.
            torch.testing.assert_close(new[name], expected[..., kept], rtol=1e-5, atol=1e-5)


@every_shape
def test_a_fresh_load_is_the_same(family: str, head: str, tmp_path: Path) -> None:
    """A number that a module remembers for itself, unlike the one that its config gives it."""
    trimmed = _trimmed(_model(family, head))
    trimmed.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = type(trimmed).from_pretrained(tmp_path)
    assert loaded.config.vocab_size == len(KEPT)
    state = loaded.state_dict()
    assert state.keys() == trimmed.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in trimmed.state_dict().items())
    modules = dict(trimmed.named_modules())
    for name, module in loaded.named_modules():
        for attribute in ("num_embeddings", "out_features", "padding_idx", "vocab_size"):
            expected = vars(module).get(attribute)
            assert vars(modules[name]).get(attribute) == expected, (name, attribute)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_tied_stays_tied(family: str, tied: bool) -> None:
    """Two copies of the embeddings drift apart, and one of them is not saved."""
    (head, *_) = tiny.heads(family, ("ForMaskedLM", "ForCausalLM", "ForConditionalGeneration"))
    model = _model(family, head, tie_word_embeddings=tied)
    trimmed = _trimmed(model)

    def same(one: Any) -> bool:
        return one.get_input_embeddings().weight is one.get_output_embeddings().weight

    assert same(trimmed) == same(model)
    old = dict(model.named_parameters(remove_duplicate=True))
    assert dict(trimmed.named_parameters(remove_duplicate=True)).keys() == old.keys()
    rows = model.get_output_embeddings().weight[list(KEPT)]
    assert torch.equal(trimmed.get_output_embeddings().weight, rows)


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_a_width_of_the_same_number_is_left_alone(head: str) -> None:
    """As many channels as tokens: whoever cuts by size cuts the channels."""
    model = _model("Bert", head, hidden_size=60, intermediate_size=60, max_position_embeddings=60)
    kept = torch.tensor(KEPT)
    ids = _ids()
    expected = _answers(model, kept[ids])
    found = _answers(_trimmed(model), ids)
    assert torch.equal(found["hidden_states.2"], expected["hidden_states.2"])


def test_the_newer_head_of_deberta() -> None:
    """DeBERTa has two kinds of masked-language heads, of which one borrows the embeddings."""
    model = _model("DebertaV2", "ForMaskedLM", legacy=False)
    ids, kept = _ids(), torch.tensor(KEPT)
    expected = _answers(model, kept[ids])["logits"][..., kept]
    torch.testing.assert_close(
        _answers(_trimmed(model), ids)["logits"], expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", ["Llama", "Bert", "Bart"])
def test_half_precision_is_kept(family: str) -> None:
    """A buffer that was computed anew, in another precision, turns every position a little."""
    model = _model(family, "Model")
    rotary = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to(torch.bfloat16)
    for name, buffer in model.named_buffers():
        buffer.data = rotary[name]
    ids, kept = _ids(), torch.tensor(KEPT)
    found, expected = _answers(_trimmed(model), ids), _answers(model, kept[ids])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_frozen_stays_frozen_and_the_model_as_it_was() -> None:
    """A teacher that is trained, or one that shrinks while it teaches."""
    model = _model("Bert", "ForMaskedLM")
    model.get_input_embeddings().weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trimmed = _trimmed(model)
    assert not trimmed.get_input_embeddings().weight.requires_grad
    assert trimmed.cls.predictions.bias.requires_grad
    with torch.no_grad():
        for parameter in trimmed.parameters():
            parameter.zero_()
    assert model.config.vocab_size == 60
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_ids_of_configs_are_renumbered() -> None:
    """An encoder-decoder that starts its answers with some other token."""
    model = _model("Bart", "ForConditionalGeneration", decoder_start_token_id=21, eos_token_id=34)
    model.generation_config.eos_token_id = [34, 55]
    model.generation_config.suppress_tokens = [13]
    model.generation_config.bad_words_ids = [[5, 8], [3]]
    model.config.forced_bos_token_id = None
    assert named_ids(model) >= {0, 21, 34, 55, 13, 5, 8, 3}
    trimmed = _trimmed(model)
    assert trimmed.config.decoder_start_token_id == 7
    assert trimmed.config.eos_token_id == 8
    assert trimmed.config.forced_bos_token_id is None
    assert trimmed.generation_config.eos_token_id == [8, 9]
    assert trimmed.generation_config.suppress_tokens == [6]
    assert trimmed.generation_config.bad_words_ids == [[4, 5], [3]]
    assert model.generation_config.eos_token_id == [34, 55]


def test_stacks_have_configs_of_their_own() -> None:
    """T5's stacks copy the config, and one of the three copies would keep the old numbers."""
    trimmed = _trimmed(_model("T5", "ForConditionalGeneration", pad_token_id=5))
    for config in (trimmed.config, trimmed.encoder.config, trimmed.decoder.config):
        assert (config.vocab_size, config.pad_token_id) == (len(KEPT), 4)


def test_ids_outside_the_vocabulary_name_no_token() -> None:
    """Llama's first checkpoints have -1 for their padding token, and others one that was cut."""
    model = _model("Bert", "Model")
    model.config.eos_token_id, model.config.sep_token_id = 50_000, -1
    assert named_ids(model) == {0}
    trimmed = _trimmed(model)
    assert (trimmed.config.eos_token_id, trimmed.config.sep_token_id) == (50_000, -1)


@pytest.mark.parametrize(
    ("family", "padding", "fixed"),
    [("Roberta", 5, 6), ("XLMRoberta", 1, 2), ("MPNet", 0, 2), ("Bert", 5, 0), ("Bart", 1, 0)],
)
def test_positions_that_are_counted_from_the_padding_token(
    family: str, padding: int, fixed: int
) -> None:
    """Another id for the padding token, and every position gets its neighbour's embedding."""
    model = _model(family, "Model", pad_token_id=padding)
    assert fixed_ids(model, vocabulary_axes(model)) == fixed


def test_models_that_have_run_before() -> None:
    """Hooks that a first run left behind would record the old model's states."""
    model = _model("Bert", "Model")
    ids, kept = _ids(), torch.tensor(KEPT)
    expected = _answers(model, kept[ids])
    trimmed = _trimmed(model)
    with torch.no_grad():
        trimmed.encoder.layer[0].output.dense.weight.zero_()
    found = _answers(trimmed, ids)
    assert torch.equal(found["hidden_states.0"], expected["hidden_states.0"])
    assert not torch.equal(found["hidden_states.1"], expected["hidden_states.1"])


def test_other_than_transformers_models_are_refused() -> None:
    """Adapters around a model hide its embeddings."""
    with pytest.raises(ValueError, match="model must be a transformers model, got 'Linear'"):
        vocabulary_axes(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_unknown_families_are_refused() -> None:
    """A family that nobody tried may know its ids by other names."""
    model = _model("Bert", "Model")
    model.config.model_type = "other"
    with pytest.raises(ValueError, match="model must be of a known family"):
        vocabulary_axes(model)


def test_models_that_are_not_as_their_config_says_are_refused() -> None:
    """Embeddings of another size, or behind something else, would be left as they are."""
    for rows in (50, 59, 61):
        model = _model("Bert", "ForMaskedLM")
        model.config.vocab_size = rows
        with pytest.raises(ValueError, match=f"embeddings of the {rows} rows that its config says"):
            vocabulary_axes(model)
    for module in ("embed_tokens", "lm_head"):
        model = _model("Llama", "ForCausalLM", tie_word_embeddings=False)
        model.add_adapter(LoraConfig(target_modules=[module]))
        with pytest.raises(ValueError, match="must have plain embeddings of the 60 rows"):
            vocabulary_axes(model)


def test_weights_without_numbers_are_refused() -> None:
    """Rows of a model that is elsewhere, or packed, cannot be taken."""
    model = _model("Bert", "Model")
    model.embeddings.word_embeddings.to("meta")
    with pytest.raises(ValueError, match=r"got no data \(device meta\) in 'embeddings.word_emb"):
        vocabulary_axes(model)


def test_mixed_settings_are_refused() -> None:
    """A list of positions and ids, of which only the ids are to be renumbered."""
    model = _model("GPT2", "ForCausalLM")
    model.generation_config.sequence_bias = [[[5], 2.0]]
    with pytest.raises(ValueError, match="sequence_bias must be none, got"):
        vocabulary_axes(model)


def test_the_generator_is_left_as_it_was() -> None:
    """Trimming a teacher must not change what a seeded run draws afterwards."""
    model = _model("Bert", "ForMaskedLM")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _trimmed(model)
    assert torch.equal(torch.rand(2), expected)
