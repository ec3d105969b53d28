"""What sequences are classified for: classes, several at once, numbers; one text, or two."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

from hf_distill.objectives import KLDivergence, LogitMSE, SigmoidKL
from tests.training.runs import (
    OFFERED,
    SEQUENCE,
    Example,
    calls,
    collate,
    examples,
    logged,
    student,
    teacher,
    terms,
    trainer,
)

CLASSIFIERS = [family for family, head in OFFERED if head == SEQUENCE]
CLASSIFIED = {"hidden", "kl", "task"}


def labelled(problem: str) -> list[Example]:
    """Eight examples with labels for a problem."""
    data = examples(8)
    for one in data:
        if problem == "multi-label":
            one["labels"] = F.one_hot(one["labels"], 3).float()
        if problem == "one number":
            one["labels"] = one["labels"].float()
        if problem == "several numbers":
            one["labels"] = torch.tensor([0.5, -1.0, 2.0]) * one["labels"]
    return data


@pytest.mark.parametrize(
    ("problem", "changes", "objective", "expected"),
    [
        ("classes", {}, KLDivergence, CLASSIFIED),
        ("multi-label", {"problem_type": "multi_label_classification"}, SigmoidKL, CLASSIFIED),
        ("one number", {"num_labels": 1}, LogitMSE, {"hidden", "mse", "task"}),
        ("several numbers", {"problem_type": "regression"}, LogitMSE, {"hidden", "mse", "task"}),
    ],
    ids=["classes", "multi-label", "one number", "several numbers"],
)
@pytest.mark.parametrize("family", CLASSIFIERS)
def test_the_problem_decides(
    family: str,
    problem: str,
    changes: dict[str, Any],
    objective: type,
    expected: set[str],
    tmp_path: Path,
) -> None:
    """Softmax over independent labels, or over one number, is constant 1: nothing is learnt."""
    data = labelled(problem)
    models = {
        "model": student(SEQUENCE, family, **changes),
        "teacher": teacher(SEQUENCE, family, **changes),
    }
    with torch.no_grad():
        own = models["model"](**collate(data)).loss.item()
    arguments = {"per_device_train_batch_size": 8, "max_steps": 1}
    run = trainer(tmp_path, **models, train_dataset=data, **arguments)
    run.train()
    assert terms(run) == expected
    assert objective in [type(term.objective) for term in run.mixture.terms.values()]
    # The model's own class, which was given these labels, says what the task is.
    assert logged(run, "loss_task") == [pytest.approx(own, rel=1e-4)]
    assert all(logged(run, f"loss_{name}")[0] > 0 for name in expected)


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_pairs_of_texts_reach_both(family: str, tmp_path: Path) -> None:
    """Segments that only one side gets: the other takes the hypothesis for the premise."""
    rows: list[dict[str, Any]] = []
    for one in examples(8):
        length = len(one["input_ids"])
        plain = {name: column.tolist() for name, column in one.items()}
        rows.append({**plain, "token_type_ids": [0] * (length // 2) + [1] * (length - length // 2)})
    sides = {"model": student(SEQUENCE, family), "teacher": teacher()}
    seen = {name: calls(model) for name, model in sides.items()}
    trainer(tmp_path, **sides, train_dataset=Dataset.from_list(rows)).train()
    for name, model in sides.items():
        names = "token_type_ids" in inspect.signature(model.forward).parameters
        for given in seen[name]:
            assert ("token_type_ids" in given) == names
            assert not names or given["token_type_ids"].any()
    assert all("token_type_ids" in given for given in seen["teacher"])
