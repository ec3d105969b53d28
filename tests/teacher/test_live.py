"""A live teacher is frozen, in eval mode, and shows what was asked of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from hf_distill.objectives import HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.signals import Demand, Signals
from hf_distill.signals.head import head_of
from hf_distill.teacher import LiveTeacher
from tests.training.runs import collate, examples, logged, lora, student, teacher, terms, trainer

HIDDEN = {"hidden": (1.0, HiddenMSE())}
EVERYTHING = {
    **HIDDEN,
    "kl": (1.0, KLDivergence()),
    "relations": (1.0, MiniLMv2()),
}
WANTED = Demand(
    logits=True,
    layers={
        "hidden": frozenset({0, 2, 4}),
        "query": frozenset({4}),
        "key": frozenset({3}),
        "value": frozenset({1}),
        "attention": frozenset({2}),
    },
)


def shown(model: nn.Module) -> Signals:
    """What a teacher shows of four examples."""
    batch = collate(examples(4))
    head = head_of(student())
    return LiveTeacher(model, WANTED, head).show(batch, head.targets(batch))


def assert_same(found: Signals, expected: Signals) -> None:
    torch.testing.assert_close(found.logits, expected.logits)
    for signal, layers in WANTED.layers.items():
        assert set(getattr(found, signal)) == layers
        torch.testing.assert_close(getattr(found, signal), getattr(expected, signal))


def test_lora_teachers_show_what_the_merged_model_shows() -> None:
    """Hooks on the base layer below an adapter would show the teacher before it was fine-tuned."""
    targets = ["query", "key", "value", "dense"]
    adapted = lora(teacher(), target_modules=targets, task_type="SEQ_CLS")
    found = shown(adapted)
    assert_same(found, shown(adapted.merge_and_unload()))
    plain = shown(teacher())
    assert found.logits is not None
    for signal, layers in WANTED.layers.items():
        layer = max(layers)
        assert not torch.allclose(getattr(found, signal)[layer], getattr(plain, signal)[layer])


def test_a_student_learns_from_a_lora_teacher(tmp_path: Path) -> None:
    """A PEFT model names other inputs and classes than the model that it wraps."""
    adapted = lora(teacher(), target_modules=["query"], task_type="SEQ_CLS")
    run = trainer(tmp_path, teacher=adapted, objectives=EVERYTHING)
    run.train()
    merged = trainer(tmp_path, teacher=adapted.merge_and_unload(), objectives=EVERYTHING)
    merged.train()
    assert logged(run) == pytest.approx(logged(merged), rel=1e-5)


def test_a_path_is_the_model_saved_there(tmp_path: Path) -> None:
    """A teacher in another precision, or with its head drawn anew, teaches something else."""
    model = teacher()
    model.save_pretrained(tmp_path / "teacher")
    by_path = trainer(tmp_path, teacher=str(tmp_path / "teacher"), objectives=EVERYTHING)
    by_path.train()
    by_model = trainer(tmp_path, teacher=model, objectives=EVERYTHING)
    by_model.train()
    assert logged(by_path) == logged(by_model)


def test_teachers_stay_in_eval_mode(tmp_path: Path) -> None:
    """With dropout on, the teacher says something else about the same sentence every time."""
    taught = teacher(hidden_dropout_prob=0.5)
    run = trainer(tmp_path, teacher=taught)
    batch = collate(examples(4))
    targets = run.head.targets(batch)
    expected = run.teacher.show(batch, targets)
    run.model.train()
    taught.train()
    again = run.teacher.show(batch, targets)
    assert not taught.training
    assert not any(module.training for module in taught.modules())
    assert torch.equal(again.logits, expected.logits)


def test_training_leaves_the_teacher_alone(tmp_path: Path) -> None:
    """A teacher that is trained along, counted, clipped or saved is found out by its size only."""
    taught = teacher(hidden_dropout_prob=0.1)
    before = {name: tensor.clone() for name, tensor in taught.state_dict().items()}
    modes: list[bool] = []
    taught.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    run = trainer(tmp_path, teacher=taught, save_strategy="steps", save_steps=2, max_steps=2)
    run.train()
    assert modes == [False, False]
    for name, tensor in taught.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in taught.parameters())
    assert run.optimizer is not None
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(parameter) for parameter in run.model.parameters()}
    assert optimised.isdisjoint(map(id, taught.parameters()))
    assert not any("teacher" in name for name in run.model.state_dict())
    assert (tmp_path / "checkpoint-2" / "model.safetensors").stat().st_size < 4 * sum(
        tensor.numel() for tensor in before.values()
    )


def test_teachers_are_placed_for_evaluation_and_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that is not placed stays on the CPU; one that is counted is saved and wrapped."""
    placed: dict[int, dict[str, Any]] = {}
    place = Accelerator.prepare_model

    def watched(accelerator: Accelerator, model: nn.Module, **options: Any) -> nn.Module:
        placed[id(model)] = options
        return place(accelerator, model, **options)

    monkeypatch.setattr(Accelerator, "prepare_model", watched)
    taught = teacher()
    run = trainer(tmp_path, teacher=taught)
    assert placed[id(taught)] == {"device_placement": True, "evaluation_mode": True}
    assert not run.accelerator._models
    run.train()
    assert run.accelerator._models == [run.model_wrapped]


def received(model: nn.Module) -> list[set[str]]:
    """The names of the inputs of every forward pass."""
    names: list[set[str]] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: names.append(set(inputs)), with_kwargs=True
    )
    return names


def test_teachers_get_the_columns_that_only_they_name(tmp_path: Path) -> None:
    """The Trainer drops what the student does not name: segment 1 becomes segment 0, silently."""
    columns: list[dict[str, Any]] = []
    for one in examples(8):
        length = len(one["input_ids"])
        segments = [int(place > length // 2) for place in range(length)]
        plain = {name: column.tolist() for name, column in one.items()}
        columns.append({**plain, "token_type_ids": segments, "source": "a column of nobody's"})
    dataset = Dataset.from_list(columns)
    small, taught = student(family="DistilBert"), teacher()
    seen, taught_with = received(small), received(taught)
    run = trainer(
        tmp_path, model=small, teacher=taught, train_dataset=dataset, eval_dataset=dataset
    )
    run.train()
    run.evaluate()
    assert taught_with == [{"input_ids", "attention_mask", "token_type_ids"}] * 2
    assert {frozenset(names) for names in seen} == {frozenset({"input_ids", "attention_mask"})}
    assert len(seen) == 3


def test_teachers_do_not_get_columns_that_they_do_not_name(tmp_path: Path) -> None:
    """A column of the student's alone is an unknown argument, or an option of another meaning."""
    rows = [{**one, "token_type_ids": torch.ones_like(one["input_ids"])} for one in examples(8)]
    taught = teacher(family="DistilBert")
    taught_with = received(taught)
    trainer(tmp_path, teacher=taught, train_dataset=rows).train()
    assert taught_with == [{"input_ids", "attention_mask"}] * 2


def test_teachers_of_another_task_do_not_see_the_labels(tmp_path: Path) -> None:
    """Labels of another task index the teacher's classes out of range, or fail on their shape."""
    run = trainer(tmp_path, teacher=teacher("ForTokenClassification"), objectives=HIDDEN)
    run.train()
    assert terms(run) == {"hidden"}


def test_segments_change_what_the_teacher_shows() -> None:
    """The test above is worth nothing if the teacher did not read them."""
    taught, head = teacher(), head_of(student())
    batch = collate(examples(4))
    live = LiveTeacher(taught, Demand(logits=True), head)
    targets = head.targets(batch)
    other = {**batch, "token_type_ids": torch.ones_like(batch["input_ids"])}
    assert not torch.allclose(live.show(batch, targets).logits, live.show(other, targets).logits)
