"""Where a teacher is run, and how: on the accelerator, compiled, in autocast as the student is."""

from __future__ import annotations

from accelerate import Accelerator
from torch import nn


def place(accelerator: Accelerator, teacher: nn.Module, *, autocast: bool = True) -> nn.Module:
    """Prepare the teacher as the student is, not counted among accelerate's trained models.

    Args:
        accelerator: The trainer's.
        teacher: What is run of the teacher.
        autocast: Whether the trainer's autocast, where it has one, is for the teacher too.
    """
    counted, mixed = len(accelerator._models), accelerator.native_amp
    accelerator.native_amp = mixed and autocast
    try:
        prepared: nn.Module = accelerator.prepare_model(
            teacher, device_placement=True, evaluation_mode=True
        )
    finally:
        accelerator.native_amp = mixed
    del accelerator._models[counted:]
    return prepared
