"""A teacher that is another adapter of the student's own model: one base, held once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from hf_distill.signals.head import Head
from hf_distill.signals.signals import Demand
from hf_distill.teacher.live import LiveTeacher


@dataclass(frozen=True)
class Adapter:
    """A teacher that shares its base with the student, a `peft.PeftModel` of several adapters.

    The student is the model with its active adapter. The teacher is the same model with another
    adapter, or the bare base; heads that PEFT trains beside an adapter (`modules_to_save`) go with
    that adapter. Nothing is loaded twice. Neither the base nor the teacher's adapter may be
    trainable: the teacher would change with the student.

    Args:
        name: The teacher's adapter; None for the base without any.

    Example:
        >>> student.load_adapter("expert", adapter_name="expert")  # a PeftModel; "default" learns
        >>> trainer = DistillationTrainer(student, args, teacher=Adapter("expert"))
    """

    name: str | None


class AdapterTeacher(LiveTeacher):
    """Shows the signals of the student's own model while another adapter is active.

    After each batch the model is as it was: active adapters, training modes, and also after an
    error. What requires gradients is never touched.
    """

    def __init__(self, model: nn.Module, demand: Demand, head: Head, adapter: Adapter) -> None:
        """As `LiveTeacher`, but nothing is frozen or moved: the model is the student's.

        Args:
            model: The student, a PEFT model.
            demand: What the objectives need of the teacher.
            head: The student's head.
            adapter: The teacher.
        """
        self._student, self._adapter = model, adapter
        super().__init__(model, demand, head)

    def _frozen(self, model: nn.Module) -> nn.Module:
        return model

    @contextmanager
    def _speaking(self) -> Iterator[nn.Module]:
        # What is run may have modules of its own beside those that it shares with the student.
        with switched(self._student, self._adapter), super()._speaking() as model:
            yield model


@contextmanager
def switched(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Let an adapter speak for a PEFT model, in eval mode; afterwards all is as it was before.

    PEFT's own `set_adapter` and `disable_adapter` change what requires gradients, and may not bring
    it back as it was. So the two fields by which its layers choose are set, and nothing else.
    """
    modes = [(part, part.training) for part in model.modules()]
    layers = _adapted(model)
    before = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = adapter.name is None
            if adapter.name is not None:
                layer._active_adapter = [adapter.name]
        model.eval()
        yield
    finally:
        for layer, active, disabled in before:
            layer._active_adapter, layer._disable_adapters = active, disabled
        for part, mode in modes:
            part.training = mode


@contextmanager
def without_adapters(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Let a PEFT model save all of its adapters but these."""
    kept = [name for name in model.peft_config if name not in names]
    model.save_pretrained = partial(model.save_pretrained, selected_adapters=kept)
    try:
        yield
    finally:
        del model.save_pretrained


def is_adapted(model: Any) -> bool:
    """Whether it is a PEFT model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def silent_adapters(model: Any, speaking: Sequence[str] | None = None) -> set[str]:
    """The adapters that a model holds beside those that speak: the active ones, or those named."""
    if not is_adapted(model):
        return set()
    return set(model.peft_config).difference(
        model.active_adapters if speaking is None else speaking
    )


def check_adapted(student: Any) -> None:
    """Check that a PEFT model can be a student.

    Raises:
        ValueError: With a remedy.
    """
    if len(student.active_adapters) != 1:
        raise ValueError(
            f"student must have one active adapter, got {student.active_adapters}. Choose one with "
            "set_adapter()."
        )
    for name, config in student.peft_config.items():
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ValueError(
                "adapters must leave the tokens as they are (such as LoRA), got "
                f"{name!r} of type {config.peft_type.value}, whose virtual tokens answer to none "
                "of the teacher's. Take another type."
            )


def check_adapter(student: Any, adapter: Adapter) -> None:
    """Check that an adapter of the student's can teach it.

    Raises:
        ValueError: With a remedy.
    """
    if not is_adapted(student):
        raise ValueError(
            "teacher must be a model or a path where the student has no adapters, got "
            f"{adapter!r} for {type(student).__name__}. Wrap the student with peft.get_peft_model, "
            "and load the teacher's adapter into it."
        )
    learning = student.active_adapters
    others = sorted(silent_adapters(student))
    if adapter.name is not None and adapter.name not in others:
        raise ValueError(
            f"name of Adapter must be one of {[*others, None]}, got {adapter.name!r}. The student "
            f"learns with {learning}; load the teacher's beside it: "
            "load_adapter(path, adapter_name=...)."
        )
    shared = [
        name
        for name, parameter in student.get_base_model().named_parameters()
        if parameter.requires_grad and not set(name.split(".")).intersection(learning)
    ]
    if shared:
        raise ValueError(
            f"trainable weights must be of the student's adapter {learning} alone, got "
            f"{shared[0]} and {len(shared) - 1} more: the teacher would change with the student. "
            "Freeze biases and base, or load the teacher as a model of its own."
        )
    if any(part.merged_adapters for part in _adapted(student)):
        raise ValueError(
            f"adapters must not be merged beside {adapter!r}, got a base with an adapter merged "
            "into it. Call unmerge_adapter() on the student."
        )


def _adapted(model: nn.Module) -> list[Any]:
    """The modules that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    kinds = BaseTunerLayer, AuxiliaryTrainingWrapper
    return [part for part in model.modules() if isinstance(part, kinds)]
