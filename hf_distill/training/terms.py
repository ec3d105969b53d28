"""What is told between two logs: each term's mean, its pull, whether it lives; and the padding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from accelerate import Accelerator
from torch import Tensor, nn

VANISHED_STEPS = 100
"""A term that was exactly 0 for so many optimizer steps compares nothing."""


class TermLog:
    """Sums the unweighted terms of micro-batches and hands over their means when a log is due."""

    def __init__(self) -> None:
        """Nothing was summed yet."""
        self._zero_steps: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        """Drop what was summed and not logged."""
        self._sums: dict[str, Tensor] = {}
        self._norms: dict[str, Tensor] = {}
        self._facts: dict[str, float] = {}
        self._steps = 0
        # Numbers of tokens; a tensor is not read before the log, which would wait for a device.
        self._real: Tensor | int = 0
        self._given = 0

    def count_step(self, masks: Iterable[Tensor]) -> None:
        """One more optimizer step.

        Args:
            masks: Of each of its micro-batches, [B, T] bool: the real tokens.
        """
        self._steps += 1
        for mask in masks:
            self._real = self._real + mask.sum()
            self._given += mask.numel()

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add the terms of one micro-batch, each divided by the whole step's count."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def add_norms(self, norms: Mapping[str, Tensor]) -> None:
        """Keep gradient norms until the next log."""
        self._norms = dict(norms)

    def add_facts(self, facts: Mapping[str, float]) -> None:
        """Keep what stands in the next log as it is."""
        self._facts.update(facts)

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """What the log says of the steps since the last one; nothing is kept.

        That is `loss_<name>`, the mean over steps; `gradient_norm_<name>`; `padding_fraction`, the
        share of padding among the tokens that all processes gave the student (its encoder, where it
        has a decoder too); and facts.

        Raises:
            ValueError: A term has vanished.
        """
        if not self._sums:
            return {}
        logs = {
            f"loss_{name}": mean / self._steps
            for name, mean in _over_processes(self._sums, accelerator, "sum").items()
        }
        self._look_for_vanished(logs)
        norms = _over_processes(self._norms, accelerator, "mean") if self._norms else {}
        logs.update({f"gradient_norm_{name}": norm for name, norm in norms.items()})
        logs["padding_fraction"] = self._padding(accelerator)
        logs.update(self._facts)
        self.forget()
        return logs

    def _padding(self, accelerator: Accelerator) -> float:
        counts = torch.tensor([self._real, self._given], device=accelerator.device)
        real, given = accelerator.reduce(counts, "sum").tolist()
        return 1 - real / given

    def _look_for_vanished(self, logs: Mapping[str, float]) -> None:
        for name in self._sums:
            zero = self._zero_steps.get(name, 0) + self._steps
            self._zero_steps[name] = 0 if logs[f"loss_{name}"] else zero
        gone = [name for name, steps in self._zero_steps.items() if steps >= VANISHED_STEPS]
        if gone:
            raise ValueError(
                f"objective {gone[0]!r} must compare something, got a loss of exactly 0 in the "
                f"last {self._zero_steps[gone[0]]} steps. Its labels, tokens or negatives may be "
                "missing from the data, or student and teacher are the same: leave the term out."
            )


def check_finite(loss: Tensor, terms: Mapping[str, Tensor]) -> None:
    """Raise FloatingPointError, naming the terms, before a loss that is no number is learnt."""
    if loss.isfinite():
        return
    lost = {name: value.item() for name, value in terms.items() if not value.isfinite()}
    named = ", ".join(f"{name!r} ({value})" for name, value in lost.items()) or "their sum"
    raise FloatingPointError(
        f"every term of the loss must be a finite number, got {named}. The student still has its "
        "weights of before this step. Lower the learning rate or that term's weight, or train in "
        "bfloat16 or float32 instead of float16."
    )


def gradient_norms(
    weighted: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]
) -> dict[str, Tensor]:
    """The norm of each weighted term's gradient on the student, one more backward pass each.

    Args:
        weighted: Name -> scalar, the term's part of the loss.
        parameters: The student's, without what is learnt beside it.
    """
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, value in weighted.items():
        if not value.requires_grad:
            norms[name] = value.new_zeros(())
            continue
        gradients = torch.autograd.grad(value, learnt, retain_graph=True, allow_unused=True)
        sizes = [gradient.float().norm() for gradient in gradients if gradient is not None]
        norms[name] = torch.stack(sizes).norm() if sizes else value.new_zeros(())
    return norms


def _over_processes(
    values: Mapping[str, Tensor], accelerator: Accelerator, how: str
) -> dict[str, float]:
    together = accelerator.reduce(torch.stack(list(values.values())), how)
    return dict(zip(values, together.tolist(), strict=True))
