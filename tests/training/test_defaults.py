"""With nothing else said, every head gets a mixture that suits it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForLanguageModeling

from hf_distill.signals.head import head_of
from hf_distill.training.requests import has_labels
from tests import tiny
from tests.training.runs import (
    CAUSAL,
    HEADLESS,
    MASKED,
    OFFERED,
    SEQ2SEQ,
    SEQUENCE,
    SPAN,
    TOKEN,
    examples,
    logged,
    student,
    teacher,
    terms,
    trainer,
)

CLASSIFIED = {"hidden", "kl", "task"}


@pytest.mark.parametrize(("family", "head"), OFFERED)
def test_every_family_and_head_trains(family: str, head: str, tmp_path: Path) -> None:
    """A family whose forward names or shapes something else fails here, or learns nothing."""
    models = {"model": student(head, family), "teacher": teacher(head, family)}
    run = trainer(tmp_path, head, **models, gradient_accumulation_steps=2)
    before = {name: weight.clone() for name, weight in run.model.state_dict().items()}
    run.train()
    expected = {"hidden", "similarity"} if head == HEADLESS else CLASSIFIED
    assert terms(run) == expected
    for number, total in enumerate(logged(run)):
        parts = {name: logged(run, f"loss_{name}")[number] for name in expected}
        assert all(0 < part < 1000 for part in parts.values())
        weighted = sum(run.mixture.terms[name].weight * part for name, part in parts.items())
        assert total == pytest.approx(weighted, rel=1e-4)
    assert any(not torch.equal(w, before[n]) for n, w in run.model.state_dict().items())


@pytest.mark.parametrize("head", [SEQUENCE, TOKEN, SPAN, MASKED, CAUSAL, SEQ2SEQ])
def test_unlabelled_data_has_no_task_term(head: str, tmp_path: Path) -> None:
    """A task term without labels is 0 in the logs, or an error in the first step."""
    run = trainer(tmp_path, head, labelled=False)
    run.train()
    assert terms(run) == {"hidden", "kl"}


def test_a_teacher_of_another_head_shows_hidden_states_only(tmp_path: Path) -> None:
    """Its logits have another meaning, whatever their shape."""
    run = trainer(tmp_path, teacher=teacher(TOKEN))
    run.train()
    assert terms(run) == {"hidden", "task"}


@pytest.mark.parametrize(("width", "weight"), [(48, 10.0), (32, 1.0)], ids=["equal", "projected"])
def test_hidden_states_pull_harder_where_they_are_compared_as_they_are(
    width: int, weight: float, tmp_path: Path
) -> None:
    """Through a projection that is still random, a heavy term costs a small student its score."""
    run = trainer(tmp_path, model=student(hidden_size=width))
    assert run.mixture.terms["hidden"].weight == weight


def test_a_collator_that_masks_makes_labels(tmp_path: Path) -> None:
    """Masked language modelling has no label column: its task term would be left out."""
    head = head_of(student(MASKED))
    unlabelled = examples(2, MASKED, labelled=False)
    assert has_labels(unlabelled, head, DataCollatorForLanguageModeling(tiny.tokenizer()))
    assert not has_labels(unlabelled, head)


def test_labels_are_found_under_the_names_that_the_trainer_knows() -> None:
    """The Trainer renames `label` to `labels` in its collator, after we looked."""
    head = head_of(student())
    for name in ("label", "labels", "label_ids"):
        assert has_labels(Dataset.from_dict({name: [0, 1]}), head)
        assert has_labels([{name: 0}], head)
    assert not has_labels(Dataset.from_dict({"text": ["a"]}), head)
    assert has_labels(iter([]), head)
