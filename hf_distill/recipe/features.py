"""Examples become what a model reads, and what its answers are measured by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
)

from hf_distill.evaluation.metrics import (
    IGNORED,
    ComputeMetrics,
    classification_metrics,
    span_metrics,
    tagging_metrics,
)
from hf_distill.evaluation.spans import prepare_span_features
from hf_distill.recipe.data import Splits, check_columns, class_ids
from hf_distill.recipe.schema import Data, Recipe

TEXTS = 1000
"""Texts that fidelity is measured on at most: it looks at every pair."""


@dataclass(frozen=True)
class Prepared:
    """Everything that the trainings of a run share."""

    train: Dataset
    evaluation: Dataset
    collator: Any
    compute: ComputeMetrics | None
    """None for the task `text`, which is measured against the teacher."""
    texts: list[str]
    """Of the evaluation split."""


def label_column(recipe: Recipe) -> tuple[str, bool] | None:
    """The column of classes, and whether it holds lists of them; None for a task without."""
    return {
        "text-classification": (recipe.data.label, False),
        "token-classification": (recipe.data.tags, True),
    }.get(recipe.task)


def check_data(recipe: Recipe, splits: Splits) -> None:
    """Raise ValueError where the data lack a column that the recipe names."""
    data, keys = recipe.data, _columns(recipe)
    check_columns(splits, {f"data.{key}": name for key in keys for name in _names(data, key)})


def prepare(
    recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> Prepared:
    """Tokenise both splits.

    Args:
        recipe: The recipe.
        splits: The examples.
        tokenizer: The teacher's.
        labels: Name of each class, in the models' order; empty where there are none.
    """
    return _TASKS[recipe.task](recipe, splits, tokenizer, labels)


def _columns(recipe: Recipe) -> tuple[str, ...]:
    return {
        "text-classification": ("text", "label"),
        "token-classification": ("tokens", "tags"),
        "question-answering": ("question", "context", "answers"),
        "text": ("text",),
    }[recipe.task]


def _names(data: Data, key: str) -> list[str]:
    named = getattr(data, key)
    return [named] if isinstance(named, str) else list(named)


def _classification(
    recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> Prepared:
    data, columns = recipe.data, _names(recipe.data, "text")
    ids = class_ids(splits, data.label, labels, nested=False)
    compute = classification_metrics(recipe.metrics)

    def encode(batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        texts = [batch[column] for column in columns]
        encoded = tokenizer(*texts, truncation=True, max_length=data.max_length)
        return {**encoded, "labels": [ids[each] for each in batch[data.label]]}

    collator = DataCollatorWithPadding(tokenizer, **_padding(data))
    joined = zip(*(splits.evaluation[column] for column in columns), strict=True)
    return _prepared(splits, encode, collator, compute, [" ".join(parts) for parts in joined])


def _tagging(
    recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> Prepared:
    data = recipe.data
    ids = class_ids(splits, data.tags, labels, nested=True)

    def encode(batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(
            batch[data.tokens],
            is_split_into_words=True,
            truncation=True,
            max_length=data.max_length,
        )
        tagged = [
            _first_pieces(encoded.word_ids(row), [ids[tag] for tag in tags])
            for row, tags in enumerate(batch[data.tags])
        ]
        return {**encoded, "labels": tagged}

    collator = DataCollatorForTokenClassification(tokenizer, **_padding(data))
    texts = [" ".join(words) for words in splits.evaluation[data.tokens]]
    return _prepared(splits, encode, collator, tagging_metrics(labels), texts)


def _first_pieces(words: Sequence[int | None], tags: Sequence[int]) -> list[int]:
    """The tag of each word at its first piece; the other pieces are not counted."""
    before: Sequence[int | None] = [None, *words[:-1]]
    return [
        IGNORED if word is None or word == previous else tags[word]
        for word, previous in zip(words, before, strict=True)
    ]


def _spans(
    recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> Prepared:
    data = recipe.data
    stride = data.max_length // 3 if data.stride is None else data.stride
    train, evaluation = (_as_squad(split, data) for split in (splits.train, splits.evaluation))

    def windows(batch: Mapping[str, list[Any]], training: bool) -> dict[str, list[Any]]:
        return prepare_span_features(batch, tokenizer, data.max_length, stride, training)

    def encode(split: Dataset, training: bool) -> Dataset:
        return split.map(
            windows,
            fn_kwargs={"training": training},
            batched=True,
            remove_columns=split.column_names,
        )

    shown = encode(evaluation, False)
    texts = [
        f"{question} {context}"
        for question, context in zip(evaluation["question"], evaluation["context"], strict=True)
    ]
    return Prepared(
        train=encode(train, True),
        evaluation=shown.remove_columns(["example_id", "offset_mapping"]),
        collator=DataCollatorWithPadding(tokenizer, **_padding(data)),
        compute=span_metrics(shown, evaluation),
        texts=texts,
    )


def _as_squad(split: Dataset, data: Data) -> Dataset:
    """The columns under SQuAD's names; examples are numbered, since not every set has ids."""
    named = {data.question: "question", data.context: "context", data.answers: "answers"}
    split = split.select_columns(list(named))
    split = split.rename_columns({old: new for old, new in named.items() if old != new})
    return split.add_column("id", [str(number) for number in range(len(split))])


def _texts(
    recipe: Recipe, splits: Splits, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
) -> Prepared:
    data = recipe.data
    (column,) = _names(data, "text")

    def encode(batch: Mapping[str, list[Any]]) -> dict[str, Any]:
        return dict(tokenizer(batch[column], truncation=True, max_length=data.max_length))

    collator = DataCollatorWithPadding(tokenizer, **_padding(data))
    texts = list(splits.evaluation[column])[:TEXTS]
    if len(texts) < 3:
        raise ValueError(
            f"evaluation must hold at least 3 texts, got {len(texts)}. Their similarities are "
            "what is compared: give more text."
        )
    return _prepared(splits, encode, collator, None, texts)


def _padding(data: Data) -> dict[str, Any]:
    """What every collator is told of the length of a batch."""
    return {"pad_to_multiple_of": data.pad_to_multiple_of}


def _prepared(
    splits: Splits,
    encode: Callable[[Mapping[str, list[Any]]], dict[str, Any]],
    collator: Any,
    compute: ComputeMetrics | None,
    texts: list[str],
) -> Prepared:
    train, evaluation = (
        split.map(encode, batched=True, remove_columns=split.column_names)
        for split in (splits.train, splits.evaluation)
    )
    return Prepared(train, evaluation, collator, compute, texts)


_TASKS: Mapping[str, Callable[..., Prepared]] = {
    "text-classification": _classification,
    "token-classification": _tagging,
    "question-answering": _spans,
    "text": _texts,
}
