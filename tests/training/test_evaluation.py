"""Evaluation is the Trainer's: the task loss, the student's plain outputs, no teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import EvalPrediction

from hf_distill.objectives import HiddenMSE, KLDivergence
from tests.training.runs import (
    CAUSAL,
    HEADS,
    MASKED,
    SEQ2SEQ,
    SEQUENCE,
    SPAN,
    TOKEN,
    collate,
    examples,
    student,
    trainer,
)

COUNT, BATCH = 10, 4
"""The last batch is a small one."""
HIDDEN = {"hidden": (1.0, HiddenMSE())}
KL = {"kl": (1.0, KLDivergence())}


class Computed:
    """A compute_metrics that keeps what it was given."""

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        self.predictions, self.labels = prediction.predictions, prediction.label_ids
        return {"seen": 1.0}


def evaluating(folder: Path, head: str = SEQUENCE, **given: Any) -> Any:
    """A trainer whose teacher must not run."""
    labelled = given.pop("labelled", True)
    data = examples(COUNT, head, labelled=labelled)
    run = trainer(folder, head, eval_dataset=data, per_device_eval_batch_size=BATCH, **given)

    def show(*_: Any) -> None:
        raise AssertionError("the teacher must not run in evaluation.")

    run.teacher.show = show
    return run


def batches(head: str) -> list[dict[str, torch.Tensor]]:
    data = examples(COUNT, head)
    return [collate(data[start : start + BATCH]) for start in range(0, COUNT, BATCH)]


def by_hand(model: Any, head: str) -> float:
    """The mean of what the model's own class computes from labels, in its own way."""
    with torch.no_grad():
        losses = [(model(**batch).loss.item(), len(batch["labels"])) for batch in batches(head)]
    return sum(loss * size for loss, size in losses) / COUNT


@pytest.mark.parametrize("head", [SEQUENCE, TOKEN, MASKED, CAUSAL])
def test_eval_loss_is_the_models_own(head: str, tmp_path: Path) -> None:
    """An eval_loss with distillation terms in it picks the wrong checkpoint."""
    run = evaluating(tmp_path, head, compute_metrics=(computed := Computed()))
    found = run.evaluate()
    assert found["eval_loss"] == pytest.approx(by_hand(run.model, head), rel=1e-5)
    assert found["eval_seen"] == 1.0
    assert not any(name.startswith("eval_loss_") for name in found)
    longest = max(len(one["input_ids"]) for one in examples(COUNT, head))
    tokens = (COUNT, longest, 60)
    shapes = {SEQUENCE: (COUNT, 3), TOKEN: (COUNT, longest, 3), MASKED: tokens, CAUSAL: tokens}
    assert computed.predictions.shape == shapes[head]
    assert computed.labels.shape == shapes[head][:-1]


@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_eval_loss_of_a_decoder_is_the_models_own(family: str, tmp_path: Path) -> None:
    """Evaluated on labels that the decoder was not given, or given unshifted: 0, or any number."""
    given = {"model": student(SEQ2SEQ, family), "teacher": student(SEQ2SEQ, family, seed=2)}
    run = evaluating(tmp_path, SEQ2SEQ, **given, compute_metrics=(computed := Computed()))
    expected = by_hand(run.model, SEQ2SEQ)
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    # As from the Trainer: the logits, and the encoder's last states.
    logits, states = computed.predictions
    assert logits.shape == (*computed.labels.shape, 60)
    assert states.shape[-1] == 32


def test_span_predictions_are_start_and_end(tmp_path: Path) -> None:
    """Features that slip into the outputs are gathered as predictions, and memory runs out."""
    run = evaluating(tmp_path, SPAN, compute_metrics=(computed := Computed()))
    found = run.evaluate()
    start, end = computed.predictions
    assert start.shape == end.shape
    assert len(start) == COUNT
    expected = 0.0
    for batch in batches(SPAN):
        real = batch["attention_mask"].bool()
        golds = [batch.pop(name) for name in ("start_positions", "end_positions")]
        with torch.no_grad():
            outputs = run.model(**batch)
        for logits, gold in zip((outputs.start_logits, outputs.end_logits), golds, strict=True):
            masked = logits.masked_fill(~real, -torch.inf)
            expected += float(F.cross_entropy(masked, gold, reduction="sum")) / 2 / COUNT
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"num_labels": 1}, lambda logits, labels: F.mse_loss(logits[:, 0], labels.float())),
        (
            {"problem_type": "multi_label_classification"},
            lambda logits, labels: F.binary_cross_entropy_with_logits(logits, labels.float()),
        ),
    ],
    ids=["regression", "multi-label"],
)
def test_eval_loss_of_other_problems(changes: dict[str, Any], loss: Any, tmp_path: Path) -> None:
    """Cross-entropy on numbers, or on several labels, is a number too."""
    data = examples(COUNT)
    if "problem_type" in changes:
        for one in data:
            one["labels"] = F.one_hot(one["labels"], 3).float()
    models = {"model": student(**changes), "teacher": student(seed=2, **changes)}
    run = trainer(tmp_path, eval_dataset=data, **models)
    batch = collate(data)
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = loss(run.model(**batch).logits, labels)
    assert run.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-5)


def test_label_smoothing_is_in_the_default_task_loss(tmp_path: Path) -> None:
    """The argument is read by the Trainer's own loss, which does not run here."""
    run = evaluating(tmp_path, label_smoothing_factor=0.2)
    losses = []
    for batch in batches(SEQUENCE):
        labels = batch.pop("labels")
        with torch.no_grad():
            logits = run.model(**batch).logits
        losses.append(F.cross_entropy(logits, labels, label_smoothing=0.2, reduction="sum"))
    expected = float(sum(losses)) / COUNT
    assert run.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert run.mixture.terms["task"].objective.label_smoothing == 0.2


@pytest.mark.parametrize("objectives", [HIDDEN, KL], ids=["hidden", "kl"])
def test_the_task_loss_is_evaluated_whatever_is_trained(objectives: Any, tmp_path: Path) -> None:
    """Without a term on labels there is still a task, and a best checkpoint to find."""
    run = evaluating(tmp_path, objectives=objectives)
    plain = evaluating(tmp_path).evaluate()
    assert run.evaluate()["eval_loss"] == pytest.approx(plain["eval_loss"])


@pytest.mark.parametrize("head", HEADS)
def test_unlabelled_data_is_evaluated_without_a_loss(head: str, tmp_path: Path) -> None:
    """A transfer set has no labels: predictions, and no made-up loss."""
    run = evaluating(tmp_path, head, labelled=False)
    assert "eval_loss" not in run.evaluate()
    plain = run.predict(run.eval_dataset)
    assert plain.label_ids is None
    first = plain.predictions if isinstance(plain.predictions, np.ndarray) else plain.predictions[0]
    assert len(first) == COUNT


def test_predictions_are_the_students(tmp_path: Path) -> None:
    """The same numbers as `model(batch)`, in the order of the dataset."""
    run = evaluating(tmp_path)
    found = run.predict(run.eval_dataset)
    batch = collate(examples(COUNT))
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = run.model(**batch).logits
    np.testing.assert_allclose(found.predictions, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert found.label_ids.tolist() == labels.tolist()


def test_evaluation_during_training_changes_nothing(tmp_path: Path) -> None:
    """Evaluation between steps that leaves the student in eval mode, or its counts behind."""
    every = {"eval_strategy": "steps", "eval_steps": 1}
    runs = [trainer(tmp_path, eval_dataset=examples(COUNT), **options) for options in (every, {})]
    for run in runs:
        run.train()
    weights, plain = (run.model.state_dict() for run in runs)
    for name, weight in weights.items():
        assert torch.equal(weight, plain[name]), name


def test_evaluation_before_training_runs_in_autocast(tmp_path: Path) -> None:
    """A teacher that accelerate counts makes it take the student for prepared: float32, slow."""
    run = evaluating(tmp_path, bf16=True)
    seen: list[torch.dtype] = []
    run.model.classifier.register_forward_hook(lambda *shown: seen.append(shown[-1].dtype))
    run.evaluate()
    assert set(seen) == {torch.bfloat16}
