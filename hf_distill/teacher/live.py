"""A live teacher: a frozen model that shows its signals batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_distill.architectures import forward_options, plain_model
from hf_distill.signals.capture import Recorder, signals
from hf_distill.signals.head import LABELS, Head, Targets
from hf_distill.signals.signals import Demand, Signals


class LiveTeacher:
    """Runs the teacher, frozen and in eval mode, and shows what was demanded of it.

    Not an `nn.Module`: it is never saved, counted, clipped or put into train mode with the student.
    """

    def __init__(
        self,
        model: nn.Module,
        demand: Demand,
        head: Head,
        *,
        classes: Sequence[int] | None = None,
        prepare: Callable[[nn.Module], nn.Module] = lambda model: model,
    ) -> None:
        """Freeze the model and install its recorder.

        Args:
            model: The teacher.
            demand: What the objectives need of it.
            head: The student's head: it says which rows of logits are compared.
            classes: For each class of the student, the teacher's index of it; None where the order
                is the same.
            prepare: Places and compiles the model, such as `Accelerator.prepare_model`.
        """
        plain = plain_model(model)
        named = inspect.signature(plain.forward).parameters
        self.columns: list[str] = [name for name in named if name not in LABELS]
        """The inputs that the teacher's own forward names. Gold labels are the student's."""
        self._config = plain.config
        self._demand, self._head = demand, head
        self._classes = None if classes is None else torch.tensor(classes)
        self._recorder = Recorder(model, demand)
        self._options = forward_options(model)
        self._model = self._settled(model, prepare)

    @torch.no_grad()
    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """The signals of one batch.

        Args:
            inputs: The batch; columns that the teacher does not name are left out.
            targets: Which rows count.
        """
        known = {name: inputs[name] for name in self.columns if name in inputs}
        with self._speaking() as model:
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

    def _settled(self, model: nn.Module, prepare: Callable[[nn.Module], nn.Module]) -> nn.Module:
        """The model as it is kept between batches."""
        return prepare(model.eval().requires_grad_(False))

    @contextmanager
    def _speaking(self) -> Iterator[nn.Module]:
        """The model, while it is run on one batch."""
        yield self._model.eval()
