"""Plans of what is still to be written: which examples, in which order and files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
import torch
from torch import Tensor

from hf_distill.teacher.plan import Batches, Scanned, bytes_of, in_batches, in_files, scan
from tests.teacher.counting import COLUMNS, head, reader, sentences
from tests.training.runs import Example

EXAMPLES = sentences(12)


def scanned(examples: list[Example]) -> Scanned:
    return scan(reader(examples), range(len(examples)), head(), COLUMNS, rows=True)


def test_examples_are_scanned_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of one example beside the key of another: every row is cut in the wrong place."""
    whole = scanned(EXAMPLES)
    lengths = [len(each["input_ids"]) for each in EXAMPLES]
    assert whole.counts["token"].tolist() == lengths
    assert whole.counts["pair"].tolist() == [length**2 for length in lengths]
    monkeypatch.setattr("hf_distill.teacher.plan._SCANNED", 5)
    parts = scanned(EXAMPLES)
    assert torch.equal(parts.keys, whole.keys)
    assert torch.equal(parts.counts["token"], whole.counts["token"])
    few = scan(reader(EXAMPLES), range(1, 12, 3), head(), COLUMNS, rows=True)
    assert torch.equal(few.keys, whole.keys[1::3])


def test_nothing_is_scanned_of_nothing() -> None:
    """A process without examples of its own must not fail where the others go on."""
    empty = scanned([])
    assert empty.keys.shape == (0, 2)
    assert empty.distinct() == []
    assert empty.missing([], torch.zeros(0, 2).long()) == []


def test_equal_examples_are_planned_once_the_shortest_first() -> None:
    """A data set of repeated questions is run as often as they are repeated."""
    found = scanned([*EXAMPLES, *EXAMPLES[:5]]).distinct()
    lengths = [len(EXAMPLES[index]["input_ids"]) for index in found]
    assert sorted(found) == list(range(12))
    assert lengths == sorted(lengths)


def test_known_examples_are_not_missing() -> None:
    """Membership by one half of the key, or by place: what is there is computed again, or never."""
    plan = scanned(EXAMPLES)
    known = plan.keys[torch.tensor([3, 4, 9])]
    assert plan.missing([9, 2, 3, 1], known) == [2, 1]
    half = known.clone()
    half[:, 1] += 1
    assert plan.missing([9, 3], half) == [9, 3]


def test_batches_and_files_hold_everything_once() -> None:
    """A batch that is lost between two files is missing only when it is asked for."""
    batches = in_batches(range(10), 4)
    assert [list(batch) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    sizes = [40, 70, 20, 200, 10, 90]
    six = [[number] for number in range(6)]
    assert in_files(six, sizes, 100) == [[[0]], [[1], [2]], [[3]], [[4], [5]]]
    assert in_files(six, sizes, 1) == [[each] for each in six]
    assert in_files(six, sizes, 10**6) == [six]
    assert in_files([], [], 100) == []


def test_bytes_are_counted_by_unit() -> None:
    """Pairs counted as tokens: attention maps that fit the estimate and not the disk."""
    plan = scanned(EXAMPLES)
    tokens = [len(EXAMPLES[index]["input_ids"]) for index in (1, 7)]
    rows = 8 * sum(tokens) + 3 * sum(each**2 for each in tokens) + 5 * 2
    places = 2 * (16 + 8 * len(plan.counts))
    assert bytes_of(plan, [1, 7], {"token": 8, "pair": 3, "sequence": 5}) == rows + places


def test_examples_that_change_are_refused() -> None:
    """Masks drawn anew: a cache of which no example is ever found again."""

    def masked(batches: Batches) -> Iterable[Mapping[str, Tensor]]:
        for batch in reader(EXAMPLES)(batches):
            hidden = torch.rand(batch["input_ids"].shape) < 0.5
            yield {**batch, "input_ids": batch["input_ids"].masked_fill(hidden, 1)}

    with pytest.raises(ValueError, match="must give the same examples each time it is read, got"):
        scan(masked, range(12), head(), COLUMNS, rows=True)
