"""The loop written by hand, and its parts, each in a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from speed_study.protocol import Gate, Gated
from speed_study.work import (
    CLASSES,
    CLIP,
    PAIRS,
    RATE,
    Task,
    kl_of_logits,
    mse_of_states,
    on,
    parts_of_loss,
)

Loss = Callable[[dict[str, Tensor]], Tensor]


def raw_loop(task: Task, gate: Gate, *, mixed: bool = False) -> None:
    """Distillation as one would write it by hand."""
    student, teacher = task.new_student(), task.new_teacher()
    projections = task.new_projections()
    first = next(on(task.device, task.loader()))
    gate.facts["parts"] = parts_of_loss(student, teacher, projections, first)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        del batch["labels"]
        with torch.no_grad():
            taught = teacher(**batch, output_hidden_states=True)
        shown = student(**batch, output_hidden_states=True)
        states = shown.hidden_states, taught.hidden_states, projections
        logits = kl_of_logits(shown.logits, taught.logits)
        return logits + mse_of_states(*states, batch["attention_mask"])

    _train(task, gate, [student, projections], loss, mixed=mixed)


def raw_loop_mixed(task: Task, gate: Gate) -> None:
    """The same under bfloat16 autocast."""
    raw_loop(task, gate, mixed=True)


def student_alone(task: Task, gate: Gate) -> None:
    """The student's part without hidden states: fine-tuning towards given logits."""
    student = task.new_student()
    taught = _given(task, CLASSES, 1)[0][:, 0]

    def loss(batch: dict[str, Tensor]) -> Tensor:
        del batch["labels"]
        return kl_of_logits(student(**batch).logits, taught)

    _train(task, gate, [student], loss)


def student_with_states(task: Task, gate: Gate) -> None:
    """The student's part with hidden states, towards given ones."""
    student, projections = task.new_student(), task.new_projections()
    logits = _given(task, CLASSES, 1)[0][:, 0]
    states = _given(task, task.teacher[0], 1 + max(theirs for _, theirs in PAIRS))

    def loss(batch: dict[str, Tensor]) -> Tensor:
        del batch["labels"]
        mask = batch["attention_mask"]
        shown = student(**batch, output_hidden_states=True)
        taught = [each[:, : mask.shape[1]] for each in states]
        compared = mse_of_states(shown.hidden_states, taught, projections, mask)
        return kl_of_logits(shown.logits, logits) + compared

    _train(task, gate, [student, projections], loss)


def teacher_float32(task: Task, gate: Gate) -> None:
    """The teacher's forward pass."""
    _show(task, gate, nullcontext())


def teacher_autocast(task: Task, gate: Gate) -> None:
    """The same under bfloat16 autocast: weights in float32, cast in every step."""
    _show(task, gate, torch.autocast(torch.device(task.device).type, torch.bfloat16))


def teacher_bfloat16(task: Task, gate: Gate) -> None:
    """The same with its weights in bfloat16."""
    _show(task, gate, nullcontext(), dtype=torch.bfloat16)


def _train(
    task: Task, gate: Gate, learnt: list[nn.Module], loss: Loss, *, mixed: bool = False
) -> None:
    parameters = [each for module in learnt for each in module.train().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, task.steps)
    autocast = partial(torch.autocast, torch.device(task.device).type, torch.bfloat16)
    for batch in on(task.device, Gated(gate, task.loader())):
        with autocast(enabled=mixed):
            value = loss(batch)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        gate.note(value)


def _show(
    task: Task,
    gate: Gate,
    context: AbstractContextManager[Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    teacher = task.new_teacher().to(dtype)
    with torch.no_grad(), context:
        for batch in on(task.device, Gated(gate, task.loader())):
            del batch["labels"]
            teacher(**batch, output_hidden_states=True)


def _given(task: Task, width: int, count: int) -> list[Tensor]:
    """What a teacher could show, of the longest batch."""
    longest = max(len(example["input_ids"]) for example in task.read())
    return [torch.randn(task.batch, longest, width, device=task.device) for _ in range(count)]
