"""What is told of each term: its mean, its pull on the student, and when it is lost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hf_distill.objectives import CrossEntropy, HiddenMSE, InfoNCE, KLDivergence
from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals.signals import Signals, Unit
from hf_distill.training.heads import NAME
from hf_distill.training.terms import VANISHED_STEPS
from tests.training.runs import Gradients, checkpointing, logged, trainer

MIXED = {"kl": (0.5, KLDivergence()), "hidden": (2.0, HiddenMSE()), "task": (1.0, CrossEntropy())}


@dataclass(frozen=True)
class Broken(Objective):
    """Gives a number until `after` calls were made, then none."""

    after: int = 2

    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    unit: ClassVar[Unit] = "sequence"
    calls: ClassVar[list[int]] = []

    def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
        self.calls.append(1)
        assert student.logits is not None
        factor = float("nan") if len(self.calls) > self.after else 1.0
        return student.logits.square().sum(-1) * factor


def own(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for name, g in gradients.items() if NAME not in name]).norm()


@pytest.mark.parametrize("options", [{}, checkpointing()], ids=["plain", "checkpointed"])
def test_gradient_norm_is_that_of_the_weighted_term(tmp_path: Path, options: Any) -> None:
    """A norm without the weight, or with the projections, names the wrong term as the ruler."""
    run = trainer(tmp_path, objectives=MIXED, log_gradient_norms=True, max_steps=1, **options)
    run.train()
    for name, term in MIXED.items():
        alone = Gradients()
        trainer(tmp_path, objectives={name: term}, callbacks=[alone], max_steps=1).train()
        found = logged(run, f"gradient_norm_{name}")[0]
        assert found == pytest.approx(own(alone.steps[0]).item(), rel=1e-4)


def test_gradient_norms_change_no_training(tmp_path: Path) -> None:
    """A measurement that leaves gradients behind, or draws dropout anew, trains another student."""
    weights = []
    for norms in (False, True):
        run = trainer(tmp_path, objectives=MIXED, log_gradient_norms=norms, logging_steps=2)
        run.train()
        weights.append(run.model.state_dict())
        assert bool(logged(run, "gradient_norm_kl")) == norms
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


class Reads(TorchDispatchMode):
    """Counts how often a tensor's number is read: each time, an accelerator is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_more_terms_are_not_waited_for_more_often(tmp_path: Path) -> None:
    """A library that reads every term in every step stops the accelerator once for each."""
    counts = []
    for objectives in ({"kl": MIXED["kl"]}, MIXED):
        run = trainer(tmp_path, objectives=objectives, max_steps=3, logging_steps=3)
        with Reads() as reads:
            run.train()
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"logging_strategy": "epoch"}, "logging_strategy must be 'steps' with log_gradient_norms")],
)
def test_gradient_norms_that_cannot_be_measured(
    tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    """Asked for, accepted, and never logged."""
    with pytest.raises(ValueError, match=told):
        trainer(tmp_path, objectives=MIXED, log_gradient_norms=True, **arguments)


def test_a_term_that_is_no_number_is_named_before_it_is_learnt(tmp_path: Path) -> None:
    """One NaN makes all weights NaN, and the Trainer logs it as a loss of 0."""
    Broken.calls.clear()
    objectives = {"kl": (1.0, KLDivergence()), "broken": (1.0, Broken(after=2))}
    run = trainer(tmp_path, objectives=objectives, max_steps=4, save_strategy="steps", save_steps=1)
    with pytest.raises(FloatingPointError, match=r"got 'broken' \(nan\)"):
        run.train()
    assert all(weight.isfinite().all() for weight in run.model.state_dict().values())
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in saved.values())


def test_a_term_that_vanished_is_named(tmp_path: Path) -> None:
    """Batches of one have no negatives: the term trains nothing, and the log says 0.0 for days."""
    objectives = {"kl": (1.0, KLDivergence()), "nce": (1.0, InfoNCE())}
    run = trainer(
        tmp_path,
        objectives=objectives,
        per_device_train_batch_size=1,
        max_steps=VANISHED_STEPS + 10,
        logging_steps=10,
    )
    with pytest.raises(ValueError, match="objective 'nce' must compare something, got a loss of"):
        run.train()
    assert run.state.global_step == VANISHED_STEPS


def test_scheduled_weight_and_temperature(tmp_path: Path) -> None:
    """A schedule that is read once, at the start, is a constant with a fine name."""
    steps = 4
    scheduled = {"kl": (Schedule(1.0, 0.0), KLDivergence(Schedule(1.0, 3.0)))}
    run = trainer(tmp_path, objectives=scheduled, max_steps=steps, learning_rate=0.0)
    run.train()
    plain = {f"kl_{step}": (1.0, KLDivergence(1.0 + 2.0 * step / steps)) for step in range(steps)}
    expected = trainer(tmp_path, objectives=plain, max_steps=steps, learning_rate=0.0)
    expected.train()
    for step in range(steps):
        value = logged(expected, f"loss_kl_{step}")[step]
        assert logged(run, "loss_kl")[step] == pytest.approx(value, rel=1e-5)
        assert logged(run)[step] == pytest.approx((1 - step / steps) * value, rel=1e-3, abs=1e-4)


def test_schedules_resume_where_they_were(tmp_path: Path) -> None:
    """Progress counted from the restart would run the schedule again from its beginning."""
    objectives = {"kl": (Schedule(1.0, 0.2, "cosine"), KLDivergence())}
    arguments = {"objectives": objectives, "max_steps": 4, "save_strategy": "steps"}
    whole = trainer(tmp_path, save_steps=2, **arguments)
    whole.train()
    resumed = trainer(tmp_path, save_steps=2, **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, whole.model.state_dict()[name]), name
