"""`compute_metrics` functions for a Trainer, one per kind of head; none needs the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import evaluate
import numpy as np
import numpy.typing as npt
from transformers import EvalPrediction

from hf_distill.evaluation.scores import Squad, load
from hf_distill.evaluation.spans import Columns, best_answers

ComputeMetrics = Callable[[EvalPrediction], dict[str, float]]
"""What a Trainer takes as `compute_metrics`."""

IGNORED = -100
"""The label of a token that is not counted."""


def classification_metrics(names: Sequence[str] = ("accuracy",)) -> ComputeMetrics:
    """`compute_metrics` for classes that exclude each other: the highest logit is the answer."""
    modules = _combined(names)

    def compute(evaluation: EvalPrediction) -> dict[str, float]:
        logits = _logits(evaluation)
        chosen = logits.ndim == 1 and np.issubdtype(logits.dtype, np.integer)
        if not chosen and (logits.ndim == 1 or logits.shape[-1] == 1):
            raise ValueError(
                f"predictions must have a column per class, got shape {logits.shape!r}. "
                "Use regression_metrics() for a head with one output."
            )
        answers = logits if chosen else logits.argmax(-1)
        return _numbers(modules, answers, np.asarray(evaluation.label_ids))

    return compute


def regression_metrics(names: Sequence[str] = ("pearsonr", "spearmanr")) -> ComputeMetrics:
    """`compute_metrics` for a head that gives one number."""
    modules = _combined(names)

    def compute(evaluation: EvalPrediction) -> dict[str, float]:
        logits, labels = _logits(evaluation), np.asarray(evaluation.label_ids)
        if logits.size != len(labels):
            raise ValueError(
                f"predictions must hold one number per example, got shape {logits.shape!r} for "
                f"{len(labels)} labels. Use classification_metrics() for classes."
            )
        return _numbers(modules, logits.reshape(-1), labels.reshape(-1))

    return compute


def multi_label_metrics(
    names: Sequence[str] = ("f1_micro", "f1_macro", "accuracy"), threshold: float = 0.5
) -> ComputeMetrics:
    """`compute_metrics` for labels that do not exclude each other.

    Args:
        names: Metrics to compute.
        threshold: Probability (sigmoid of the logit) above which a label is given.
    """
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold!r}. Try 0.5.")
    modules, cut = _combined(names), np.log(threshold / (1 - threshold))

    def compute(evaluation: EvalPrediction) -> dict[str, float]:
        answers = (_logits(evaluation) > cut).astype(np.int64)
        return _numbers(modules, answers, np.asarray(evaluation.label_ids).astype(np.int64))

    return compute


def tagging_metrics(label_names: Sequence[str]) -> ComputeMetrics:
    """`compute_metrics` for tagged tokens: precision, recall, F1 of entities, accuracy of tags.

    Args:
        label_names: Tag of each class ("O", "B-PER", ...). Tokens labelled -100 are not counted.
    """
    tags, module = np.asarray(label_names), _combined(("seqeval",))

    def compute(evaluation: EvalPrediction) -> dict[str, float]:
        logits, labels = _logits(evaluation), np.asarray(evaluation.label_ids)
        if logits.ndim == 3 and logits.shape[-1] != len(tags):
            raise ValueError(
                f"label_names must name all {logits.shape[-1]} classes of the head, got "
                f"{len(tags)} names. Take them from the config's id2label."
            )
        answers, counted = logits.argmax(-1) if logits.ndim == 3 else logits, labels != IGNORED
        predicted = [tags[row[kept]].tolist() for row, kept in zip(answers, counted, strict=True)]
        expected = [tags[row[kept]].tolist() for row, kept in zip(labels, counted, strict=True)]
        return _numbers(module, predicted, expected)

    return compute


def span_metrics(features: Columns, examples: Columns, **options: int) -> ComputeMetrics:
    """`compute_metrics` for answers in a context: SQuAD's exact match and F1, in per cent.

    Args:
        features: What `prepare_span_features` gave with `training=False`, in the order evaluated.
        examples: What it was given, with "answers".
        options: `n_best` and `max_answer_tokens`, as in `best_answers`.
    """
    golds = zip(examples["id"], examples["answers"], strict=True)
    references = [{"id": str(key), "answers": answers} for key, answers in golds]
    module = Squad()

    def compute(evaluation: EvalPrediction) -> dict[str, float]:
        start_logits, end_logits, *_ = evaluation.predictions
        answers = best_answers(start_logits, end_logits, features, examples, **options)
        rows = [{"id": str(key), "prediction_text": text} for key, text in answers.items()]
        return _numbers(module, rows, references)

    return compute


def _combined(names: Sequence[str]) -> evaluate.CombinedEvaluations:
    if isinstance(names, str) or not names:
        raise ValueError(
            f"names must be a list of at least one metric, got {names!r}. Try ['accuracy']."
        )
    return evaluate.combine({name: load(name) for name in names})


def _logits(evaluation: EvalPrediction) -> npt.NDArray[Any]:
    """The first output; a Trainer gives a tuple where the model has several."""
    first = evaluation.predictions
    logits = np.asarray(first[0] if isinstance(first, tuple) else first)
    rows = np.isnan(logits).reshape(len(logits), -1).any(-1).sum()
    if rows:
        raise ValueError(
            f"predictions must be numbers, got NaN in {rows} of {len(logits)} rows. The model has "
            "diverged: lower learning_rate, or train in bf16 or float32."
        )
    return logits


def _numbers(module: Any, predictions: Any, references: Any) -> dict[str, float]:
    """The scores that are single numbers; what else a foreign metric gives cannot be logged."""
    scores = module.compute(predictions=predictions, references=references)
    return {name: float(score) for name, score in scores.items() if isinstance(score, Real)}
