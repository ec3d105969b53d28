"""Examples come from files, and their classes have names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_distill.recipe.data import class_ids, class_names, load_splits
from hf_distill.recipe.schema import Data


def _folder(place: Path, **splits: Any) -> Path:
    for name, rows in splits.items():
        (place / f"{name}.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return place


def _rows(count: int) -> list[dict[str, Any]]:
    return [
        {"text": f"text {at}", "label": "even" if at % 2 == 0 else "odd"} for at in range(count)
    ]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "list"])
def test_formats(tmp_path: Path, kind: str) -> None:
    """A reader that is guessed wrongly gives one column of lines."""
    rows = Dataset.from_list(_rows(20))
    if kind == "csv":
        rows.to_csv(tmp_path / "train.csv")
    elif kind == "parquet":
        rows.to_parquet(tmp_path / "train.parquet")
    elif kind == "json":
        rows.to_json(tmp_path / "train.json")
    else:
        (tmp_path / "train.json").write_text(json.dumps(_rows(20)), encoding="utf-8")
    splits = load_splits(Data(path=str(tmp_path)))
    assert splits.train.column_names == ["text", "label"]
    assert (len(splits.train), len(splits.evaluation)) == (18, 2)


def test_what_is_held_out_is_not_learnt(tmp_path: Path) -> None:
    """A teacher of another seed would have seen what a student is measured on."""
    path = str(_folder(tmp_path, train=_rows(40)))
    first, again = load_splits(Data(path=path)), load_splits(Data(path=path))
    assert not set(first.train["text"]) & set(first.evaluation["text"])
    assert first.evaluation["text"][:] == again.evaluation["text"][:]


def test_limit_keeps_all_classes(tmp_path: Path) -> None:
    """The first examples of a sorted file are all of one class."""
    rows = sorted(_rows(200), key=lambda row: str(row["label"]))
    path = str(_folder(tmp_path, train=rows, test=rows))
    splits = load_splits(Data(path=path, evaluation="test", limit=20))
    assert (len(splits.train), len(splits.evaluation)) == (20, 20)
    assert set(splits.train["label"]) == {"even", "odd"}


def test_named_classes_keep_their_order(tmp_path: Path) -> None:
    """Sorted by name instead, a head's classes would stand in another order than everyone's."""
    kinds = {"plain": ClassLabel(names=["b", "a"]), "nested": List(ClassLabel(names=["O", "B-x"]))}
    rows = [{"plain": 1, "nested": [0, 1]}, {"plain": 0, "nested": [0]}]
    Dataset.from_list(rows, features=Features(kinds)).to_parquet(tmp_path / "train.parquet")
    Dataset.from_list(rows, features=Features(kinds)).to_parquet(tmp_path / "test.parquet")
    splits = load_splits(Data(path=str(tmp_path), evaluation="test"))
    assert class_names(splits, "plain", nested=False) == ["b", "a"]
    assert class_ids(splits, "plain", ["a", "b"], nested=False) == {0: 1, 1: 0}
    assert class_names(splits, "nested", nested=True) == ["O", "B-x"]


def test_split_without_labels_is_refused(tmp_path: Path) -> None:
    """GLUE's test labels are all -1: every score on them is 0."""
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    for name, label in (("train", 1), ("test", -1)):
        rows = [{"text": "x", "label": label}]
        Dataset.from_list(rows, features=kinds).to_parquet(tmp_path / f"{name}.parquet")
    splits = load_splits(Data(path=str(tmp_path), evaluation="test"))
    with pytest.raises(ValueError, match=r"must hold classes of .*, got -1"):
        class_ids(splits, "label", class_names(splits, "label", nested=False), nested=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "./nowhere"}, r"data\.path must be a Hub id, or a folder"),
        ({"evaluation": "dev"}, r"data\.evaluation must name a file of .*\(train\), got 'dev'"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    """A path that is taken for a Hub id is answered by an error about connections."""
    path = str(_folder(tmp_path, train=_rows(20)))
    with pytest.raises(ValueError, match=message):
        load_splits(Data(**{"path": path, **changes}))
