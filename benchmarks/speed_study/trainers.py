"""The Hugging Face Trainer: ours with a teacher, live or on disk, and the plain one without."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from studies.trainers import arguments
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from speed_study.protocol import Gate
from speed_study.work import CLIP, PAIRS, RATE, TEMPERATURE, Task, collate, on, same_start


def fine_tuning(task: Task, gate: Gate) -> None:
    """The plain Trainer, on labels."""
    student = task.new_student()
    with tempfile.TemporaryDirectory() as folder:
        run_at_gate(Trainer(student, _arguments(task, folder), **_data(task)), gate)


def live(task: Task, gate: Gate) -> None:
    """Ours, with the teacher as it is."""
    _distil(task, gate)


def live_bfloat16(task: Task, gate: Gate) -> None:
    """Ours, with the teacher's weights in bfloat16."""
    _distil(task, gate, teacher_dtype="bfloat16")


def live_mixed(task: Task, gate: Gate) -> None:
    """Ours, student and teacher under bfloat16 autocast."""
    _distil(task, gate, {"bf16": True})


def compiled(task: Task, gate: Gate) -> None:
    """Ours under bfloat16 autocast, student and teacher compiled."""
    _distil(task, gate, {"bf16": True, "torch_compile": True})


def cached(task: Task, gate: Gate) -> None:
    """Ours, with what the teacher showed read from the disk."""
    with tempfile.TemporaryDirectory() as folder:
        run_at_gate(_distilling(task, _arguments(task, folder), teacher_cache=task.cache), gate)


def cached_logits(task: Task, gate: Gate) -> None:
    """The same cache, of which logits alone are compared."""
    with tempfile.TemporaryDirectory() as folder:
        given = _arguments(task, folder)
        trainer = _trainer(task, given, {"kl": _divergence()}, teacher_cache=task.cache)
        run_at_gate(trainer, gate)


def write_cache(task: Task, gate: Gate) -> None:
    """Write the cache of all examples, then do the same forward passes bare; no steps.

    Which they are is seen while it is written: the writer takes examples by length, and some
    batches twice, to tell beforehand what all will cost.
    """
    teacher, passes = task.new_teacher(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        trainer = _distilling(task, _arguments(task, folder), teacher=teacher)
        # The first pass is slower than those that follow.
        teacher(**next(on(task.device, task.loader())))
        hook = teacher.register_forward_pre_hook(
            lambda module, positional, named: passes.append(named), with_kwargs=True
        )
        with gate.timed() as took:
            written = trainer.write_teacher_cache(task.cache, say=lambda line: None)
        hook.remove()
        with gate.timed() as bare:
            for inputs in passes:
                teacher(**inputs)
    gate.facts.update(passes=len(passes), bare=bare, took=took, bytes=written.bytes)
    gate.wait()


def _distil(task: Task, gate: Gate, changes: dict[str, Any] | None = None, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        given = _arguments(task, folder, **(changes or {}))
        run_at_gate(_distilling(task, given, teacher=task.new_teacher(), **options), gate)


def _distilling(task: Task, given: TrainingArguments, **taught: Any) -> Any:
    """Our trainer, for logits and hidden states."""
    from hf_distill.objectives import HiddenMSE
    from hf_distill.training.heads import NAME

    compared = {"kl": _divergence(), "hidden": (1.0, HiddenMSE())}
    trainer = _trainer(task, given, compared, layer_mapping={"hidden": PAIRS}, **taught)
    same_start(trainer.model.get_submodule(NAME).projections.values())
    return trainer


def _trainer(task: Task, given: TrainingArguments, compared: dict[str, Any], **how: Any) -> Any:
    from hf_distill import DistillationTrainer

    return DistillationTrainer(task.new_student(), given, objectives=compared, **_data(task), **how)


def _divergence() -> Any:
    from hf_distill.objectives import KLDivergence

    return 1.0, KLDivergence(TEMPERATURE)


class AtGate(TrainerCallback):
    """Stops the Trainer at the gate before its first step and after each."""

    def __init__(self, gate: Gate) -> None:
        """Keep the gate."""
        self._gate = gate

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the first step."""
        self._gate.wait()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the next one."""
        self._gate.wait()


def _arguments(task: Task, folder: str, **more: Any) -> TrainingArguments:
    same: dict[str, Any] = {
        "learning_rate": RATE,
        "max_grad_norm": CLIP,
        "dataloader_pin_memory": False,
        "use_cpu": task.device == "cpu",
    }
    return arguments(folder, task.batch, task.steps, **same, **more)


def _data(task: Task) -> dict[str, Any]:
    return {"train_dataset": task.read(), "data_collator": collate}


def run_at_gate(trainer: Trainer, gate: Gate) -> None:
    """Train on the examples in their order, a step whenever the gate is opened."""
    trainer.add_callback(AtGate(gate))
    # Early versions of transformers have no argument for it.
    trainer._get_train_sampler = lambda *given: SequentialSampler(trainer.train_dataset)
    compute = trainer.compute_loss

    def noted(*args: Any, **kwargs: Any) -> Any:
        loss = compute(*args, **kwargs)
        gate.note(loss)
        return loss

    trainer.compute_loss = noted
    trainer.train()
