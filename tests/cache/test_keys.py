"""Keys: what tells one example from another, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.cache.keys import Places, example_keys
from hf_distill.signals.head import CausalLM, MaskedLM, Seq2SeqLM, head_of
from hf_distill.signals.rows import Head
from tests import tiny
from tests.training.runs import CAUSAL, HEADS, MASKED, SEQ2SEQ, SEQUENCE, collate, student

COLUMNS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")


def head(kind: str = SEQUENCE) -> Head:
    return head_of(student(kind))


def keys(
    batch: dict[str, Tensor],
    kind: Head | None = None,
    columns: Sequence[str] = COLUMNS,
    *,
    rows: bool = True,
) -> list[Any]:
    inputs = (kind or head()).complete(dict(batch))
    targets = (kind or head()).targets(inputs)
    return [tuple(key) for key in example_keys(inputs, targets, columns, rows=rows).tolist()]


def one(ids: Sequence[int], **more: Any) -> dict[str, Tensor]:
    given = {"input_ids": ids, "attention_mask": [1] * len(ids), **more}
    return {name: torch.as_tensor(values) for name, values in given.items()}


def key(example: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    return keys(collate([example]), *args, **kwargs)[0]


def test_keys_are_equal_where_examples_are() -> None:
    """A key that forgets a part, or counts padding, finds another example's row, or none."""
    make = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(300):
        length = int(torch.randint(1, 4, (), generator=make))
        ids, types = (torch.randint(1, 3, (length,), generator=make).tolist() for _ in range(2))
        examples.append(one(ids, token_type_ids=types))
    told = [(tuple(e["input_ids"].tolist()), tuple(e["token_type_ids"].tolist())) for e in examples]
    found = [each for at in range(0, 300, 7) for each in keys(collate(examples[at : at + 7]))]
    pairs = {(oracle, made) for oracle, made in zip(told, found, strict=True)}
    assert len(pairs) == len(set(told)) == len(set(found))
    assert len(set(told)) < len(told)


def test_padding_order_and_company_change_nothing() -> None:
    """A key of the padded row is another one in each batch: nothing would ever be found."""
    short, long = one([5, 6, 7]), one([5, 6, 7, 8, 9])
    alone = key(short), key(long)
    assert tuple(keys(collate([short, long]))) == alone
    assert tuple(reversed(keys(collate([long, short])))) == alone
    padded = collate([short, long])
    padded["input_ids"][0, 3:] = 33  # Whatever stands on padding.
    assert tuple(keys(padded)) == alone
    assert key(short, columns=COLUMNS[::-1]) == alone[0]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.int16], ids=str)
@pytest.mark.parametrize("mask", [torch.int32, torch.int64, torch.bool], ids=str)
def test_the_type_of_integers_changes_nothing(dtype: torch.dtype, mask: torch.dtype) -> None:
    """Data sets give int64, collators and other versions int32: the same text, another digest."""
    batch = collate([one([5, 6, 7])])
    narrow = {
        "input_ids": batch["input_ids"].to(dtype),
        "attention_mask": batch["attention_mask"].to(mask),
    }
    assert keys(narrow) == keys(batch)
    without = {"input_ids": batch["input_ids"]}
    assert keys(without) == keys(batch)


CHANGED: dict[str, dict[str, Tensor]] = {
    "another token": one([5, 6, 8], token_type_ids=[0, 0, 1]),
    "another order": one([6, 5, 7], token_type_ids=[0, 0, 1]),
    "longer": one([5, 6, 7, 0], token_type_ids=[0, 0, 1, 0]),
    "shorter": one([5, 6], token_type_ids=[0, 0]),
    "another type": one([5, 6, 7], token_type_ids=[0, 1, 1]),
    "no types": one([5, 6, 7]),
    "a hole": one([5, 6, 7], token_type_ids=[0, 0, 1], attention_mask=[1, 0, 1]),
    "padding to the left": one(
        [0, 5, 6, 7], token_type_ids=[0, 0, 0, 1], attention_mask=[0, 1, 1, 1]
    ),
    "behind a hole": one([5, 6, 8], token_type_ids=[0, 0, 1], attention_mask=[1, 0, 1]),
    "behind padding": one([0, 5, 6, 8], token_type_ids=[0, 0, 0, 1], attention_mask=[0, 1, 1, 1]),
    "all masked": one([5, 6, 7], token_type_ids=[0, 0, 1], attention_mask=[0, 0, 0]),
}


def test_what_the_teacher_is_given_changes_the_key() -> None:
    """What the key forgets is served another example's states, without a word."""
    whole = one([5, 6, 7], token_type_ids=[0, 0, 1])
    found = {name: key(each) for name, each in {"whole": whole, **CHANGED}.items()}
    assert len(set(found.values())) == len(found), found


def test_two_columns_do_not_run_into_each_other() -> None:
    """Digests of joined bytes are the same for (5, 6) beside (7) and (5) beside (6, 7)."""
    first = {"input_ids": torch.tensor([[5, 6]]), "token_type_ids": torch.tensor([[0, 0]])}
    second = {"input_ids": torch.tensor([[0, 0]]), "token_type_ids": torch.tensor([[5, 6]])}
    assert keys(first) != keys(second)
    third = {"input_ids": torch.tensor([[5, 6]]), "position_ids": torch.tensor([[0, 0]])}
    assert keys(first) != keys(third, columns=(*COLUMNS, "position_ids"))


def test_keys_are_long_enough_not_to_meet() -> None:
    """Of a hundred million examples, two share a key of 52 bits: both are one of them."""
    found = torch.tensor([key(one([number, 7])) for number in range(200)])
    for bit in range(64):
        assert ((found >> bit & 1).sum(0) > 60).all()
        assert ((found >> bit & 1).sum(0) < 140).all()


def test_columns_that_the_teacher_does_not_read_are_no_part() -> None:
    """Labels or a student's own columns in the key: a cache of one data set serves no other."""
    plain = one([5, 6, 7])
    labelled = {**plain, "labels": torch.tensor(2), "token_type_ids": torch.tensor([0, 0, 1])}
    columns = ("input_ids", "attention_mask")
    assert key(labelled, columns=columns) == key(plain, columns=columns)
    assert key(labelled) != key(plain)


@pytest.mark.parametrize("kind", [MASKED, CAUSAL])
def test_rows_of_language_models_are_part_of_the_key(kind: str) -> None:
    """Only rows that are predicted are kept: another choice of them reads the neighbour's."""
    ids = [5, 6, 7, 8]
    some, others = (one(ids, labels=labels) for labels in ([-100, 6, 7, 8], [-100, -100, 7, 8]))
    mine = head(kind)
    assert isinstance(mine, MaskedLM | CausalLM)
    assert key(some, mine) != key(others, mine)
    assert key(some, mine, rows=False) == key(others, mine, rows=False)
    # A label's value is the student's business: the teacher shows a row whatever stands there.
    assert key(some, mine) == key(one(ids, labels=[-100, 1, 2, 3]), mine)
    if kind == MASKED:
        assert key(one(ids), mine) != key(some, mine)


def test_decoder_inputs_are_part_of_the_key() -> None:
    """The same source with another target is another example: its rows are the decoder's."""
    mine = head(SEQ2SEQ)
    assert isinstance(mine, Seq2SeqLM)
    texts = [[9, 2], [8, 2], [9, 8, 2]]
    examples = [one([5, 6, 7], labels=labels) for labels in texts]
    alone = [key(each, mine) for each in examples]
    assert len(set(alone)) == 3
    assert keys(collate(examples), mine) == alone
    decoded = [one([5, 6, 7], decoder_input_ids=[0, *labels]) for labels in texts]
    alone = [key(each, mine) for each in decoded]
    assert len(set(alone)) == 3
    assert keys(collate(decoded), mine) == alone


def test_places_are_those_of_the_loop() -> None:
    """The next key in order for the same one, or the last of equal ones for the first."""
    make = torch.Generator().manual_seed(2)
    halves = [torch.randint(-9, 10, (count,), generator=make) for count in (60, 90)]
    # Two halves of a digest: one alone tells as much as both.
    held, asked = (torch.stack([half, half * 7], -1) for half in halves)
    asked[::9, 1] += 1
    listed = held.tolist()
    expected = [listed.index(each) if each in listed else -1 for each in asked.tolist()]
    assert {-1, *range(5)} & {*expected} > {-1}
    assert Places(held).find(asked).tolist() == expected
    assert Places(held[:0]).find(asked[:2]).tolist() == [-1, -1]
    assert Places(held).find(asked[:0]).tolist() == []


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_has_keys(kind: str) -> None:
    """A head whose rows have no mask would have one key for all examples."""
    labels = {"labels": [5, 6, 2]} if kind == SEQ2SEQ else {}
    examples = [one([5, 6, 7], **labels), one([5, 6, 8, 9], **labels)]
    assert len({*keys(collate(examples), head(kind)), *map(key, examples)}) >= 2
    assert len(set(keys(collate(examples), head(kind)))) == 2


@pytest.mark.parametrize(
    "values", [torch.zeros(1, 3, 4), torch.zeros(1, 3), torch.zeros(1, 2, dtype=torch.int64)]
)
def test_what_is_no_token_is_refused(values: Tensor) -> None:
    """Floats rounded to integers, or boxes flattened, are one key for many examples."""
    batch = {**collate([one([5, 6, 7])]), "token_type_ids": values}
    with pytest.raises(ValueError, match="must be whole numbers, one for each token, got token_ty"):
        keys(batch)


def test_families_without_types_have_the_same_keys() -> None:
    """Keys belong to what is read, not to a family."""
    roberta = head_of(tiny.model("Roberta", SEQUENCE))
    example = one([5, 6, 7])
    assert key(example, roberta) == key(example)
