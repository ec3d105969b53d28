"""The card that a trainer writes says what happened, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.training import runs


@pytest.fixture
def trained(tmp_path: Path) -> runs.DistillationTrainer:
    """After two steps and an evaluation."""
    trainer = runs.trainer(tmp_path / "my-student", max_steps=2)
    trainer.train()
    trainer.evaluate(runs.examples(4))
    return trainer


def test_the_card_says_what_happened(trained: runs.DistillationTrainer, tmp_path: Path) -> None:
    """The Trainer's own card names neither teacher nor objectives, and drops the last scores."""
    trained.create_model_card(language="en", license="mit", tags="tiny")
    text = (tmp_path / "my-student" / "README.md").read_text(encoding="utf-8")
    data = ModelCard(text).data.to_dict()
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-classification"
    assert (data["language"], data["license"]) == ("en", "mit")
    assert {"knowledge-distillation", "tiny"} <= set(data["tags"])
    assert data["teacher_model"] == "BertForSequenceClassification"
    for name, term in trained.mixture.terms.items():
        assert name in text
        assert type(term.objective).__name__ in text
    assert str(tmp_path) not in text


def test_sizes_leave_out_what_is_learnt_beside_the_student(
    trained: runs.DistillationTrainer,
) -> None:
    """Projections counted among the student's parameters make it look larger than it is."""
    plain = runs.student()
    assert trained.describe().student.parameters == plain.num_parameters()


def test_what_others_measured_is_shown(trained: runs.DistillationTrainer) -> None:
    """A score beside the student's that never reaches the card leaves it without comparison."""
    scores = {"student": {"accuracy": 0.75}, "teacher": {"accuracy": 0.8}}
    trained.measured["scores"] = scores
    trained.create_model_card()
    text = Path(trained.args.output_dir, "README.md").read_text(encoding="utf-8")
    assert "0.75" in text
    assert "0.8" in text


def test_arguments_without_effect_are_refused(trained: runs.DistillationTrainer) -> None:
    """`dataset=` accepted and ignored would leave the data out of the card."""
    with pytest.raises(ValueError, match=r"must not hold \['dataset'\].*measured\['data'\]"):
        trained.create_model_card(dataset="glue")
