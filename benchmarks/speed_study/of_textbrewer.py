"""TextBrewer, as its documentation says."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import torch
from transformers import get_linear_schedule_with_warmup

from speed_study.protocol import Gate, Gated
from speed_study.work import (
    CLIP,
    PAIRS,
    RATE,
    TEMPERATURE,
    Task,
    same_start,
)


def distil(task: Task, gate: Gate) -> None:
    """Its GeneralDistiller, with matches of hidden states."""
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    student, teacher = task.new_student(), task.new_teacher()
    matches = [
        {
            "layer_T": theirs,
            "layer_S": mine,
            "feature": "hidden",
            "loss": "hidden_mse",
            "weight": 1 / len(PAIRS),
            "proj": ["linear", task.student[0], task.teacher[0]],
        }
        for mine, theirs in PAIRS
    ]
    # Its cross-entropy is not multiplied by the square of the temperature.
    losses = DistillationConfig(
        temperature=TEMPERATURE, kd_loss_weight=TEMPERATURE**2, intermediate_matches=matches
    )
    with tempfile.TemporaryDirectory() as folder:
        training = TrainingConfig(output_dir=folder, device=task.device)
        distiller = GeneralDistiller(training, losses, teacher, student, _adapted, _adapted)
        same_start(distiller.projs)
        _note(distiller, gate)
        optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, fused=True)
        with distiller:
            distiller.train(
                optimizer,
                Gated(gate, task.loader()),
                num_epochs=1,
                scheduler_class=get_linear_schedule_with_warmup,
                scheduler_args={"num_warmup_steps": 0, "num_training_steps": task.steps},
                max_grad_norm=CLIP,
                output_hidden_states=True,
            )


def _adapted(batch: Mapping[str, Any], outputs: Any) -> dict[str, Any]:
    return {
        "logits": outputs.logits,
        "hidden": outputs.hidden_states,
        "inputs_mask": batch["attention_mask"],
    }


def _note(distiller: Any, gate: Gate) -> None:
    """Have the gate told of each loss, where it is written to a log."""
    write = distiller.write_loss

    def noted(total: Any, *args: Any, **kwargs: Any) -> None:
        gate.note(total)
        write(total, *args, **kwargs)

    distiller.write_loss = noted
