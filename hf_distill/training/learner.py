"""The student's side of a step: what it is given, and what it shows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_distill.architectures import forward_options, plain_model
from hf_distill.objectives.mixture import Learnt
from hf_distill.signals.capture import Recorder, signals
from hf_distill.signals.head import Head, Targets
from hf_distill.signals.signals import Demand, Signals
from hf_distill.training.heads import NAME, DistillationHeads

_FEATURES = "features"
"""The key of the recorded features in the student's training outputs."""


class Learner:
    """A student that shows its signals, as a teacher does, and carries what is learnt beside it.

    The features leave the model inside its outputs, since DDP follows those alone.
    """

    def __init__(self, model: Any, demand: Demand, head: Head, heads: DistillationHeads) -> None:
        """Attach recorder and heads: before the model is moved, wrapped or compiled.

        Args:
            model: The student.
            demand: What the objectives need of it.
            head: Its head.
            heads: Becomes a submodule, whose weights `save_pretrained` leaves out.
        """
        plain = plain_model(model)
        self.columns: list[str] = list(inspect.signature(plain.forward).parameters)
        """The inputs that the student's own forward names."""
        self._config, self._demand, self._head, self._heads = plain.config, demand, head, heads
        self._recorder = Recorder(model, demand)
        self._options = forward_options(model)
        self._parameters = list(model.parameters())
        model.add_module(NAME, heads)
        keys = {f"{NAME}.{key}" for key in heads.state_dict()}
        model._keys_to_ignore_on_save = set(model._keys_to_ignore_on_save or ()) | keys
        model.register_forward_hook(self._publish)

    def parameters(self) -> list[nn.Parameter]:
        """The student's own, without what is learnt beside it."""
        return self._parameters

    def inputs(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What the student is given of a batch: never the labels, since the loss is ours."""
        named = set(self.columns).difference(self._head.label_names)
        return {name: value for name, value in batch.items() if name in named} | self._options

    def show(
        self, model: nn.Module, batch: Mapping[str, Any], targets: Targets, taught: Signals
    ) -> tuple[dict[str, Any], Signals, Learnt]:
        """Run the student: its outputs, its signals, and what is learnt of them.

        Args:
            model: The student, as it was wrapped or compiled.
            batch: The inputs.
            targets: Which rows count.
            taught: What the teacher shows of the same batch: critics read it.
        """
        self._taught = taught
        self._recorder.arm()
        outputs = model(**self.inputs(batch))
        features = outputs.pop(_FEATURES)
        logits = self._head.logits(outputs, targets) if self._demand.logits else None
        said = targets.said()
        shown = signals(features, self._demand, self._config, logits=logits, **said)
        return outputs, shown, self._heads.learnt(features)

    def _publish(self, model: nn.Module, args: Any, outputs: Any) -> Any:
        if not self._recorder.armed:
            return outputs
        features = self._heads(self._recorder.take(), self._taught)
        # What the loss does not read is detached: DDP would wait for gradients that never come.
        shown = {
            name: value if self._demand.logits or not isinstance(value, Tensor) else value.detach()
            for name, value in outputs.items()
        }
        return {**shown, _FEATURES: features}
