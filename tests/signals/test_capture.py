"""What is captured is what the model computed, and capturing changes nothing."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from hf_distill.architectures import architecture, decoder_layers, layers
from hf_distill.signals import Demand, Signals
from hf_distill.signals.capture import Recorder, attention_scores, signals
from tests import tiny

LAYERS = 3


def showing(*signals: str) -> list[str]:
    """The families that show all of these."""
    shown = {each: architecture(tiny.config(each)).shows for each in tiny.FAMILIES}
    return [each for each in tiny.FAMILIES if shown[each].issuperset(signals)]


MAPPED, PROJECTED = showing("attention"), showing("query", "key", "value")
SCORED = ["Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra", "Albert", "Bart"]
"""Families whose attention scores are QK^T / sqrt(d) and no more."""


def demand(**wanted: Any) -> Demand:
    return Demand(layers={signal: frozenset(found) for signal, found in wanted.items()})


def states(outputs: Any) -> tuple[Tensor, ...]:
    """The model's own hidden states, as they come out of it; the encoder's where it has two."""
    own, last = "hidden_states", "last_hidden_state"
    if f"encoder_{own}" in outputs:
        own, last = f"encoder_{own}", f"encoder_{last}"
    # Old versions list ModernBERT's last layer before its final norm; what comes out is after it.
    return (*outputs[own][:-1], outputs[last])


EVERYTHING = demand(
    hidden=range(LAYERS + 1),
    query=range(1, LAYERS + 1),
    key=range(1, LAYERS + 1),
    value=range(1, LAYERS + 1),
)


def batch() -> dict[str, Tensor]:
    """Two sequences, the second of them padded."""
    ids = torch.randint(3, tiny.VOCABULARY, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def shown(
    model: nn.Module, wanted: Demand, inputs: dict[str, Tensor] | None = None, **options: Any
) -> tuple[Signals, Any]:
    """The signals of a batch, and the model's own outputs."""
    inputs = batch() if inputs is None else inputs
    recorder = Recorder(model, wanted)
    recorder.arm()
    outputs = model(**inputs, **options)
    mask = inputs["attention_mask"].bool()
    return signals(recorder.take(), wanted, model.config, mask=mask), outputs


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_hidden_states_are_the_models_own(family: str) -> None:
    """A layer off by one, a final norm or a factorised embedding missed: a loss that means less."""
    model = tiny.model(family, num_hidden_layers=LAYERS)
    wanted = demand(hidden=range(LAYERS + 1))
    captured, outputs = shown(model, wanted, output_hidden_states=True)
    assert sorted(captured.hidden) == list(range(LAYERS + 1))
    expected = states(outputs)
    assert len(expected) == LAYERS + 1
    for layer, state in captured.hidden.items():
        torch.testing.assert_close(state, expected[layer], rtol=0, atol=0)


def test_layers_in_albert_groups_are_counted_per_group() -> None:
    """ALBERT's calls are counted per shared module: counted over all, group 2 shows nothing."""
    model = tiny.model("Albert", num_hidden_layers=4, num_hidden_groups=2)
    captured, outputs = shown(model, demand(hidden=[1, 2, 3, 4]), output_hidden_states=True)
    for layer, state in captured.hidden.items():
        torch.testing.assert_close(state, outputs.hidden_states[layer], rtol=0, atol=0)


def test_electra_layer_0_is_as_wide_as_the_model() -> None:
    """ELECTRA's embeddings are narrow until projected: layer 0 would not fit the projection."""
    captured, _ = shown(tiny.model("Electra"), demand(hidden=[0]))
    assert captured.hidden[0].shape[-1] == 32


@pytest.mark.parametrize("family", MAPPED)
def test_attention_probabilities_are_those_of_eager(family: str) -> None:
    """SDPA shows no maps at all; recomputed ones could miss the scale, mask or positions."""
    model = tiny.model(family, num_hidden_layers=LAYERS)
    inputs = batch()
    captured, _ = shown(model, demand(attention=range(1, LAYERS + 1)), inputs)
    model.set_attn_implementation("eager")
    outputs = model(**inputs, output_attentions=True)
    expected = outputs.get("encoder_attentions", outputs.get("attentions"))
    real = inputs["attention_mask"].bool()
    assert sorted(captured.attention) == list(range(1, LAYERS + 1))
    for layer, probabilities in captured.attention.items():
        ours, theirs = (maps.transpose(1, 2)[real] for maps in (probabilities, expected[layer - 1]))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert not probabilities[1, :, :4, 4:].any(), "probabilities on padding must be 0."


@pytest.mark.parametrize("family", MAPPED)
def test_maps_are_those_before_dropout(family: str) -> None:
    """A student's map after dropout is no distribution: zeros, and the rest twice as large."""
    dropout = dict.fromkeys(("attention_probs_dropout_prob", "attention_dropout"), 0.5)
    model = tiny.model(family, **dropout).train()
    inputs = batch()
    captured, _ = shown(model, demand(attention=[1, 2]), inputs)
    for maps in captured.attention.values():
        sums = maps.sum(-1).transpose(1, 2)[inputs["attention_mask"].bool()]
        torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize("family", SCORED)
def test_attention_scores_are_those_before_mask_and_softmax(family: str) -> None:
    """Scores without the scale, or masked already, are a target far from the student's."""
    model = tiny.model(family, num_hidden_layers=LAYERS)
    inputs = batch()
    some = list(range(1, LAYERS + 1))
    captured, _ = shown(model, demand(attention_scores=some, query=[2], key=[2]), inputs)
    assert sorted(captured.attention_scores) == some
    scores = captured.attention_scores[2]
    for a, t, k in ((0, 0, 0), (1, 2, 6), (3, 5, 1)):
        query, key = captured.query[2][1, a, t].tolist(), captured.key[2][1, a, k].tolist()
        expected = sum(x * y for x, y in zip(query, key, strict=True)) / len(query) ** 0.5
        assert scores[1, a, t, k].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    model.set_attn_implementation("eager")
    outputs = model(**inputs, output_attentions=True)
    maps = outputs.get("encoder_attentions", outputs.get("attentions"))
    for layer, found in captured.attention_scores.items():
        torch.testing.assert_close(
            found[1, :, :4, :4].softmax(-1), maps[layer - 1][1, :, :4, :4], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("family", [each for each in tiny.FAMILIES if each not in SCORED])
def test_scores_are_refused_where_they_are_not_the_whole(family: str) -> None:
    """QK^T without relative or rotary positions is a plausible score that no layer ever had."""
    with pytest.raises(ValueError, match=r"must show attention scores for this objective, got"):
        Recorder(tiny.model(family), demand(attention_scores=[1]))


def test_scores_are_wide_under_autocast() -> None:
    """Autocast casts the factors of a matrix product to half precision, widened or not."""
    query, key = torch.randn(2, 1, 2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention_scores(query, key)
    assert found.dtype == torch.float32
    assert torch.equal(found, attention_scores(query, key))


def test_modernbert_cannot_show_maps() -> None:
    """softmax(QK^T) of its projections ignores rotary positions and windows: plausible, wrong."""
    with pytest.raises(ValueError, match=r"must show attention maps.*modernbert.*MiniLMv2"):
        Recorder(tiny.model("ModernBert"), demand(attention=[1]))


def test_unknown_families_are_refused() -> None:
    """A family whose layers are guessed records whatever has a similar name."""
    size = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "ffn_dim": 8}
    model = transformers.OPTModel(transformers.OPTConfig(**size, word_embed_proj_dim=8))
    with pytest.raises(ValueError, match=r"must be of a known family.*'opt'"):
        Recorder(model, demand(hidden=[1]))


@pytest.mark.parametrize("family", PROJECTED)
def test_projections_are_cut_into_heads(family: str) -> None:
    """Heads and positions swapped, or a fused projection cut in the wrong order."""
    model = tiny.model(family, num_hidden_layers=LAYERS)
    captured, _ = shown(model, EVERYTHING)
    size = getattr(model.config, "d_kv", 8)
    for layer in range(1, LAYERS + 1):
        parts = (captured.query[layer], captured.key[layer], captured.value[layer])
        assert {tuple(part.shape) for part in parts} == {(2, 4, 7, size)}
        assert not torch.equal(parts[0], parts[1])
        assert not torch.equal(parts[1], parts[2])


@pytest.mark.parametrize("family", ["GPT2", "Llama", "Qwen2", "Qwen3"])
@pytest.mark.parametrize("signal", ["query", "attention"])
def test_decoders_show_hidden_states_only(signal: str, family: str) -> None:
    """Relations over all pairs of tokens: half of them were never looked at by the model."""
    with pytest.raises(ValueError, match=r"model must show .*, which shows hidden\."):
        Recorder(tiny.model(family), demand(**{signal: [1]}))


def test_t5_cannot_show_maps() -> None:
    """softmax(QK^T / sqrt(d)) of T5: it neither divides by sqrt(d) nor leaves out a bias."""
    with pytest.raises(ValueError, match=r"must show attention maps.*'t5'"):
        Recorder(tiny.model("T5"), demand(attention=[1]))


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_layers_of_encoder_decoders_are_the_encoders(family: str) -> None:
    """Both have layers of one shape: the decoder's would answer to the encoder's mask."""
    model = tiny.model(family, "ForConditionalGeneration", num_hidden_layers=LAYERS)
    wanted = demand(hidden=range(LAYERS + 1))
    given = {**batch(), "decoder_input_ids": torch.tensor([[0, 4], [0, 5]])}
    captured, outputs = shown(model, wanted, given, output_hidden_states=True)
    for layer, state in captured.hidden.items():
        torch.testing.assert_close(state, states(outputs)[layer], rtol=0, atol=0)
    assert (len(layers(model)), decoder_layers(model)) == (LAYERS, 2)


@pytest.mark.parametrize("family", ["Bert", "ModernBert", "DebertaV2"])
def test_projections_are_of_the_layer_input(family: str) -> None:
    """DeBERTa projects its relative positions by the same modules: a later call is no token's."""
    model = tiny.model(family)
    captured, _ = shown(model, demand(hidden=[0], query=[1], key=[1], value=[1]))
    layer = layers(model)[0]
    names = {
        "Bert": [f"attention.self.{part}" for part in ("query", "key", "value")],
        "DebertaV2": [f"attention.self.{part}_proj" for part in ("query", "key", "value")],
        "ModernBert": ["attn.Wqkv"],
    }[family]
    projected = [layer.get_submodule(name)(captured.hidden[0]) for name in names]
    for part, expected in zip(
        (captured.query[1], captured.key[1], captured.value[1]),
        projected if len(projected) == 3 else projected[0].chunk(3, dim=-1),
        strict=True,
    ):
        torch.testing.assert_close(part.transpose(1, 2).flatten(2), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("family", "norm", "projection"),
    [
        ("ModernBert", "attn_norm", "attn.Wqkv"),
        ("T5", "layer.0.layer_norm", "layer.0.SelfAttention.q"),
    ],
)
def test_projections_are_of_the_normed_input(family: str, norm: str, projection: str) -> None:
    """Projecting a layer's hidden states anew leaves out the norm that stands before attention."""
    model = tiny.model(family)
    captured, _ = shown(model, demand(hidden=[1], query=[2]))
    layer = layers(model)[1]
    states = layer.get_submodule(norm)(captured.hidden[1])
    query = captured.query[2].transpose(1, 2).flatten(2)
    expected = layer.get_submodule(projection)(states)[..., : query.shape[-1]]
    torch.testing.assert_close(query, expected, rtol=0, atol=0)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_outputs_are_bit_identical_armed_or_not(family: str) -> None:
    """A hook that returns something, or switches SDPA off, changes what the user deploys."""
    model = tiny.model(family, num_hidden_layers=LAYERS)
    inputs = batch()
    plain = model(**inputs).last_hidden_state
    maps = {"attention": [1, LAYERS]} if family in MAPPED else {}
    parts = {"query": [1], "value": [2]} if family in PROJECTED else {}
    recorder = Recorder(model, demand(hidden=[0, 1, LAYERS], **parts, **maps))
    assert torch.equal(model(**inputs).last_hidden_state, plain)
    recorder.arm()
    assert torch.equal(model(**inputs).last_hidden_state, plain)


def test_nothing_is_kept_after_take() -> None:
    """Activations of the last batch that stay referenced are memory that nobody finds."""
    model = tiny.model()
    recorder = Recorder(model, demand(hidden=[0, 1, 2], query=[1]))
    recorder.arm()
    model(**batch())
    taken = recorder.take()
    references = [weakref.ref(tensor) for tensor in taken.values()]
    assert len(references) == 4
    del taken
    gc.collect()
    assert [reference() for reference in references] == [None] * 4
    model(**batch())
    assert recorder.take() == {}


def test_arming_again_forgets_the_batch_before() -> None:
    """A forward pass that failed half-way leaves call counts that shift every later layer."""
    model = tiny.model("Albert", num_hidden_layers=LAYERS)
    recorder = Recorder(model, demand(hidden=[1]))
    recorder.arm()
    model(**batch())
    recorder.arm()
    outputs = model(**batch(), output_hidden_states=True)
    torch.testing.assert_close(
        recorder.take()["hidden.1"], outputs.hidden_states[1], rtol=0, atol=0
    )


def checkpointed(model: Any) -> None:
    """Recompute layers in backward; the method has another name in newer versions."""
    new = getattr(model, "activation_checkpointing_enable", None)
    (new or model.gradient_checkpointing_enable)({"use_reentrant": False})


def test_recomputation_records_nothing() -> None:
    """Checkpointing runs each layer again in backward: records then would replace the graph's."""
    model = tiny.model("Bert", num_hidden_layers=LAYERS).train()
    plain = copy.deepcopy(model)
    checkpointed(model)
    inputs = batch()
    wanted = demand(hidden=[1, 2], query=[2])
    gradients = []
    for one in (model, plain):
        recorder = Recorder(one, wanted)
        recorder.arm()
        one(**inputs)
        taken = recorder.take()
        sum(tensor.square().sum() for tensor in taken.values()).backward()
        assert recorder.take() == {}
        gradients.append({n: p.grad for n, p in one.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-5, atol=1e-7)
