"""Shards: what is put in comes out, by example; what is damaged is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill.cache import shards
from hf_distill.cache.encoding import Error, encode
from hf_distill.cache.folder import Folder
from hf_distill.cache.rows import row_counts
from hf_distill.cache.shards import Shard, ShardBuilder, ShardFacts, open_shard
from hf_distill.cache.stored import Stored
from hf_distill.signals.rows import Targets
from tests.teacher.counting import about

LENGTHS = ((3, 1, 4), (2,), (5, 1))
FACTS = ShardFacts(about="this", classes=3, errors={"logits": Error(1.0, 2.0)})


def state(example: int, token: int) -> list[float]:
    return [example + token / 10, -token]


def built() -> tuple[str, bytes]:
    """Six examples in three batches: hidden states in a byte each, and one logit row each."""
    builder, example = ShardBuilder(), 0
    for lengths in LENGTHS:
        mask = torch.tensor([[t < one for t in range(5)] for one in lengths])
        numbered = list(enumerate(lengths, start=example))
        hidden = torch.tensor([state(n, t) for n, length in numbered for t in range(length)])
        logits = torch.tensor([[float(n), 0.0, -1.0] for n, _ in numbered])
        keys = torch.tensor([[n, 100 + n] for n, _ in numbered])
        signals = {"hidden.1": encode(hidden, "int8"), "logits": encode(logits, "float32")}
        builder.add(keys, row_counts(Targets(mask)), signals)
        example += len(lengths)
    return builder.finish(FACTS)


@pytest.fixture
def folder(url: str) -> Folder:
    made = Folder(url)
    made.write(*built())
    return made


def test_examples_are_read_where_they_lie(folder: Folder) -> None:
    """Places counted within a batch and not within the file: right for the first batch alone."""
    shard = open_shard(folder, built()[0])
    assert shard is not None
    assert shard.facts == FACTS
    assert shard.keys.tolist() == [[n, 100 + n] for n in range(6)]
    for example, length in enumerate(one for lengths in LENGTHS for one in lengths):
        expected = torch.tensor([state(example, token) for token in range(length)])
        own = encode(expected, "int8")
        found = shard.parts("hidden.1", "token", example)
        assert found.keys() == own.keys()
        assert all(torch.equal(found[part], own[part]) for part in own)
        (logits,) = shard.parts("logits", "sequence", example).values()
        assert logits.tolist() == [[float(example), 0.0, -1.0]]


def test_files_are_named_by_their_content() -> None:
    """A name by number is overwritten by the next run, whatever it holds."""
    (name, content), (again, same) = built(), built()
    assert (name, content) == (again, same)
    other = ShardBuilder()
    other.add(torch.tensor([[1, 2]]), {"sequence": torch.tensor([1])}, {})
    assert other.finish(FACTS)[0] != name


@pytest.mark.parametrize("place", [0, 9, 200, -1])
def test_a_flipped_bit_is_seen(place: int, folder: Folder) -> None:
    """One wrong exponent among a million states: a loss that nobody can explain."""
    name, content = built()
    damaged = bytearray(content)
    damaged[place] ^= 1
    folder.write(name, bytes(damaged))
    assert open_shard(folder, name) is None


def test_short_missing_and_renamed_files_are_seen(folder: Folder) -> None:
    """A length that is checked alone lets a file of that length pass."""
    name, content = built()
    folder.write(name, content[:-1])
    assert open_shard(folder, name) is None
    folder.write(name, b"")
    assert open_shard(folder, name) is None
    folder.remove(name)
    assert open_shard(folder, name) is None
    renamed = "0" * 64 + shards.ENDING
    folder.write(renamed, content)
    assert open_shard(folder, renamed) is None


def test_a_damaged_copy_is_fetched_again() -> None:
    """A copy that was damaged on the way makes the file elsewhere look damaged, for ever."""
    name, content = built()
    folder = Folder("memory://damaged/copy")
    folder.write(name, content)
    folder.local(name).write_bytes(b"damaged")
    assert open_shard(folder, name) is not None
    # And the other way round: what was written again is not hidden behind the copy.
    folder.local(name).write_bytes(b"damaged")
    folder.write(name, b"damaged too")
    assert open_shard(folder, name) is None
    folder.write(name, content)
    assert open_shard(folder, name) is not None


def test_a_shard_is_mapped_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that are read whole take the memory that the teacher was to leave."""
    name, content = built()
    (tmp_path / name).write_bytes(content)
    opened: list[Any] = []
    real = shards.safe_open
    monkeypatch.setattr(shards, "safe_open", lambda *given: opened.append(given) or real(*given))
    shard = Shard(tmp_path / name)
    first, again = (shard.parts("hidden.1", "token", 2)[""] for _ in range(2))
    # Views of one storage, the file's: nothing is copied, however often it is asked.
    assert first.untyped_storage().data_ptr() == again.untyped_storage().data_ptr()
    assert first.data_ptr() == again.data_ptr()
    assert len(opened) == 1
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert name in mapped.read_text()


def stored(rows: dict[str, torch.Tensor], **shown: Any) -> Stored:
    keys = torch.zeros(2, 2).long()
    return Stored(keys, {"sequence": torch.ones(2).long()}, rows, about(shown=shown).shown)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused(wrong: float) -> None:
    """A teacher that overflows in float16 is kept for ever, and served as NaN or as the largest."""
    rows = {"logits": torch.zeros(2, 3), "hidden.1": torch.tensor([[0.0, wrong]])}
    with pytest.raises(FloatingPointError, match=r"got others in hidden.1. Run it in bfloat16 or"):
        stored(rows)


def test_more_classes_than_there_are_are_refused() -> None:
    """Torch would say 'selected index k out of range' after the whole data set was scanned."""
    rows = {"logits": torch.zeros(2, 3)}
    assert stored(rows, top=3).classes == 3
    with pytest.raises(ValueError, match=r"top must be at most the number of classes, 3, got 4."):
        stored(rows, top=4)
