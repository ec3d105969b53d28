"""Student and teacher as adapters of one base."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptEncoderConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from hf_distill import Adapter, DistillationTrainer, Ensemble
from hf_distill.objectives import HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.signals import Demand
from hf_distill.signals.head import head_of
from hf_distill.teacher import LiveTeacher
from hf_distill.teacher.adapters import AdapterTeacher, switched
from tests.training.runs import collate, examples, logged, lora, student, teacher, terms, trainer

# peft 0.18 looks on the Hub for the config of a base that was never saved.
pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")

DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
TARGETS = {"target_modules": ["query", "value", "dense"], "lora_dropout": 0.1}
CONFIG = {**TARGETS, "task_type": "SEQ_CLS", "init_lora_weights": False}
OBJECTIVES = {
    "kl": (1.0, KLDivergence()),
    "hidden": (1.0, HiddenMSE()),
    "relations": (1.0, MiniLMv2()),
}


def adapted(*others: str, **config: Any) -> Any:
    """A student that learns with `default`, beside other adapters; always the same weights."""
    model = lora(student(**DROPOUT), **{**CONFIG, **config})
    for name in others:
        model.add_adapter(name, LoraConfig(**CONFIG))
        with torch.no_grad():
            # PEFT begins each adapter's head as a copy of the base's.
            model.get_base_model().classifier.modules_to_save[name].weight.add_(1.0)
    return model


def alone(name: str | None) -> Any:
    """A model of its own that says what that adapter says."""
    model = adapted("expert", "other")
    if name is None:
        return model.unload()
    model.set_adapter(name)
    return model.eval()


def state(model: nn.Module) -> list[tuple[Any, ...]]:
    """All that another adapter's turn could leave changed."""
    layers = [
        (name, str(part._active_adapter), part._disable_adapters)
        for name, part in model.named_modules()
        if isinstance(part, BaseTunerLayer | ModulesToSaveWrapper)
    ]
    assert len(layers) > 6
    return [
        *layers,
        *((name, part.training) for name, part in model.named_modules()),
        *((name, weight.requires_grad) for name, weight in model.named_parameters()),
        ("active", model.active_adapters),
    ]


@pytest.mark.parametrize("name", ["expert", "other", None])
def test_adapters_show_what_models_of_their_own_show(name: str | None) -> None:
    """The student's own adapter, or its own head, would teach itself that it is right."""
    model, batch = adapted("expert", "other"), collate(examples(4))
    head = head_of(student())
    layers = {"hidden": frozenset({0, 1, 2}), "query": frozenset({2}), "attention": frozenset({1})}
    demand = Demand(logits=True, layers=layers)
    model.train()
    found = AdapterTeacher(model, demand, head, Adapter(name)).show(batch, head.targets(batch))
    expected = LiveTeacher(alone(name), demand, head).show(batch, head.targets(batch))
    assert torch.equal(found.logits, expected.logits)
    own = LiveTeacher(adapted(), demand, head).show(batch, head.targets(batch))
    assert not torch.allclose(found.logits, own.logits)
    for signal in layers:
        for layer, values in getattr(found, signal).items():
            assert torch.equal(values, getattr(expected, signal)[layer]), (signal, layer)
    assert not torch.allclose(found.hidden[2], own.hidden[2])


@pytest.mark.parametrize("name", ["expert", None])
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_it_was(name: str | None, fails: bool) -> None:
    """PEFT's own switches thaw every adapter that they activate, and thaw it after an error too."""
    model = adapted("expert", "other").train()
    base = model.get_base_model()
    # A mixture that no rule would bring back: a frozen part of the student, a part in eval mode.
    base.bert.encoder.layer[0].eval()
    frozen = base.bert.encoder.layer[1].attention.self.query.lora_A["default"].weight
    frozen.requires_grad_(False)
    head, batch = head_of(student()), collate(examples(4))
    taught = AdapterTeacher(model, Demand(logits=True), head, Adapter(name))
    before = state(model)
    if fails:
        base.bert.pooler.register_forward_hook(_broken)
        with pytest.raises(RuntimeError, match="broken"):
            taught.show(batch, head.targets(batch))
        assert not taught._recorder.armed
    else:
        taught.show(batch, head.targets(batch))
    assert state(model) == before


def _broken(*_: Any) -> None:
    raise RuntimeError("broken")


def test_the_teacher_runs_in_eval_mode_without_gradient() -> None:
    """With dropout on, a teacher of the student's own modules would disagree with itself."""
    model = adapted("expert").train()
    seen: list[tuple[bool, bool]] = []
    model.get_base_model().bert.register_forward_hook(
        lambda part, *_: seen.append((part.training, torch.is_grad_enabled()))
    )
    head, batch = head_of(student()), collate(examples(4))
    taught = AdapterTeacher(model, Demand(logits=True), head, Adapter("expert"))
    shown = [taught.show(batch, head.targets(batch)).logits for _ in range(2)]
    assert torch.equal(*shown)
    assert seen == [(False, False)] * 2


def weights(run: DistillationTrainer) -> dict[str, Tensor]:
    named = run.model.named_parameters()
    return {name: weight for name, weight in named if weight.requires_grad}


def run_of(folder: Path, model: Any, taught: Any, **given: Any) -> DistillationTrainer:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "max_grad_norm": 1.0}
    return trainer(
        folder, model=model, teacher=taught, objectives=OBJECTIVES, **{**options, **given}
    )


@pytest.mark.parametrize("name", ["expert", None])
def test_a_shared_base_trains_as_two_models_do(tmp_path: Path, name: str | None) -> None:
    """A cast, a mode or a hook that is left from the teacher's turn changes the student's run."""
    shared = run_of(tmp_path / "shared", adapted("expert", "other"), Adapter(name))
    shared.train()
    apart = run_of(tmp_path / "apart", adapted(), alone(name))
    apart.train()
    found, expected = weights(shared), weights(apart)
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight), key
    begun = dict(adapted().named_parameters())
    assert any(not torch.equal(weight, begun[key]) for key, weight in found.items())
    assert logged(shared) == logged(apart)
    assert terms(shared) == set(OBJECTIVES)
    folders = [Path(each.args.output_dir) / "checkpoint-4" for each in (shared, apart)]
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in folders]
    assert adapters[0] == adapters[1]
    states = [torch.load(folder / "optimizer.pt") for folder in folders]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def test_the_teacher_s_adapter_does_not_change_and_is_not_saved(tmp_path: Path) -> None:
    """PEFT saves every adapter of a model: a checkpoint of a small student would hold its teacher.

    One that the student keeps for something else is saved as PEFT does it.
    """
    model = adapted("expert", "other")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    run = run_of(tmp_path, model, Adapter("expert"))
    run.train()
    for name, weight in model.state_dict().items():
        if ".default" not in name:
            assert torch.equal(weight, before[name]), name
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(weight) for weight in weights(run).values()}
    saved = sorted(path.name for path in (tmp_path / "checkpoint-4").iterdir() if path.is_dir())
    assert saved == ["other"]
    run.save_model(str(tmp_path / "final"))
    assert not (tmp_path / "final" / "expert").exists()
    model.save_pretrained(tmp_path / "by-hand")
    assert (tmp_path / "by-hand" / "expert").is_dir(), "outside the trainer PEFT saves as it does"


def test_a_student_of_another_name_is_saved_and_resumed(tmp_path: Path) -> None:
    """A checkpoint without the teacher's adapter must still be one that the Trainer can load."""

    def begun() -> Any:
        model = adapted("mine")
        model.set_adapter("mine")
        return model

    whole = run_of(tmp_path / "whole", begun(), Adapter("default"))
    whole.train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    assert (checkpoint / "mine" / "adapter_model.safetensors").is_file()
    assert not (checkpoint / "adapter_model.safetensors").exists()
    resumed = run_of(tmp_path / "resumed", begun(), Adapter("default"))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in weights(whole).items():
        assert torch.equal(weights(resumed)[name], weight), name


def test_a_resumed_run_is_bit_equal(tmp_path: Path) -> None:
    """PEFT loads an adapter into a model that holds another, and may activate or thaw that one."""
    whole = run_of(tmp_path / "whole", adapted("expert"), Adapter("expert"))
    whole.train()
    resumed = run_of(tmp_path / "resumed", adapted("expert"), Adapter("expert"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert weights(resumed).keys() == weights(whole).keys()
    for name, weight in weights(whole).items():
        assert torch.equal(weights(resumed)[name], weight), name
    assert logged(resumed) == logged(whole)


def test_adapted_students_learn_from_larger_teachers(tmp_path: Path) -> None:
    """A PEFT model names no inputs, and its projections are no adapter: resumed ones must fit."""
    whole = run_of(tmp_path / "whole", adapted(), teacher())
    whole.train()
    assert (tmp_path / "whole" / "checkpoint-2" / "_distillation_heads.safetensors").is_file()
    resumed = run_of(tmp_path / "resumed", adapted(), teacher())
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    names = {name.split(".")[0] for name in weights(whole)}
    assert names == {"base_model", "distillation_heads"}
    for name, weight in weights(whole).items():
        assert torch.equal(weights(resumed)[name], weight), name
    assert "eval_loss" in whole.evaluate(examples(4))


def test_the_best_adapter_is_loaded_at_the_end(tmp_path: Path) -> None:
    """The Trainer only warns where it finds no best model, and keeps the last."""
    options = {
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "learning_rate": 0.5,
    }
    run = run_of(
        tmp_path, adapted("expert"), Adapter("expert"), eval_dataset=examples(4), **options
    )
    run.train()
    best = run.state.best_model_checkpoint
    assert best is not None
    other = run_of(tmp_path / "other", adapted("expert"), Adapter("expert"))
    other._load_from_checkpoint(best)
    for name, weight in weights(other).items():
        assert torch.equal(dict(run.model.named_parameters())[name], weight), name
    named = adapted("mine")
    named.set_adapter("mine")
    with pytest.raises(ValueError, match=r"load_best_model_at_end.*not named 'default'"):
        run_of(tmp_path, named, Adapter("default"), eval_dataset=examples(4), **options)


def test_a_card_counts_each_adapter_once(tmp_path: Path) -> None:
    """Counted with its teacher's adapter, a student looks larger than what is handed over."""
    run = run_of(tmp_path, adapted("expert", "other"), Adapter("expert"))
    facts = run.describe()
    alone_facts = run_of(tmp_path, adapted(), teacher()).describe()
    assert facts.student == alone_facts.student
    assert facts.teacher == facts.student, "adapters of one shape"
    assert facts.teacher_name == "BertForSequenceClassification with expert"
    bare = run_of(tmp_path, adapted("expert"), Adapter(None)).describe()
    assert bare.teacher_name == "BertForSequenceClassification without adapters"
    assert bare.teacher is not None
    assert bare.teacher.parameters < facts.student.parameters


def test_adapters_teach_together(tmp_path: Path) -> None:
    """Each of an ensemble's adapters must have its turn on the one model."""
    model = adapted("expert", "other")
    both = Ensemble([Adapter("expert"), Adapter("other")], weights=[3, 1])
    run = trainer(tmp_path, model=model, teacher=both, objectives={"kl": OBJECTIVES["kl"]})
    batch = collate(examples(4))
    shown = run.teacher.show(batch, run.head.targets(batch)).logits
    batch.pop("labels")
    expert, other = (alone(name)(**batch).logits.softmax(-1) for name in ("expert", "other"))
    torch.testing.assert_close(shown.softmax(-1), 0.75 * expert + 0.25 * other)
    run.train()
    facts = run.describe()
    assert facts.teacher_name == (
        "the mean weighted 3, 1 of BertForSequenceClassification with expert and "
        "BertForSequenceClassification with other"
    )
    single = trainer(tmp_path, model=adapted("expert"), teacher=Adapter("expert")).describe()
    assert facts.teacher.parameters < 1.5 * single.teacher.parameters, "one base, counted once"
    saved = tmp_path / "saved"
    run.save_model(str(saved))
    assert not [path for path in saved.iterdir() if path.is_dir()]


def biased() -> Any:
    return adapted("expert", bias="all")


def thawed() -> Any:
    model = adapted("expert")
    for name, weight in model.named_parameters():
        if ".expert." in name:
            weight.requires_grad_(True)
    return model


def merged() -> Any:
    model = adapted("expert")
    model.merge_adapter(["default"])
    return model


def prompted() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
        return get_peft_model(student(), config)


def two_active() -> Any:
    model = lora(student(), **TARGETS)
    model.add_adapter("expert", LoraConfig(**TARGETS))
    model.base_model.set_adapter(["default", "expert"])
    return model


REFUSED: dict[str, tuple[Any, Adapter | None, str]] = {
    "no adapters": (student, Adapter("expert"), r"where the student has no adapters, got Adapter"),
    "an unknown one": (
        lambda: adapted("expert"),
        Adapter("export"),
        r"name of Adapter must be one of \['expert', None\], got 'export'.*learns with \['default'",
    ),
    "the student's own": (
        lambda: adapted("expert"),
        Adapter("default"),
        r"name of Adapter must be one of \['expert', None\], got 'default'",
    ),
    "biases that are learnt": (biased, Adapter("expert"), r"alone, got .*bias and \d+ more: the t"),
    "biases below the bare base": (biased, Adapter(None), r"trainable weights must be of the stud"),
    "a teacher that is learnt": (thawed, Adapter("expert"), r"alone, got .*\.expert\."),
    "a merged base": (merged, Adapter("expert"), r"adapters must not be merged.*unmerge_adapter"),
    "virtual tokens": (prompted, None, r"leave the tokens as they are.*'default' of type P_TUNING"),
    "two active adapters": (two_active, None, r"student must have one active adapter, got \['de"),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_refused(asked: str, tmp_path: Path) -> None:
    """A teacher that moves with its student teaches it to stay where it is."""
    made, taught, message = REFUSED[asked]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        trainer(tmp_path, model=made(), teacher=taught or teacher())


def test_sharded_students_have_no_adapter_for_a_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's forward goes past the wrapper that gathers a student's shards."""
    run = run_of(tmp_path, adapted("expert"), Adapter("expert"))
    with pytest.raises(ValueError, match=r"each process holds whole, got FSDP or DeepSpeed"):
        run._teaching.begin(Demand(True), lambda model: model, torch.device("cpu"), sharded=True)


def test_an_adapter_without_its_own_head_speaks_through_the_base_s() -> None:
    """The head that the student trains would be read with the teacher's layers."""
    model = adapted()
    model.add_adapter("bare", LoraConfig(**TARGETS, init_lora_weights=False))
    batch = collate(examples(4))
    batch.pop("labels")
    copied = copy.deepcopy(model).eval()
    copied.set_adapter("bare")
    with torch.no_grad(), switched(model, Adapter("bare")):
        found = model(**batch).logits
    head = model.get_base_model().classifier
    with torch.no_grad():
        head.modules_to_save["default"].weight.add_(1.0)
        with switched(model, Adapter("bare")):
            again = model(**batch).logits
    assert torch.equal(found, again)
    torch.testing.assert_close(found, copied(**batch).logits, rtol=0, atol=0)
