"""However a step is cut into batches, its gradient is that of one big batch."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hf_distill.objectives import CrossEntropy, HiddenMSE, KLDivergence
from hf_distill.training.heads import NAME, DistillationHeads
from tests.equivalence.cases import CASES, EXAMPLES, Case, Step, comparable, first_step
from tests.equivalence.launching import launched
from tests.equivalence.worker import CUTS, RESUMES, learning
from tests.training.runs import (
    SEQUENCE,
    collate,
    examples,
    logged,
    relative_error,
    student,
    teacher,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Step]:
    """The step of a case as one batch in one process."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def step(name: str) -> Step:
        return first_step(CASES[name], folder, EXAMPLES, 1)

    return step


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two processes wrote to, started once."""
    return launched("tests.equivalence.worker", tmp_path_factory.mktemp("processes"))


def test_gradient_is_the_one_written_by_hand(tmp_path: Path) -> None:
    """Everything below compares the trainer with itself: a wrong formula would be wrong alike."""
    terms = {
        "kl": (0.5, KLDivergence(3.0)),
        "task": (2.0, CrossEntropy()),
        "hidden": (0.25, HiddenMSE()),
    }
    step = first_step(Case(SEQUENCE, terms), tmp_path, EXAMPLES, 1)

    model, batch = student(), collate(examples(EXAMPLES))
    labels = batch.pop("labels")
    with torch.no_grad():
        taught = teacher()(**batch, output_hidden_states=True)
    out = model(**batch, output_hidden_states=True)
    soft, target = ((each.logits / 3.0).log_softmax(-1) for each in (out, taught))
    kl = F.kl_div(soft, target, log_target=True, reduction="batchmean") * 9.0
    hidden = torch.zeros(())
    real = batch["attention_mask"].bool()
    projections = DistillationHeads(frozenset({0, 1, 2}), 32, 48, seed=42).projections
    for mine, theirs in ((0, 0), (1, 2), (2, 4)):
        projected = projections[str(mine)](out.hidden_states[mine])
        hidden = hidden + F.mse_loss(projected[real], taught.hidden_states[theirs][real]) / 3
    task = F.cross_entropy(out.logits, labels)
    (0.5 * kl + 2.0 * task + 0.25 * hidden).backward()

    model.add_module(NAME, torch.nn.ModuleDict({"projections": projections}))
    expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert step.gradients.keys() == expected.keys()
    assert relative_error(step.gradients, expected) <= TOLERANCE
    by_hand = {"loss_kl": kl.item(), "loss_task": task.item(), "loss_hidden": hidden.item()}
    by_hand["loss"] = 0.5 * kl.item() + 2.0 * task.item() + 0.25 * hidden.item()
    assert step.losses == pytest.approx(by_hand, rel=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.accumulates])
def test_accumulated_gradients_are_those_of_one_batch(
    name: str, whole: Callable[[str], Step], tmp_path: Path
) -> None:
    """The Trainer leaves normalisation to the model here: 4 times the gradient, no warning."""
    parts = first_step(CASES[name], tmp_path, EXAMPLES // 4, 4)
    assert relative_error(parts.gradients, whole(name).gradients) <= TOLERANCE
    assert parts.losses == pytest.approx(whole(name).losses, rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "name"),
    [
        (cut, name)
        for cut, name in product(CUTS, CASES)
        if comparable(CASES[name], accumulation=CUTS[cut])
    ],
)
def test_gradients_of_two_processes_are_those_of_one(
    cut: str, name: str, whole: Callable[[str], Step], processes: Path
) -> None:
    """DDP averages, uneven counts differ per process, unused heads crash or stay behind."""
    losses = json.loads((processes / "losses.json").read_text())
    assert losses["processes"] == 2
    key = f"{cut}: {name}"
    stored = load_file(processes / "gradients.safetensors")
    found = {n.split("/")[1]: g for n, g in stored.items() if n.startswith(f"{key}/")}
    assert relative_error(found, whole(name).gradients) <= TOLERANCE
    assert losses[key] == pytest.approx(whole(name).losses, rel=TOLERANCE)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(processes: Path, tmp_path: Path) -> None:
    """Projections outside DDP drift apart, one set per process, and only one of them is saved."""
    ours, others = (load_file(processes / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert any(NAME in name for name in ours)
    for name, weight in ours.items():
        torch.testing.assert_close(weight, others[name], rtol=0, atol=0)
    run = learning(tmp_path, per_device_train_batch_size=4)
    run.train()
    assert relative_error(ours, dict(run.model.state_dict())) <= 1e-4
    seen = json.loads((processes / "losses.json").read_text())["learning"]
    assert seen["loss"] == pytest.approx(logged(run), rel=1e-4)
    assert seen["grad_norm"] == pytest.approx(logged(run, "grad_norm"), rel=1e-4)


@pytest.mark.slow
def test_padding_is_that_of_both_processes(processes: Path) -> None:
    """Each process pads its own part: the first one's share is not that of the step."""
    ours, others = (json.loads((processes / f"given-{rank}.json").read_text()) for rank in (0, 1))
    assert ours != others
    shares = []
    for (real, given), (more, further) in zip(ours, others, strict=True):
        shares.append(1 - (real + more) / (given + further))
    seen = json.loads((processes / "losses.json").read_text())["learning"]
    assert seen["padding_fraction"] == pytest.approx(shares)


@pytest.mark.slow
@pytest.mark.skipif(not RESUMES, reason="this transformers cannot resume on several CPUs")
def test_two_processes_resume_exactly(processes: Path) -> None:
    """Only rank 0 writes: what the others do not read back differs from the second step on."""
    for rank in (0, 1):
        weights = load_file(processes / f"weights-{rank}.safetensors")
        for name, weight in load_file(processes / f"resumed-{rank}.safetensors").items():
            torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)
