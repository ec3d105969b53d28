"""A truncated model computes what the whole one computes, as far as it goes, and no more."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_distill.architectures import architecture, forward_options, layers, truncated, twin
from hf_distill.signals import Demand
from hf_distill.signals.capture import Features, Recorder
from tests import tiny
from tests.training.runs import lora

DEPTH = 4
HEADS = {
    "GPT2": "ForCausalLM",
    "T5": "ForConditionalGeneration",
    "Bart": "ForConditionalGeneration",
}
"""Of families that are tested with a decoder, or with a language model's head."""
ABOVE = {"lm_head", "classifier", "head", "score", "pooler", "decoder"}
"""What families call what stands above or beside their layers."""


def model(family: str, head: str | None = None, **changes: Any) -> Any:
    """Four layers that differ from each other."""
    torch.manual_seed(3)
    head = HEADS.get(family, "ForSequenceClassification") if head is None else head
    given = {"num_hidden_layers": DEPTH, "initializer_range": 0.2, **changes}
    return tiny.model(family, head, **given)


def batch() -> dict[str, Tensor]:
    """Three sequences, one of them padded."""
    ids = torch.randint(3, tiny.VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(5))
    ids[:, -1] = 2
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def everything(family: str, depth: int, first: int = 0) -> Demand:
    """All that a family can show of its first layers."""
    shows = architecture(tiny.config(family)).shows
    wanted = {
        name: range(first if name == "hidden" else max(first, 1), depth + 1) for name in shows
    }
    return Demand(layers={name: frozenset(each) for name, each in wanted.items()})


@torch.no_grad()
def recorded(whole: Any, run: Any, demand: Demand, inputs: dict[str, Tensor]) -> Features:
    """What one of the two shows, recorded by hooks on the layers that they share."""
    recorder = Recorder(whole, demand)
    recorder.arm()
    run(**inputs, **forward_options(run))
    return recorder.take()


def whole_inputs(whole: Any) -> dict[str, Tensor]:
    """The batch, with what a decoder is given."""
    inputs = batch()
    decoded = {"decoder_input_ids": inputs["input_ids"]}
    return {**inputs, **(decoded if whole.config.is_encoder_decoder else {})}


def assert_same(whole: Any, family: str, depth: int) -> None:
    """Bit for bit."""
    demand = everything(family, depth)
    expected = recorded(whole, whole, demand, whole_inputs(whole))
    found = recorded(whole, truncated(whole, depth), demand, batch())
    assert found.keys() == expected.keys()
    assert found
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("depth", range(DEPTH + 1))
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_signals_are_those_of_the_whole_model(family: str, depth: int) -> None:
    """A layer, mask or position that goes astray teaches something else, a little."""
    assert_same(model(family), family, depth)


@pytest.mark.parametrize("family", ["Bert", "Albert", "Llama", "T5"])
def test_models_without_a_head_are_truncated_too(family: str) -> None:
    """The model is its own base there: changed in place, it would lose its layers."""
    whole = model(family, "Model")
    assert_same(whole, family, 2)
    assert len(layers(whole)) == DEPTH


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_groups_of_albert_stay_where_they_are(groups: int) -> None:
    """It finds a layer's group by the share of its depth: half as deep, every group moves."""
    whole = model("Albert", num_hidden_groups=groups)
    for depth in range(DEPTH + 1):
        assert_same(whole, "Albert", depth)


def test_adapters_stay_active() -> None:
    """Below the adapters is the model before it was fine-tuned."""
    adapted = lora(model("Bert"), target_modules=["query", "value"])
    assert_same(adapted, "Bert", 2)
    bare = model("Bert")
    plain = recorded(bare, bare, everything("Bert", 2), batch())
    found = recorded(adapted, truncated(adapted, 2), everything("Bert", 2), batch())
    assert not torch.allclose(found["hidden.2"], plain["hidden.2"])


def calls(whole: nn.Module) -> Counter[str]:
    """How often each module is run from now on."""
    counted: Counter[str] = Counter()

    def count(name: str) -> Any:
        return lambda *_: counted.update([name])

    for name, module in whole.named_modules():
        module.register_forward_pre_hook(count(name))
    return counted


@pytest.mark.parametrize("depth", range(DEPTH + 1))
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_nothing_above_is_run(family: str, depth: int) -> None:
    """A teacher that is run to its end costs the same, and nothing says so."""
    whole = model(family)
    stack = layers(whole)
    names = {id(module): name for name, module in whole.named_modules()}
    counted = calls(whole)
    part = truncated(whole, depth)
    with torch.no_grad():
        part(**batch(), **forward_options(part))
    least = architecture(whole.config).least
    expected = Counter(names[id(layer)] for layer in stack[: max(depth, least)])
    found = Counter({names[id(layer)]: counted[names[id(layer)]] for layer in stack})
    assert found == expected
    run = {part for name in counted for part in name.split(".")}
    assert run.isdisjoint(ABOVE)


def parts(whole: nn.Module) -> dict[str, Any]:
    """All that a module is made of."""
    return {
        name: (id(module), module.training, {k: id(v) for k, v in module._modules.items()})
        for name, module in whole.named_modules()
    }


@pytest.mark.parametrize("family", ["Bert", "Albert", "T5", "Bart", "Llama"])
def test_the_model_is_left_as_it_is(family: str) -> None:
    """The user's own teacher would be shallower after training, or wear a hook of ours."""
    whole = model(family)
    before, said = parts(whole), whole.config.to_dict()
    inputs = whole_inputs(whole)
    expected = whole(**inputs).logits
    part = truncated(whole, 1)
    ours = set(map(id, whole.modules()))
    for module in part.modules():
        if id(module) not in ours:
            module.register_forward_hook(lambda *_: pytest.fail("not the model's own hook"))
            module.training = True
    assert parts(whole) == before
    assert whole.config.to_dict() == said
    assert torch.equal(whole(**inputs).logits, expected)


def test_weights_are_shared() -> None:
    """A copy would take the memory that was to be saved, and miss what the model learns."""
    whole = model("Bert")
    held = set(map(id, whole.parameters()))
    assert all(id(parameter) in held for parameter in truncated(whole, 2).parameters())
    count = sum(p.numel() for p in truncated(whole, 2).encoder.parameters())
    assert count == sum(p.numel() for layer in layers(whole)[:2] for p in layer.parameters())


def test_twins_forget_what_accelerate_made_of_the_first() -> None:
    """Its wrapped forward pass is bound to the first: the twin would run it, in autocast."""
    first = model("Bert", "Model")
    first._original_forward = first.forward
    first.forward = lambda **_: pytest.fail("the first one's forward pass")
    first._is_accelerate_prepared = True
    second = twin(first)
    assert second(**batch()).last_hidden_state.isfinite().all()
    assert not hasattr(second, "_is_accelerate_prepared")
    assert first._is_accelerate_prepared
    assert "forward" in vars(first)


def test_unknown_families_are_refused() -> None:
    """Where its layers are is a guess."""
    whole = model("Bert")
    whole.config.model_type = "strange"
    with pytest.raises(ValueError, match="model must be of a known family"):
        truncated(whole, 1)
