"""A teacher that waits on the CPU: it is on the accelerator for its own forward pass only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_distill.architectures import plain_model
from hf_distill.signals.head import Head
from hf_distill.signals.signals import Demand
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.weights import is_movable


class WaitingTeacher(LiveTeacher):
    """A live teacher that takes room on the accelerator only while it is run.

    Its weights never change, so that they are copied in and let go: nothing is copied back.
    """

    def __init__(
        self,
        model: nn.Module,
        demand: Demand,
        head: Head,
        *,
        device: torch.device,
        classes: Sequence[int] | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
        dtype: torch.dtype | None = None,
    ) -> None:
        """As `LiveTeacher`.

        Args:
            model: The teacher.
            demand: What the objectives need of it.
            head: The student's head.
            device: Where it is run.
            classes: For each class of the student, the teacher's index of it.
            prepare: Places and compiles what is run; it is taken to the CPU afterwards.
            dtype: Of the weights of what is run.

        Raises:
            ValueError: The model is spread over devices or quantized, so that it cannot be moved.
        """
        _check_movable(model)
        self._device = device
        super().__init__(model, demand, head, classes=classes, prepare=prepare, dtype=dtype)

    def _settled(self, model: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> nn.Module:
        prepared = super()._settled(model, prepare)
        self._tensors: list[Tensor] = [*prepared.parameters(), *prepared.buffers()]
        self._weights = [tensor.data.cpu() for tensor in self._tensors]
        self._wait()
        return prepared

    @contextmanager
    def _speaking(self) -> Iterator[nn.Module]:
        try:
            for tensor, weights in zip(self._tensors, self._weights, strict=True):
                # A copy on the CPU too, where tests have no other device.
                tensor.data = weights.to(self._device, copy=True)
            with super()._speaking() as model:
                yield model
        finally:
            self._wait()

    def _wait(self) -> None:
        for tensor, weights in zip(self._tensors, self._weights, strict=True):
            tensor.data = weights


def _check_movable(model: nn.Module) -> None:
    if not is_movable(model):
        raise ValueError(
            "teachers of an Ensemble must be movable between devices, got "
            f"{type(plain_model(model)).__name__}, which is spread over devices or "
            "quantized. Load it without device_map and quantization."
        )
