"""A run that was stopped and resumed is the run that was not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill import DistillationTrainer
from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.training.heads import FILE, NAME
from hf_distill.training.resuming import LENGTH_GROUPED
from tests.training.runs import SEQUENCE, logged, student, trainer

SAMPLING: dict[str, dict[str, Any]] = {"random": {}, "grouped by length": LENGTH_GROUPED}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
CUTS = {"inside an epoch": 2, "at the end of an epoch": 4, "inside epoch 1": 6}
"""An epoch is 7 batches: 4 steps, the last of one batch only."""


def ragged(folder: Path, sampling: str, seed: int = 1, **given: Any) -> tuple[Any, list[Any]]:
    """A trainer over two epochs, and the batches that its student will have seen."""
    model = student(SEQUENCE, seed=seed, **DROPOUT)
    seen: list[Any] = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs["input_ids"].tolist()), with_kwargs=True
    )
    run = trainer(
        folder,
        count=14,
        model=model,
        objectives={"kl": (1.0, KLDivergence()), "hidden": (1.0, HiddenMSE())},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=-1,
        num_train_epochs=2,
        max_grad_norm=1.0,
        warmup_steps=3,
        save_strategy="steps",
        save_steps=1,
        **SAMPLING[sampling],
        **given,
    )
    return run, seen


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    @cache
    def run(sampling: str) -> tuple[DistillationTrainer, list[Any]]:
        made, seen = ragged(tmp_path_factory.mktemp("whole"), sampling)
        made.train()
        return made, seen

    return run


def losses(run: DistillationTrainer, after: int) -> list[dict[str, float]]:
    """What was logged of each step after a number of steps, except times."""
    steps = [entry for entry in run.state.log_history if "loss" in entry]
    return [entry for entry in steps if entry["step"] > after]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("sampling", SAMPLING)
def test_resumed_runs_are_bit_equal(
    sampling: str, cut: str, uninterrupted: Callable[[str], Any], tmp_path: Path
) -> None:
    """Projections drawn anew, other batches, terms divided by the wrong steps: a run that jumps."""
    whole, seen = uninterrupted(sampling)
    assert whole.state.global_step == 8
    step = CUTS[cut]
    resumed, seen_again = ragged(tmp_path, sampling, seed=5)
    with torch.no_grad():
        for weight in resumed.model.get_submodule(NAME).parameters():
            weight.add_(1.0)
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / f"checkpoint-{step}"))
    batches = step * 2 - (step >= 4)
    assert seen_again == seen[batches:]
    assert losses(resumed, step) == losses(whole, step)
    expected = whole.model.state_dict()
    assert any(NAME in name for name in expected)
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_length_grouping_draws_every_epoch_anew(uninterrupted: Callable[[str], Any]) -> None:
    """An order that is a function of the seed alone repeats the same batches in every epoch."""
    _, seen = uninterrupted("grouped by length")
    first, second = seen[:7], seen[7:]
    assert first != second
    rows = [sorted(tuple(row) for batch in epoch for row in batch) for epoch in (first, second)]
    assert len(rows[0]) == len(rows[1]) == 14


def test_terms_are_means_over_their_own_steps(tmp_path: Path) -> None:
    """Divided by all steps so far, a term shrinks after a resume, and a second train() has none."""
    objectives = {"kl": (1.0, KLDivergence())}
    run = trainer(tmp_path, objectives=objectives, logging_steps=2, max_steps=3)
    for _ in range(2):
        run.train()
        assert logged(run, "loss_kl") == pytest.approx(logged(run))
        assert len(logged(run)) == 1


def test_checkpoints_without_projections_are_refused(tmp_path: Path) -> None:
    """Resuming with fresh projections trains on, from a loss that nobody expects."""
    run, _ = ragged(tmp_path, "random")
    run.train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"checkpoint must hold {FILE}"):
        ragged(tmp_path, "random")[0].train(resume_from_checkpoint=str(checkpoint))
