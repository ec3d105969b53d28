"""A live teacher: a frozen model that shows its signals batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.architectures import forward_options, plain_model, truncated
from hf_distill.signals.capture import Recorder, signals
from hf_distill.signals.head import LABELS, Head, Targets
from hf_distill.signals.signals import Demand, Signals
from hf_distill.teacher.weights import cast, is_movable


class LiveTeacher:
    """Runs the teacher, frozen and in eval mode, and shows what was demanded of it.

    It is run no further than that: without its head and its decoder where no logits are demanded,
    and up to the deepest layer that is. Not an `nn.Module`: it is never saved, counted, clipped or
    put into train mode with the student.
    """

    def __init__(
        self,
        model: nn.Module,
        demand: Demand,
        head: Head,
        *,
        classes: Sequence[int] | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Freeze the model and install its recorder.

        Args:
            model: The teacher.
            demand: What the objectives need of it.
            head: The student's head: it says which rows of logits are compared.
            classes: For each class of the student, the teacher's index of it; None where the order
                is the same.
            prepare: Places and compiles what is run, such as `Accelerator.prepare_model`.
            dtype: Of the weights of what is run, a copy where they are of another one; it is then
                run in exactly that, whatever autocast says. None: the model as it is.
        """
        self._config = plain_model(model).config
        self._demand, self._head, self._dtype = demand, head, dtype
        self._classes = None if classes is None else torch.tensor(classes)
        self._recorder = Recorder(model, demand)
        needed = _needed(self._frozen(model), demand)
        named = inspect.signature(plain_model(needed).forward).parameters
        self.columns: list[str] = [name for name in named if name not in LABELS]
        """The inputs that what is run of the teacher names. Gold labels are the student's."""
        self._options = forward_options(needed)
        self._model = self._settled(needed if dtype is None else cast(needed, dtype), prepare)

    @torch.no_grad()
    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """The signals of one batch.

        Args:
            inputs: The batch; columns that the teacher does not name are left out.
            targets: Which rows count.
        """
        known = {name: inputs[name] for name in self.columns if name in inputs}
        exactly = nullcontext() if self._dtype is None else _no_autocast(targets.mask)
        with self._speaking() as model, exactly:
            self._recorder.arm()
            try:
                outputs = model(**known, **self._options)
            finally:
                features = self._recorder.take()
        logits = self._head.logits(outputs, targets) if self._demand.logits else None
        if logits is not None and self._classes is not None:
            logits = logits.index_select(-1, self._classes.to(logits.device))
        return signals(
            features,
            self._demand,
            self._config,
            logits=logits,
            mask=targets.mask,
            rows=targets.rows,
        )

    def _frozen(self, model: nn.Module) -> nn.Module:
        """The whole model, made fit to teach."""
        return model.eval().requires_grad_(False)

    def _settled(self, model: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """What is run, as it is kept between batches."""
        return prepare(model)

    @contextmanager
    def _speaking(self) -> Iterator[nn.Module]:
        """What is run, while it is run on one batch."""
        yield self._model.eval()


def _needed(model: nn.Module, demand: Demand) -> nn.Module:
    """As much of a model as a demand needs."""
    above = any(_acts_above(config) for config in getattr(model, "peft_config", {}).values())
    if demand.logits or above or not is_movable(model):
        return model
    part: nn.Module = truncated(model, demand.depth)
    return part


def _acts_above(config: Any) -> bool:
    """Whether a PEFT adapter acts on the way to the layers, as virtual tokens do, not in them."""
    activated = getattr(config, "alora_invocation_tokens", None)
    return bool(config.is_prompt_learning or activated or config.peft_type == "XLORA")


def _no_autocast(batch: Tensor) -> torch.autocast:
    return torch.autocast(batch.device.type, enabled=False)
