"""Each score against its library and against cases worked by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
import pytest
from scipy import stats
from seqeval import metrics as seqeval_metrics
from sklearn import metrics as sklearn_metrics

from hf_distill.evaluation import scores

GOLD = [0, 1, 2, 2, 1, 0, 1, 1]
GIVEN = [0, 1, 1, 2, 1, 2, 0, 1]


def _squad(prediction: str, *golds: str) -> dict[str, float]:
    answers = {"text": list(golds), "answer_start": [0] * len(golds)}
    return scores.Squad().compute(
        predictions=[{"id": "a", "prediction_text": prediction}],
        references=[{"id": "a", "answers": answers}],
    )


@pytest.mark.parametrize(
    ("name", "given", "gold", "expected"),
    [
        ("accuracy", GIVEN, GOLD, sklearn_metrics.accuracy_score(GOLD, GIVEN)),
        ("f1", [0, 1, 1, 0], [1, 1, 0, 0], sklearn_metrics.f1_score([1, 1, 0, 0], [0, 1, 1, 0])),
        ("f1_macro", GIVEN, GOLD, sklearn_metrics.f1_score(GOLD, GIVEN, average="macro")),
        ("f1_micro", GIVEN, GOLD, sklearn_metrics.f1_score(GOLD, GIVEN, average="micro")),
        ("matthews_correlation", GIVEN, GOLD, sklearn_metrics.matthews_corrcoef(GOLD, GIVEN)),
        ("pearsonr", [1.0, 2.5, 2.0], [0.5, 3.0, 4.0], stats.pearsonr([1, 2.5, 2], [0.5, 3, 4])[0]),
        ("spearmanr", [1.0, 2.5, 2.0], [0.5, 3.0, 4.0], 0.5),
    ],
)
def test_scores_are_the_library_s(name: str, given: Any, gold: Any, expected: float) -> None:
    """Swapped arguments or rounded inputs give a number that looks like a score."""
    result = scores.load(name).compute(predictions=given, references=gold)
    assert result == {name: pytest.approx(float(expected))}
    assert type(result[name]) is float


def test_f1_of_no_true_positive_is_zero_without_a_warning() -> None:
    """A constant answer must score 0; a warning would be an error in a strict suite."""
    assert scores.F1().compute(predictions=[0, 0], references=[1, 1]) == {"f1": 0.0}
    assert scores.F1("macro").compute(predictions=[0, 0], references=[1, 1]) == {"f1_macro": 0.0}


def test_f1_averages_are_worked_by_hand() -> None:
    """Macro and micro averages that are exchanged differ by little and are believed."""
    given, gold = [0, 0, 1, 0], [0, 0, 0, 1]
    assert scores.F1("micro").compute(predictions=given, references=gold)["f1_micro"] == 0.5
    macro = scores.F1("macro").compute(predictions=given, references=gold)["f1_macro"]
    assert macro == pytest.approx((2 * 2 / 6 + 0) / 2)


def test_binary_f1_refuses_more_than_two_classes() -> None:
    """F1 of class 1 alone would pass for the F1 of all classes."""
    with pytest.raises(ValueError, match="multiclass"):
        scores.F1().compute(predictions=GIVEN, references=GOLD)


def test_f1_names_its_averages() -> None:
    """An unknown average would otherwise surface at the end of the first epoch."""
    with pytest.raises(ValueError, match=r"config_name must be one of .*, got 'weighed'\. "):
        scores.F1("weighed")


def test_label_sets_are_right_as_a_whole() -> None:
    """Accuracy per label flatters: nearly all labels are 0."""
    given, gold = [[0, 1, 0], [1, 1, 0]], [[0, 1, 0], [1, 0, 0]]
    assert scores.Accuracy().compute(predictions=given, references=gold) == {"accuracy": 0.5}


def test_seqeval_counts_whole_entities() -> None:
    """Accuracy of tags hides that no entity was found whole."""
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O"], []]
    given = [["B-PER", "O", "O", "B-LOC"], ["O"], []]
    result = scores.Seqeval().compute(predictions=given, references=gold)
    expected = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.8}
    assert result == pytest.approx(expected)
    assert result["f1"] == pytest.approx(seqeval_metrics.f1_score(gold, given))


def test_seqeval_without_entities_is_zero() -> None:
    """A model that tags nothing must not score 1, nor stop the run."""
    result = scores.Seqeval().compute(predictions=[["O", "O"]], references=[["O", "O"]])
    assert result == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("The  Cat!", ["cat"], 100, 100),
        ("a cat sat", ["the cat", "dog"], 0, 200 / 3),
        ("dog", ["cat", "dog"], 100, 100),
        ("cat cat", ["cat"], 0, 200 / 3),
        ("theory", ["ory"], 0, 0),
        ("", ["cat"], 0, 0),
        ("", [], 100, 100),
        ("cat", [], 0, 0),
        ("the", ["a"], 100, 100),
    ],
)
def test_squad_by_hand(prediction: str, golds: list[str], exact: float, f1: float) -> None:
    """A normalisation of one's own gives F1s that no paper can be compared with."""
    assert _squad(prediction, *golds) == {"exact_match": exact, "f1": pytest.approx(f1)}


def test_squad_matches_rows_by_id() -> None:
    """Answers in another order would be scored against another question's gold."""
    references = [{"id": i, "answers": {"text": [i], "answer_start": [0]}} for i in "xy"]
    given = [{"id": i, "prediction_text": i} for i in "yx"]
    assert scores.Squad().compute(predictions=given, references=references)["f1"] == 100
    with pytest.raises(ValueError, match=r"predictions must answer .* \['y'\]"):
        scores.Squad().compute(predictions=[given[1]] * 2, references=references)


def test_scores_combine() -> None:
    """`evaluate.combine` drops or renames scores whose names collide."""
    parts = {name: scores.load(name) for name in ("accuracy", "f1", "f1_macro", "f1_micro")}
    result = evaluate.combine(parts).compute(predictions=[0, 1, 1], references=[0, 1, 0])
    assert set(result) == set(parts)


def test_batches_add_up() -> None:
    """Rows kept from an earlier computation would count twice."""
    metric = scores.Accuracy()
    for _ in range(2):
        metric.add_batch(predictions=[0, 1], references=[0, 0])
        metric.add(prediction=1, reference=1)
        assert metric.compute()["accuracy"] == pytest.approx(2 / 3)


def test_rows_that_do_not_fit_leave_nothing_behind() -> None:
    """After an error the next score would be over the wrong rows."""
    metric = scores.Accuracy()
    with pytest.raises(ValueError, match="Mismatch"):
        metric.compute(predictions=[0, 1, 1], references=[1, 1])
    assert metric.compute(predictions=[1, 1], references=[1, 1]) == {"accuracy": 1.0}


def test_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Cache folders and locks fill the user's disk and block metrics that run side by side."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    one, two = scores.Accuracy(), scores.Accuracy()
    one.add_batch(predictions=[1], references=[1])
    two.add_batch(predictions=[0], references=[1])
    assert (one.compute()["accuracy"], two.compute()["accuracy"]) == (1.0, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_do_not_meet(tmp_path: Path) -> None:
    """With a cache file, a second process waits for the first one's lock or reads its rows."""
    code = (
        "import sys; from hf_distill.evaluation.scores import Accuracy; metric = Accuracy();"
        "gold = int(sys.argv[1]);"
        "metric.add_batch(predictions=[1, 1], references=[gold, gold]);"
        "print(metric.compute()['accuracy'])"
    )
    root = str(Path(scores.__file__).parents[2])
    settings = {**os.environ, "HF_HOME": str(tmp_path), "PYTHONPATH": root}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, gold], env=settings, stdout=subprocess.PIPE, text=True
        )
        for gold in "10"
    ]
    printed = [process.communicate()[0].strip() for process in running]
    assert printed == ["1.0", "0.0"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_importing_the_room_is_light() -> None:
    """The command line would take seconds to say --help."""
    code = (
        "import sys, hf_distill.evaluation;"
        "print(sorted({'evaluate', 'sklearn', 'torch', 'datasets'} & set(sys.modules)))"
    )
    root = str(Path(scores.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_local_script_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own metric must work without the network."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "share_of_ones"
    folder.mkdir()
    (folder / "share_of_ones.py").write_text(
        "import datasets\nimport evaluate\n\n"
        "class ShareOfOnes(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        kind = datasets.Value('int64')\n"
        "        features = datasets.Features({'predictions': kind, 'references': kind})\n"
        "        return evaluate.MetricInfo(description='', citation='',\n"
        "            inputs_description='', features=features)\n\n"
        "    def _compute(self, predictions, references):\n"
        "        return {'ones': sum(predictions) / len(predictions), 'text': 'no number'}\n"
    )
    metric = scores.load(str(folder))
    assert metric.compute(predictions=[1, 0], references=[1, 0])["ones"] == np.float64(0.5)


def test_an_unknown_metric_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user must learn at the start which names work without the network."""

    def missing(name: str) -> None:
        raise FileNotFoundError(name)

    monkeypatch.setattr(evaluate, "load", missing)
    with pytest.raises(ValueError, match=r"metric must be one of accuracy, .*got 'acuracy'\. Name"):
        scores.load("acuracy")
