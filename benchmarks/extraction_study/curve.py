"""What a student is worth while it learns, at steps that lie evenly on a logarithmic scale."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from hf_distill import DistillationTrainer

FIRST = 5


def measured_at(steps: int) -> list[int]:
    """0, 5, 7, 10, 14, ... and the last step: two points to each doubling."""
    found, power = [0], 0
    while (step := round(FIRST * 2 ** (power / 2))) < steps:
        found.append(step)
        power += 1
    return [*found, steps]


class Curve(TrainerCallback):
    """Measures before the first step and after chosen ones."""

    def __init__(self, steps: int, measure: Callable[[], Mapping[str, float]]) -> None:
        """Choose the steps.

        Args:
            steps: Of the training.
            measure: What is measured, by name.
        """
        self._at, self._measure = set(measured_at(steps)), measure
        self.points: dict[str, list[float]] = {"step": []}
        self.seconds = 0.0
        """Of this process, spent on measuring."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step."""
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each step."""
        if state.global_step not in self._at:
            return
        began = time.process_time()
        self.points["step"].append(state.global_step)
        for name, value in self._measure().items():
            self.points.setdefault(name, []).append(float(f"{value:.5g}"))
        self.seconds += time.process_time() - began


class HeldOut:
    """The distillation loss on examples that are not learnt from, and the student's outputs."""

    def __init__(self, trainer: DistillationTrainer, batches: Sequence[dict[str, Any]]) -> None:
        """Let the teacher show its signals once.

        Args:
            trainer: Its student, heads and mixture are asked.
            batches: As the trainer's collator makes them.
        """
        self._trainer = trainer
        self._batches = [trainer.head.complete(dict(batch)) for batch in batches]
        self._targets = [trainer.head.targets(batch) for batch in self._batches]
        shown = zip(self._batches, self._targets, strict=True)
        self._taught = [trainer.teacher.show(*each) for each in shown]

    @torch.no_grad()
    def results(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Outputs and loss of each batch."""
        model: Any = self._trainer.model
        training = model.training
        model.eval()
        for batch, targets, taught in zip(self._batches, self._targets, self._taught, strict=True):
            outputs, shown, learnt = self._trainer.student.show(model, batch, targets, taught)
            loss, _ = self._trainer.mixture(shown, taught, None, learnt)
            yield outputs, float(loss)
        model.train(training)
