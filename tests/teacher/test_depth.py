"""A teacher is run no deeper than is demanded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from torch import Tensor, nn

from hf_distill import Adapter, Ensemble
from hf_distill.architectures import layers
from hf_distill.objectives import CrossEntropy, HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.signals import Demand, Signals
from hf_distill.signals.head import head_of
from hf_distill.signals.signals import LAYERED
from hf_distill.teacher import LiveTeacher
from hf_distill.teacher.adapters import AdapterTeacher
from hf_distill.teacher.waiting import WaitingTeacher
from tests import tiny
from tests.architectures.test_truncated import DEPTH, batch, everything, model, whole_inputs
from tests.training.runs import SEQ2SEQ, examples, lora, student, teacher, trainer

HIDDEN = {"hidden": (1.0, HiddenMSE())}
SHALLOW = Demand(layers={"hidden": frozenset({0, 2}), "query": frozenset({1})})
CPU = torch.device("cpu")


def calls(whole: nn.Module) -> list[str]:
    """The names of the modules that are run from now on."""
    found: list[str] = []
    for name, module in whole.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: found.append(name))
    return found


def shown(live: LiveTeacher, whole: Any) -> Signals:
    """What a teacher shows of a batch."""
    inputs = whole_inputs(whole)
    return live.show(inputs, head_of(whole).targets(inputs))


def assert_same(found: Signals, expected: Signals) -> None:
    """Bit for bit."""
    for signal in LAYERED:
        here, there = getattr(found, signal), getattr(expected, signal)
        assert here.keys() >= there.keys()
        for layer in there:
            assert torch.equal(here[layer], there[layer]), (signal, layer)


def test_depth_of_a_demand_is_that_of_its_deepest_signal() -> None:
    """The depth of hidden states alone would leave out deeper relations."""
    assert Demand().depth == 0
    assert Demand(layers={"hidden": frozenset({0})}).depth == 0
    assert Demand(layers={"hidden": frozenset({1}), "value": frozenset({3, 2})}).depth == 3


@pytest.mark.parametrize("depth", range(DEPTH + 1))
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_signals_are_those_of_the_whole_teacher(family: str, depth: int) -> None:
    """The mask, the heads or the last norm of a shallower config say something else."""
    whole = model(family)
    demand = everything(family, depth)
    head = head_of(whole)
    expected = shown(LiveTeacher(whole, Demand(True, demand.layers), head), whole)
    found = shown(LiveTeacher(whole, demand, head), whole)
    assert found.logits is None
    assert set(found.hidden) == set(range(depth + 1))
    assert_same(found, expected)


def test_neither_head_nor_layers_above_are_run(tmp_path: Path) -> None:
    """The teacher is most of the time of a step, and its upper half may be for nothing."""
    taught = teacher()
    run = trainer(tmp_path, teacher=taught, objectives=HIDDEN, layer_mapping=[(1, 1), (2, 3)])
    found = calls(taught)
    run.train()
    assert "bert.encoder.layer.2" in found
    assert not [name for name in found if "layer.3" in name or "pooler" in name]
    assert not [name for name in found if "classifier" in name]


def test_the_head_is_run_where_logits_are_demanded(tmp_path: Path) -> None:
    """Logits of a truncated teacher would be those of another model."""
    taught = teacher()
    mixture = {**HIDDEN, "kl": (1.0, KLDivergence())}
    run = trainer(tmp_path, teacher=taught, objectives=mixture, layer_mapping=[(1, 1)])
    found = calls(taught)
    run.train()
    assert {"classifier", "bert.encoder.layer.3"} <= set(found)


def test_gold_labels_alone_run_no_layer(tmp_path: Path) -> None:
    """A whole teacher beside a loss that does not listen to it."""
    taught = teacher()
    run = trainer(tmp_path, teacher=taught, objectives={"task": (1.0, CrossEntropy())})
    found = calls(taught)
    run.train()
    assert not [name for name in found if "layer." in name]


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_decoders_are_run_for_logits_alone(family: str, tmp_path: Path) -> None:
    """Half of an encoder-decoder, and of its columns, would be for nothing."""
    small, taught = (make(SEQ2SEQ, family) for make in (student, teacher))
    run = trainer(tmp_path, SEQ2SEQ, model=small, teacher=taught, objectives=HIDDEN)
    found = calls(taught)
    run.train()
    assert not [name for name in found if "decoder" in name or "lm_head" in name]
    assert "decoder_input_ids" not in run.teacher.columns
    assert run.teacher._options == {}


def test_columns_are_those_of_what_is_run() -> None:
    """What a base does not name is an unknown argument; what it names decides on what it shows."""
    live = LiveTeacher(teacher(), SHALLOW, head_of(student()))
    assert {"input_ids", "attention_mask", "token_type_ids"} <= set(live.columns)
    assert "labels" not in live.columns


def test_the_users_teacher_is_whole_and_frozen(tmp_path: Path) -> None:
    """It is measured, saved or taught with again afterwards."""
    taught = teacher()
    inputs = batch()
    expected = taught(**inputs).logits
    run = trainer(tmp_path, teacher=taught, objectives=HIDDEN, layer_mapping=[(1, 1)])
    run.train()
    assert len(taught.bert.encoder.layer) == DEPTH == taught.config.num_hidden_layers
    assert torch.equal(taught(**inputs).logits, expected)
    assert not any(p.requires_grad for p in taught.parameters())
    assert not any(module.training for module in taught.modules())


def test_only_what_is_run_is_placed() -> None:
    """On an accelerator the layers above would take the room of a larger batch."""
    whole, placed = teacher(), []
    LiveTeacher(
        whole, SHALLOW, head_of(student()), prepare=lambda part: placed.append(part) or part
    )
    (part,) = placed
    deep = {id(parameter) for parameter in whole.bert.encoder.layer[2:].parameters()}
    assert deep.isdisjoint(map(id, part.parameters()))


def test_teachers_that_wait_move_only_what_they_run() -> None:
    """The rest would travel to and fro at every step."""
    whole = teacher()
    head = head_of(whole)
    live = WaitingTeacher(whole, SHALLOW, head, device=CPU)
    held = {id(tensor) for tensor in live._tensors}
    deep = {id(parameter) for parameter in whole.bert.encoder.layer[2:].parameters()}
    assert deep.isdisjoint(held)
    assert_same(shown(live, whole), shown(LiveTeacher(teacher(), SHALLOW, head), whole))


def test_followers_of_a_lead_show_logits_only(tmp_path: Path) -> None:
    """Without a head, a follower could say nothing."""
    both = [teacher(), student(seed=5)]
    mixture = {**HIDDEN, "kl": (1.0, KLDivergence())}
    run = trainer(tmp_path, teacher=Ensemble(both, lead=0), objectives=mixture)
    run.train()


# Adapters


def adapted(family: str = "Bert", **changes: Any) -> Any:
    """A student with an adapter that learns, and one that teaches."""
    targets = {"Bert": ["query", "value"], "Bart": ["q_proj", "v_proj"]}[family]
    made = lora(model(family, "ForSequenceClassification", **changes), target_modules=targets)
    made.add_adapter("expert", LoraConfig(target_modules=targets, init_lora_weights=False))
    return made


@pytest.mark.parametrize("name", ["expert", None])
def test_adapters_teach_from_a_truncated_base(name: str | None) -> None:
    """Truncated below the wrong adapter, the student would teach itself."""
    base = adapted()
    inputs, head = batch(), head_of(base)
    targets = head.targets(inputs)
    whole = AdapterTeacher(base, Demand(True, SHALLOW.layers), head, Adapter(name))
    expected = whole.show(inputs, targets)
    live = AdapterTeacher(base, SHALLOW, head, Adapter(name))
    found = calls(base)
    assert_same(live.show(inputs, targets), expected)
    assert not [each for each in found if "layer.2" in each or "classifier" in each]
    other = AdapterTeacher(base, SHALLOW, head, Adapter(None if name else "expert"))
    assert not torch.equal(other.show(inputs, targets).hidden[2], expected.hidden[2])


@pytest.mark.parametrize("family", ["Bert", "Bart"])
def test_students_are_as_before_after_a_truncated_lesson(family: str) -> None:
    """Dropout stays off in the student, or on in its teacher; BART may leave out whole layers."""
    dropping = {
        "Bert": {"hidden_dropout_prob": 0.5},
        "Bart": {"dropout": 0.5, "encoder_layerdrop": 0.9},
    }
    base = adapted(family, **dropping[family])
    inputs, head = batch(), head_of(base)
    targets = head.targets(inputs)
    live = AdapterTeacher(base, SHALLOW, head, Adapter("expert"))
    expected = live.show(inputs, targets)
    base.train()
    layers(base)[1].eval()
    modes = {name: module.training for name, module in base.named_modules()}
    learns = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    later = AdapterTeacher(base, SHALLOW, head, Adapter("expert"))
    for teaching in (live, later):
        assert_same(teaching.show(inputs, targets), expected)
    assert {name: module.training for name, module in base.named_modules()} == modes
    assert {name: p.requires_grad for name, p in base.named_parameters()} == learns
    assert base.active_adapters == ["default"]


# peft asks by a name that transformers has since replaced.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_virtual_tokens_run_the_whole_model() -> None:
    """They are added above the base: truncated, the teacher would be the one before its tuning."""
    tuned: Any = get_peft_model(
        model("Llama", "ForCausalLM"),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    )
    live = LiveTeacher(tuned, Demand(layers={"hidden": frozenset({1})}), head_of(tuned))
    assert live._model is tuned


@pytest.mark.parametrize("change", [{"alora_invocation_tokens": [5]}, {"peft_type": "XLORA"}])
def test_adapters_that_are_steered_from_above_run_the_whole_model(change: dict[str, Any]) -> None:
    """Truncated, they are not steered: they would be on, or off, for every token."""
    steered = lora(model("Bert"), target_modules=["query"])
    assert LiveTeacher(steered, SHALLOW, head_of(student()))._model is not steered
    vars(steered.peft_config["default"]).update(change)
    assert LiveTeacher(steered, SHALLOW, head_of(student()))._model is steered


def test_models_that_are_spread_or_quantized_are_run_whole() -> None:
    """Whoever loaded them has hooked their parts to devices: a new part would have no hook."""
    whole = teacher()
    whole.is_quantized = True
    assert LiveTeacher(whole, SHALLOW, head_of(student()))._model is whole


# What is recorded


def test_only_what_is_asked_for_is_recorded(tmp_path: Path) -> None:
    """Layers that nobody reads stay in memory until the step ends."""
    relations = {"relations": (1.0, MiniLMv2(relations=["query-key"]))}
    mixture = {"hidden": (1.0, HiddenMSE()), **relations}
    mapping: Any = {"hidden": [(1, 2)], "relations": [(2, 3)]}
    run = trainer(tmp_path, teacher=teacher(), objectives=mixture, layer_mapping=mapping)
    kept: list[dict[str, Tensor]] = []
    for side in (run.teacher._recorder, run.student._recorder):
        take = side.take
        side.take = lambda take=take: kept.append(take()) or kept[-1]
    run.train()
    assert [set(each) for each in kept[:2]] == [
        {"hidden.2", "query.3", "key.3"},
        {"hidden.1", "query.2", "key.2"},
    ]


def test_no_map_is_computed_unless_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps grow with the square of the length: in memory the largest thing of a step."""
    made: list[torch.Size] = []
    softmax = torch.Tensor.softmax

    def watched(tensor: Tensor, *args: Any, **given: Any) -> Tensor:
        made.append(tensor.shape)
        return softmax(tensor, *args, **given)

    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    monkeypatch.setattr(
        "hf_distill.signals.capture.attention_scores", lambda *_: pytest.fail("scores were made")
    )
    run = trainer(tmp_path, teacher=teacher(), objectives=HIDDEN, count=len(examples(8)))
    options: list[dict[str, Any]] = []
    for side in (run.model, run.teacher._model):
        side.register_forward_pre_hook(
            lambda _, args, given: options.append(given), with_kwargs=True
        )
    run.train()
    assert not [shape for shape in made if len(shape) == 4]
    assert len(options) == 4
    assert not any("output_attentions" in given for given in options)
    assert {run.model.config._attn_implementation for _ in options} == {"sdpa"}
