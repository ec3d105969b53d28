"""`compute_metrics` functions, as a Trainer calls them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import EvalPrediction, Trainer, TrainingArguments

from hf_distill.evaluation import metrics
from tests import tiny

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 4.0], [9.0, 1.0, 2.0]])
LABELS = np.array([0, 1, 2, 1])


def _given(predictions: Any, labels: Any) -> EvalPrediction:
    return EvalPrediction(predictions=predictions, label_ids=labels)


def test_classes_are_the_highest_logits() -> None:
    """Metrics over the wrong axis give numbers all the same."""
    compute = metrics.classification_metrics(("accuracy", "f1_macro", "matthews_correlation"))
    result = compute(_given(LOGITS, LABELS))
    assert list(result) == ["accuracy", "f1_macro", "matthews_correlation"]
    assert result["accuracy"] == 0.75
    assert all(type(score) is float for score in result.values())


def test_only_the_first_output_is_read() -> None:
    """Hidden states beside the logits arrive as a tuple, which numpy would try to stack."""
    compute = metrics.classification_metrics()
    assert compute(_given((LOGITS, np.zeros((4, 7))), LABELS)) == {"accuracy": 0.75}


def test_classes_that_were_chosen_already_are_taken() -> None:
    """`preprocess_logits_for_metrics` may have taken the highest; taking it again gives 0."""
    compute = metrics.classification_metrics()
    assert compute(_given(LOGITS.argmax(-1), LABELS)) == {"accuracy": 0.75}


@pytest.mark.parametrize("shape", [(4, 1), (4,)])
def test_one_output_is_not_classes(shape: tuple[int, ...]) -> None:
    """The highest of one logit is always class 0: an accuracy that means nothing."""
    with pytest.raises(ValueError, match=r"predictions must have a column per class, got shape"):
        metrics.classification_metrics()(_given(np.ones(shape), LABELS))


def test_logits_that_are_not_numbers_are_refused() -> None:
    """The highest of NaNs is class 0: a diverged model would report a plausible accuracy."""
    logits = LOGITS.copy()
    logits[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"got NaN in 1 of 4 rows\. The model has diverged"):
        metrics.classification_metrics()(_given(logits, LABELS))


@pytest.mark.parametrize("names", [(), "accuracy"])
def test_names_are_a_list(names: Any) -> None:
    """A bare string would be read letter by letter."""
    with pytest.raises(ValueError, match="names must be a list"):
        metrics.classification_metrics(names)


@pytest.mark.parametrize("shape", [(5, 1), (5,)])
def test_regression(shape: tuple[int, ...]) -> None:
    """A column against a row broadcasts to a matrix, and correlates with nothing."""
    given, gold = np.array([0.1, 0.4, 0.2, 0.9, 0.5]), np.array([0.0, 0.5, 0.1, 0.7, 0.8])
    result = metrics.regression_metrics()(_given(given.reshape(shape), gold))
    assert result["pearsonr"] == pytest.approx(stats.pearsonr(given, gold).statistic)
    assert result["spearmanr"] == pytest.approx(0.9)


def test_regression_refuses_classes() -> None:
    """Flattened class logits would be paired with other examples' labels."""
    with pytest.raises(ValueError, match="predictions must hold one number per example"):
        metrics.regression_metrics()(_given(LOGITS, LABELS))


def test_multi_label_cuts_at_the_threshold() -> None:
    """The logit of probability 0.5 is 0; a cut at logit 0.5 is another one."""
    logits = np.array([[0.3, -1.0], [2.0, -0.1]])
    labels = np.array([[1.0, 0.0], [0.0, 0.0]])
    result = metrics.multi_label_metrics()(_given(logits, labels))
    assert result == {
        "f1_micro": pytest.approx(2 / 3),
        "f1_macro": pytest.approx(1 / 3),
        "accuracy": 0.5,
    }
    stricter = metrics.multi_label_metrics(("accuracy",), threshold=0.6)
    assert stricter(_given(logits, labels)) == {"accuracy": 0.0}


@pytest.mark.parametrize("threshold", [0, 1, 1.5])
def test_threshold_is_a_probability(threshold: float) -> None:
    """A logit given for a probability would give no label, or all."""
    with pytest.raises(ValueError, match=f"threshold must be between 0 and 1, got {threshold}"):
        metrics.multi_label_metrics(threshold=threshold)


@pytest.mark.parametrize("chosen", [False, True])
def test_tagging_leaves_padding_out(chosen: bool) -> None:
    """Padding and later word pieces, counted as "O", raise the accuracy."""
    tags = ["O", "B-PER", "I-PER"]
    labels = np.array([[-100, 1, 2, 0, -100], [-100, 0, 1, -100, -100]])
    answers = np.array([[1, 1, 2, 0, 1], [0, 0, 0, 1, -100 if chosen else 0]])
    given = answers if chosen else np.eye(3)[answers]
    result = metrics.tagging_metrics(tags)(_given(given, labels))
    assert result == {
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "accuracy": pytest.approx(0.8),
    }


def test_entities_end_with_their_sentence() -> None:
    """Sentences scored as one long text join an entity at the end to the next one's beginning."""
    labels, answers = np.array([[1, 2], [2, 0]]), np.array([[1, 2], [0, 0]])
    result = metrics.tagging_metrics(["O", "B-PER", "I-PER"])(_given(np.eye(3)[answers], labels))
    assert (result["precision"], result["recall"]) == (1.0, 0.5)


def test_tagging_refuses_other_names() -> None:
    """Names of another data set would shift every tag."""
    with pytest.raises(ValueError, match=r"label_names must name all 3 classes .* got 2 names"):
        metrics.tagging_metrics(["O", "B-PER"])(_given(np.zeros((1, 2, 3)), np.zeros((1, 2), int)))


def test_spans_are_scored_as_squad() -> None:
    """Scores of features instead of examples count long contexts several times."""
    features = {"example_id": ["x", "y"], "offset_mapping": [[None, (0, 3), (4, 7)]] * 2}
    gold = {"text": ["dog"], "answer_start": [4]}
    examples = {"id": ["x", "y"], "context": ["cat dog"] * 2, "answers": [gold, gold]}
    logits = np.array([[0.0, 1.0, 2.0], [0.0, 2.0, 1.0]])
    compute = metrics.span_metrics(features, examples, max_answer_tokens=1)
    assert compute(_given((logits, logits), (None, None))) == {"exact_match": 50.0, "f1": 50.0}


def test_a_trainer_takes_them(tmp_path: Path) -> None:
    """Prefixes, batches of unequal size and label names are the Trainer's, not ours."""
    rows = [
        {"input_ids": torch.tensor([1, 4 + at, 2]), "labels": torch.tensor(at % 2)}
        for at in range(5)
    ]
    trainer = Trainer(
        model=tiny.model("Bert", "ForSequenceClassification", num_labels=2),
        args=TrainingArguments(
            output_dir=str(tmp_path), per_device_eval_batch_size=2, report_to="none", use_cpu=True
        ),
        eval_dataset=rows,
        compute_metrics=metrics.classification_metrics(("accuracy", "f1")),
    )
    result = trainer.evaluate()
    answers = trainer.predict(rows).predictions.argmax(-1)
    assert result["eval_accuracy"] == pytest.approx(float((answers == [0, 1, 0, 1, 0]).mean()))
    assert "eval_f1" in result
