"""A finished cache: found by example, checked byte by byte, and named where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill.cache import folder as folder_room
from hf_distill.cache.cache import ABOUT, INDEX, Cache, check_folder, read_about
from hf_distill.cache.folder import Folder
from hf_distill.cache.shards import ENDING, open_shard
from tests.teacher.counting import about, check_held, sentences, write

EXAMPLES = sentences(18)


@pytest.fixture
def folder(url: str) -> Folder:
    """A finished cache of five shards."""
    assert write(url, EXAMPLES).finished
    return Folder(url)


def test_every_example_finds_its_own_rows(folder: Folder) -> None:
    """Neighbours' rows are of the right shape: only their numbers tell."""
    cache = Cache(folder)
    assert len(cache) == len(EXAMPLES)
    assert len(folder.names(ENDING)) == 5
    check_held(cache, EXAMPLES)
    assert cache.about == about()


def test_rows_of_several_come_in_the_order_asked(folder: Folder) -> None:
    """Rows in the order of the files: right only until batches are shuffled."""
    cache = Cache(folder)
    places = [17, 3, 3, 9]
    together = cache.rows("hidden.1", "token", places)
    each = torch.cat([cache.rows("hidden.1", "token", [place]) for place in places])
    assert torch.equal(together, each)


def test_strangers_are_not_found(folder: Folder) -> None:
    """The next key in order instead of the same one: any text is found in any cache."""
    cache = Cache(folder)
    known = torch.cat([shard.keys for shard in cache._shards])
    far = torch.tensor([[2**63 - 1, 0], [-(2**63), 0], [0, 0]])
    assert cache.find(far).tolist() == [-1, -1, -1]
    half = known.clone()
    half[:, 1] += 1
    assert (cache.find(half) == -1).all()
    assert sorted(cache.find(known).tolist()) == list(range(len(EXAMPLES)))
    assert cache.find(known[:0]).tolist() == []


def test_a_cache_of_nothing_holds_nothing(url: str) -> None:
    """An empty data set must not be an index out of range."""
    assert write(url, []).finished
    cache = Cache(Folder(url))
    assert len(cache) == 0
    assert cache.find(torch.zeros(2, 2).long()).tolist() == [-1, -1]


def flipped(folder: Folder, name: str, place: int = 700) -> None:
    damaged = bytearray(folder.read(name))
    damaged[place % len(damaged)] ^= 4
    folder.write(name, bytes(damaged))


def shortened(folder: Folder, name: str) -> None:
    folder.write(name, folder.read(name)[:-8])


def exchanged(folder: Folder, name: str) -> None:
    folder.write(name, folder.read(folder.names(ENDING)[-1]))


DAMAGES: dict[str, Any] = {
    "flipped": flipped,
    "truncated": shortened,
    "missing": Folder.remove,
    "another's": exchanged,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_mended_alone(
    damage: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file that is served, or one for which everything is computed again."""
    before = set(folder.names(ENDING))
    name = folder.names(ENDING)[1]
    held = len(open_shard(folder, name).keys)
    DAMAGES[damage](folder, name)
    # A copy on this machine would hide it.
    monkeypatch.setattr(folder_room, "HOME", tmp_path / "another machine")
    with pytest.raises(ValueError, match=rf"got 1 of 5 damaged: {name}. Write the cache again"):
        Cache(folder)
    told: list[str] = []
    written = write(folder, EXAMPLES, say=told.append)
    assert written.finished
    assert written.computed == held
    assert any("is damaged" in line for line in told) == (damage != "missing")
    assert set(folder.names(ENDING)) == before
    check_held(Cache(folder), EXAMPLES)


def test_what_is_damaged_is_cleared_away(folder: Folder) -> None:
    """Mended in batches of another size, it stays, and is read and complained of for ever."""
    names = folder.names(ENDING)
    for name in names[1:3]:
        folder.write(name, b"damaged")
        folder.local(name, anew=True)
    assert write(folder, EXAMPLES, batch_size=3).finished
    assert not {*names[1:3]} & {*folder.names(ENDING)}
    told: list[str] = []
    write(folder, EXAMPLES, say=told.append)
    assert told == []
    check_held(Cache(folder), EXAMPLES)


def test_shards_of_another_cache_are_not_taken_in(folder: Folder, url: str) -> None:
    """Whole, well named, and of another teacher."""
    other = Folder(f"{url}-other")
    write(other, EXAMPLES, about=about("another"))
    names = folder.names(ENDING)
    for name in other.names(ENDING):
        folder.write(name, other.read(name))
    index = {"shards": [*names[1:], other.names(ENDING)[0]]}
    folder.write(INDEX, json.dumps(index).encode())
    with pytest.raises(ValueError, match=f"1 of 5 damaged: {other.names(ENDING)[0]}"):
        Cache(folder)
    assert write(folder, EXAMPLES).computed == 0
    check_held(Cache(folder), EXAMPLES)
    assert set(other.names(ENDING)) < set(folder.names(ENDING))


@pytest.mark.parametrize("name", [ABOUT, INDEX])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}'])
def test_damaged_descriptions_are_named(name: str, content: bytes, folder: Folder) -> None:
    """'Expecting value: line 1 column 1' says neither which file nor what to do."""
    folder.write(name, content)
    with pytest.raises(ValueError, match=rf"^{name} of '.*' must be as this version .* writes it"):
        Cache(folder)
    if name == INDEX:
        assert write(folder, EXAMPLES).computed == 0
        check_held(Cache(folder), EXAMPLES)
    else:
        with pytest.raises(ValueError, match=rf"^{name} of .* Write the cache again; where that"):
            write(folder, EXAMPLES)


def test_a_description_of_another_teacher_hides_no_shard(folder: Folder) -> None:
    """A digest that is written and never compared: one about.json exchanged for another."""
    folder.write(ABOUT, about("another").model_dump_json().encode())
    with pytest.raises(ValueError, match="got 5 of 5 damaged"):
        Cache(folder)


def test_other_formats_are_refused_by_number(folder: Folder) -> None:
    """Files of a later version, read as if they were of this one."""
    told = json.loads(folder.read(ABOUT))
    folder.write(ABOUT, json.dumps({**told, "format": 2}).encode())
    with pytest.raises(ValueError, match=r"got format: Input should be 1. Write the cache again"):
        read_about(folder)


def test_an_unfinished_cache_is_refused(folder: Folder) -> None:
    """Half a data set, trained on as if it were the whole."""
    folder.remove(INDEX)
    with pytest.raises(ValueError, match=r"must be finished, got .* Go on with the command that"):
        Cache(folder)
    assert write(folder, EXAMPLES).computed == 0
    check_held(Cache(folder), EXAMPLES)


def test_what_is_no_cache_is_refused(url: str) -> None:
    """A wrong path is told as a missing file deep inside."""
    with pytest.raises(ValueError, match=r"must be the folder of a cache, got .*, which has no ab"):
        Cache(Folder(url))


def test_only_new_folders_and_the_same_cache_are_written_to(folder: Folder, url: str) -> None:
    """Another teacher's shards among ours; or a user's files among them."""
    check_folder(folder, about())
    changes = {"precision": "bfloat16", "shown": {"storage": "int8"}}
    with pytest.raises(
        ValueError, match=r"got another precision \(as loaded instead of bfloat16\)"
    ) as told:
        check_folder(folder, about(**changes))
    assert "; shown (" in str(told.value)
    theirs = Folder(f"{url}-theirs")
    theirs.write("thesis.txt", b"years of work")
    with pytest.raises(
        ValueError, match=r"must be new, empty or a cache, got .*, which holds somet"
    ):
        write(theirs, EXAMPLES)
    assert theirs.names("") == ["thesis.txt"]
