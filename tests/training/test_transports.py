"""The earth mover's mapping inside a training: weights from costs, renewed, kept, resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_distill.mapping import emd, flow
from hf_distill.objectives import HiddenMSE, KLDivergence, MIAlpha, MiniLMv2
from hf_distill.training.heads import FILE, NAME
from tests.training.runs import logged, student, trainer

HIDDEN = {"hidden": (1.0, HiddenMSE())}


def plan_of(run: Any) -> torch.Tensor:
    return run.model.get_buffer(f"{NAME}.transports.plan_0")


def test_loss_is_the_cost_of_the_best_plan(tmp_path: Path) -> None:
    """Uniform weights, or a plan transposed, give a loss too: dearer than the best."""
    model = {"hidden_size": 48}  # The teacher's width: no projections, so all runs start alike.
    costs = np.zeros((2, 4))
    for mine, theirs in emd(2, 4):
        run = trainer(
            tmp_path,
            model=student(**model),
            objectives=HIDDEN,
            layer_mapping=[(mine, theirs)],
            max_steps=1,
        )
        run.train()
        costs[mine - 1, theirs - 1] = logged(run, "loss_hidden")[0]
    run = trainer(
        tmp_path, model=student(**model), objectives=HIDDEN, layer_mapping="emd", max_steps=1
    )
    run.train()
    best = flow(costs)
    assert logged(run, "loss_hidden")[0] == pytest.approx((best * costs).sum(), rel=1e-5)
    torch.testing.assert_close(plan_of(run).numpy(), best.astype(np.float32))
    assert logged(run, "layer_hidden_1")[0] == pytest.approx((best[0] @ [1, 2, 3, 4]) * 2)


def test_plan_is_renewed_every_n_steps_only(tmp_path: Path) -> None:
    """A plan of the first step for ever is a random mapping; one of every step is slow."""
    run = trainer(tmp_path, objectives=HIDDEN, layer_mapping="emd-3", max_steps=7)
    run.train()
    found = [entry["step"] for entry in run.state.log_history if "layer_hidden_1" in entry]
    assert found == [1, 4, 7]


@pytest.mark.parametrize(
    "objective",
    [MIAlpha(critic={"hidden": 8, "width": 4}), MiniLMv2(relation_heads=4)],
    ids=["critic", "relations"],
)
def test_other_objectives_can_be_transported(tmp_path: Path, objective: Any) -> None:
    """A published library accepts the mapping for some losses and leaves the term out silently."""
    objectives = {"other": (1.0, objective), "kl": (1.0, KLDivergence())}
    run = trainer(tmp_path, objectives=objectives, layer_mapping="emd-2", max_steps=3)
    run.train()
    assert plan_of(run).sum().item() == pytest.approx(1.0)
    assert all(logged(run, "loss_other"))


def test_plan_is_kept_over_a_restart(tmp_path: Path) -> None:
    """A plan found anew at the restart is another than the one that was due."""

    def run() -> Any:
        return trainer(
            tmp_path,
            objectives=HIDDEN,
            layer_mapping="emd-4",
            max_steps=6,
            learning_rate=1e-2,
            count=24,
            save_strategy="steps",
            save_steps=3,
        )

    whole = run()
    whole.train()
    saved = load_file(tmp_path / "checkpoint-3" / FILE)
    assert saved["transports.plan_0"].any()
    resumed = run()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, whole.model.state_dict()[name]), name


def test_micro_batches_of_a_step_share_a_plan(tmp_path: Path) -> None:
    """A plan for each micro-batch would make accumulation another training."""
    run = trainer(
        tmp_path,
        objectives=HIDDEN,
        layer_mapping="emd-1",
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    calls = []
    renew = run._heads.transports.renew
    run._heads.transports.renew = lambda *args: calls.append(args[0]) or renew(*args)
    run.train()
    assert calls == [0]


def test_a_card_says_that_pairs_are_weighed(tmp_path: Path) -> None:
    """All pairs, listed as if they counted alike, tell another training than the one that was."""
    run = trainer(tmp_path, objectives=HIDDEN, layer_mapping="emd-7")
    run.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "all, by the earth mover's plan, anew every 7 steps" in card
    assert "1 → 4" not in card
