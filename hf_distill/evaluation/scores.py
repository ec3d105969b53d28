"""Scores that need no network: `evaluate` modules over scikit-learn, scipy and seqeval."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import datasets
import evaluate
import numpy as np
from scipy import stats
from seqeval import metrics as seqeval_metrics
from sklearn import metrics as sklearn_metrics

_CLASS, _NUMBER, _TEXT = (datasets.Value(kind) for kind in ("int64", "float64", "string"))


class OfflineMetric(evaluate.Metric):  # type: ignore[misc, unused-ignore]
    """An `evaluate.Metric` whose code is here.

    In one process it keeps its rows in memory: it writes no file, takes no lock, makes no cache
    folder, and so any number of them can run side by side.
    """

    kinds: tuple[Any, ...] = (_CLASS,)
    """What one prediction and one reference may be; the first kind that fits a row is taken."""
    source = ""
    """Where the metric is defined."""

    def __init__(
        self, config_name: str | None = None, keep_in_memory: bool | None = None, **options: Any
    ) -> None:
        """`options` are those of `evaluate.Metric`."""
        if keep_in_memory is None:
            keep_in_memory = options.get("num_process", 1) == 1
        super().__init__(config_name, keep_in_memory, **options)

    def _info(self) -> evaluate.MetricInfo:
        pairs = [{"predictions": kind, "references": kind} for kind in self.kinds]
        return evaluate.MetricInfo(
            description=(self.__doc__ or "").partition("\n")[0],
            citation="",
            inputs_description="",
            features=[datasets.Features(pair) for pair in pairs],
            reference_urls=[self.source],
        )

    def _build_data_dir(self) -> str:
        return "" if self.keep_in_memory else str(super()._build_data_dir())


class Accuracy(OfflineMetric):
    """The share of right classes; of label sets that are right as a whole, where rows are sets."""

    kinds = (_CLASS, datasets.Sequence(_CLASS))
    source = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.accuracy_score.html"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"accuracy": float(sklearn_metrics.accuracy_score(references, predictions))}


class F1(OfflineMetric):
    """The harmonic mean of precision and recall.

    `config_name` is how classes are averaged: "binary" (the default, of class 1), "macro" or
    "micro". Rows may be classes, or 0/1 vectors over labels that do not exclude each other.
    """

    kinds = (_CLASS, datasets.Sequence(_CLASS))
    source = "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.f1_score.html"
    averages = ("binary", "macro", "micro")

    def __init__(self, config_name: str = "binary", **options: Any) -> None:
        """Raises ValueError when `config_name` is no known average."""
        if config_name not in self.averages:
            raise ValueError(
                f"config_name must be one of {', '.join(self.averages)}, got {config_name!r}. "
                "Leave it out for two classes."
            )
        super().__init__(config_name, **options)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        average = self.config_name
        score = sklearn_metrics.f1_score(references, predictions, average=average, zero_division=0)
        return {"f1" if average == "binary" else f"f1_{average}": float(score)}


class MatthewsCorrelation(OfflineMetric):
    """Matthews correlation of classes: 0 for chance and for a constant answer, 1 for all right."""

    source = (
        "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.matthews_corrcoef.html"
    )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        score = sklearn_metrics.matthews_corrcoef(references, predictions)
        return {"matthews_correlation": float(score)}


class Pearsonr(OfflineMetric):
    """Pearson correlation of numbers; not a number where one side is constant."""

    kinds = (_NUMBER,)
    source = "https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.pearsonr.html"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"pearsonr": float(stats.pearsonr(references, predictions).statistic)}


class Spearmanr(OfflineMetric):
    """Spearman correlation: Pearson's, of ranks."""

    kinds = (_NUMBER,)
    source = "https://docs.scipy.org/doc/scipy/reference/generated/scipy.stats.spearmanr.html"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {"spearmanr": float(stats.spearmanr(references, predictions).statistic)}


class Seqeval(OfflineMetric):
    """Precision, recall and F1 of whole entities (as conlleval), and accuracy of tags."""

    kinds = (datasets.Sequence(_TEXT),)
    source = "https://github.com/chakki-works/seqeval"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        # The columns arrive as a lazy view; seqeval insists on lists.
        tags = [list(row) for row in references], [list(row) for row in predictions]
        return {
            "precision": float(seqeval_metrics.precision_score(*tags, zero_division=0)),
            "recall": float(seqeval_metrics.recall_score(*tags, zero_division=0)),
            "f1": float(seqeval_metrics.f1_score(*tags, zero_division=0)),
            "accuracy": float(seqeval_metrics.accuracy_score(*tags)),
        }


def normalised(answer: str) -> str:
    """An answer as SQuAD compares it: no case, punctuation or articles, single spaces."""
    kept = "".join(letter for letter in answer.lower() if letter not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def answer_f1(prediction: str, gold: str) -> float:
    """F1 over the words of two normalised answers; two empty ones agree."""
    predicted, expected = normalised(prediction).split(), normalised(gold).split()
    if not predicted or not expected:
        return float(predicted == expected)
    shared = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * shared / (len(predicted) + len(expected))


class Squad(OfflineMetric):
    """Exact match and word F1 of answers, against the nearest gold answer; in per cent.

    Rows are matched by id. No gold answer at all means that the right answer is empty.
    """

    source = "https://rajpurkar.github.io/SQuAD-explorer/"

    def _info(self) -> evaluate.MetricInfo:
        info = super()._info()
        starts = datasets.Sequence(datasets.Value("int32"))
        golds = {"text": datasets.Sequence(_TEXT), "answer_start": starts}
        info.features = datasets.Features(
            {
                "predictions": {"id": _TEXT, "prediction_text": _TEXT},
                "references": {"id": _TEXT, "answers": golds},
            }
        )
        return info

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        given = {row["id"]: row["prediction_text"] for row in predictions}
        missing = [row["id"] for row in references if row["id"] not in given]
        if missing:
            raise ValueError(
                f"predictions must answer every reference, got none for {missing[:5]!r}. "
                "Predict on all of the examples that are scored."
            )
        exact, overlap = [], []
        for row in references:
            answer, golds = given[row["id"]], row["answers"]["text"] or [""]
            exact.append(max(normalised(answer) == normalised(gold) for gold in golds))
            overlap.append(max(answer_f1(answer, gold) for gold in golds))
        return {
            "exact_match": 100 * float(np.mean(exact)),
            "f1": 100 * float(np.mean(overlap)),
        }


METRICS: Mapping[str, Callable[[], OfflineMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "f1_macro": partial(F1, "macro"),
    "f1_micro": partial(F1, "micro"),
    "matthews_correlation": MatthewsCorrelation,
    "pearsonr": Pearsonr,
    "spearmanr": Spearmanr,
    "seqeval": Seqeval,
    "squad": Squad,
}
"""The metrics that need no network, by name."""


def load(name: str) -> evaluate.EvaluationModule:
    """The metric of that name: ours, or what `evaluate.load` finds (an id, or a local script)."""
    if name in METRICS:
        return METRICS[name]()
    try:
        return evaluate.load(name)
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(
            f"metric must be one of {', '.join(METRICS)}, or something that evaluate can load, "
            f"got {name!r}. Name a local metric script, or connect to the Hub."
        ) from error
