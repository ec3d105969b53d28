"""Where the examples come from: the Hub, or files of this machine; and which classes they name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import ClassLabel, Dataset, load_dataset

from hf_distill.recipe.schema import Data

_READERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
HELD_OUT = 0.1
"""The share of the training split that is measured on where no other split is named."""
_SPLIT_SEED = 0
"""Of what is held out and of what a limit keeps. Not the recipe's seed: a teacher of one seed must
not have learnt what a student of another is measured on."""


class Splits(NamedTuple):
    """The examples of a run."""

    train: Dataset
    evaluation: Dataset
    evaluated_on: str
    """In words, for tables and cards."""


def load_splits(data: Data, *, prose: str | None = None) -> Splits:
    """Load both splits.

    Args:
        data: What the recipe says of them.
        prose: A column whose blank rows are left out.

    Raises:
        ValueError: A path, split or file that is not there.
    """
    train = _without_blanks(_load(data, data.train, "data.train"), prose)
    if data.evaluation is None:
        parts = train.train_test_split(HELD_OUT, seed=_SPLIT_SEED)
        train, evaluation = parts["train"], parts["test"]
        named = f"a tenth of {data.train}, held out"
    else:
        evaluation = _without_blanks(_load(data, data.evaluation, "data.evaluation"), prose)
        named = data.evaluation
    return Splits(_limited(train, data.limit), _limited(evaluation, data.limit), named)


def check_columns(splits: Splits, columns: Mapping[str, str]) -> None:
    """Check that both splits have the columns.

    Args:
        splits: The examples.
        columns: Key in the recipe -> column.

    Raises:
        ValueError: A column that is not there.
    """
    for key, column in columns.items():
        for split in (splits.train, splits.evaluation):
            if column not in split.column_names:
                raise ValueError(
                    f"{key} must be a column of the data ({', '.join(split.column_names)}), "
                    f"got {column!r}. Name the column."
                )


def class_names(splits: Splits, column: str, *, nested: bool) -> list[str]:
    """The classes in a column: what its ClassLabel says, else its distinct values, sorted.

    Args:
        splits: The examples.
        column: Their column.
        nested: Whether it holds a list of classes for each example.
    """
    kind = _class_label(splits, column)
    if kind is not None:
        return list(kind.names)
    return [str(each) for each in sorted(_values(splits.train, column, nested))]


def class_ids(
    splits: Splits, column: str, names: Sequence[str], *, nested: bool
) -> Mapping[Any, int]:
    """For each value of a column, its index in `names`.

    Raises:
        ValueError: A value is none of the names, such as the -1 of a split without labels.
    """
    kind = _class_label(splits, column)
    shown = dict(enumerate(kind.names)) if kind is not None else None
    index = {name: at for at, name in enumerate(names)}
    found = _values(splits.train, column, nested) | _values(splits.evaluation, column, nested)
    ids = {}
    for value in found:
        name = str(value) if shown is None else shown.get(value, value)
        if name not in index:
            raise ValueError(
                f"column {column!r} must hold classes of {list(names)}, got {value!r}. Name a "
                "split with labels; the training split must have every class."
            )
        ids[value] = index[name]
    return ids


def _class_label(splits: Splits, column: str) -> ClassLabel | None:
    feature = splits.train.features[column]
    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, ClassLabel) else None


def _values(split: Dataset, column: str, nested: bool) -> set[Any]:
    values = split[column]
    found = {each for row in values for each in row} if nested else set(values)
    if any(isinstance(each, float) for each in found):
        raise ValueError(
            f"column {column!r} must hold classes, got numbers with a fraction. Scores are not "
            "supported by recipes: use DistillationTrainer in a script."
        )
    return found


def _without_blanks(split: Dataset, column: str | None) -> Dataset:
    if column is None or column not in split.column_names:
        return split
    return split.filter(lambda text: bool(text and text.strip()), input_columns=column)


def _limited(split: Dataset, limit: int | None) -> Dataset:
    if limit is None or limit >= len(split):
        return split
    return split.shuffle(seed=_SPLIT_SEED).select(range(limit))


def _load(data: Data, split: str, key: str) -> Dataset:
    path = Path(data.path).expanduser()
    if path.is_dir():
        return _read(_file_of(path, split, key))
    if path.is_file():
        if split != "train":
            raise ValueError(
                f"{key} must be left out where data.path is one file, got {split!r}. Give a "
                "folder with a file for each split."
            )
        return _read(path)
    if not _HUB_ID.fullmatch(data.path):
        raise ValueError(
            f"data.path must be a Hub id, or a folder or file that exists, got {data.path!r}. "
            "Correct the path."
        )
    try:
        return load_dataset(data.path, data.name, split=split, revision=data.revision)
    except (OSError, ValueError, RuntimeError) as error:
        told = str(error).rstrip(".")
        raise ValueError(
            f"data.path must be a data set that can be loaded, got {data.path!r}: {told}. "
            "For a local copy add --set data.path=FOLDER, a folder of <split>.parquet."
        ) from error


def _file_of(folder: Path, split: str, key: str) -> Path:
    for suffix in _READERS:
        if (folder / f"{split}{suffix}").is_file():
            return folder / f"{split}{suffix}"
    found = sorted(each.stem for each in folder.iterdir() if each.suffix in _READERS)
    raise ValueError(
        f"{key} must name a file of {folder.name} ({', '.join(found) or 'which holds none'}), "
        f"got {split!r}. Files are called <split>.parquet, .csv or .json."
    )


def _read(file: Path) -> Dataset:
    if file.suffix not in _READERS:
        raise ValueError(
            f"data.path must be a file of {', '.join(_READERS)}, got {file.name!r}. Convert it."
        )
    if file.suffix == ".json" and file.read_text(encoding="utf-8").lstrip().startswith("["):
        # A plain JSON list, which the reader of JSON lines takes for one row.
        return Dataset.from_list(json.loads(file.read_text(encoding="utf-8")))
    return load_dataset(_READERS[file.suffix], data_files=str(file), split="train")
