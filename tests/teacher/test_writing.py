"""A cache is written once, whoever stops it, and whoever helps."""

from __future__ import annotations

import math
import multiprocessing
import random
import threading
import time
from collections import namedtuple
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from torch import Tensor

from hf_distill.cache import folder as folder_room
from hf_distill.cache.cache import INDEX, Cache
from hf_distill.cache.folder import Folder
from hf_distill.cache.shards import ENDING, Shard
from hf_distill.signals.signals import Signals
from hf_distill.teacher.plan import Batches
from hf_distill.teacher.writing import Crew, Written
from tests.teacher.counting import (
    CountingTeacher,
    about,
    check_held,
    reader,
    sentences,
    write,
    write_slowly,
    writer,
)
from tests.training.runs import collate

EXAMPLES = sentences(18)
PROBED = 2 * 4
"""Examples that are shown to know size and time."""
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "cache") if request.param == "local" else f"memory://{uuid4().hex}/cache"


def shards(url: str) -> dict[str, Shard]:
    folder = Folder(url)
    return {name: Shard(folder.local(name)) for name in folder.names(ENDING)}


def test_every_example_is_shown_once(url: str) -> None:
    """What is run twice is the time that the cache was to save."""
    teacher = CountingTeacher()
    written = write(url, EXAMPLES, teacher)
    assert len(teacher.seen) <= PROBED + 18
    assert set(teacher.seen) == {int(each["input_ids"][0]) for each in EXAMPLES}
    assert (written.examples, written.computed, written.finished) == (18, 18, True)
    assert written.bytes == sum(Folder(url).size(name) for name in shards(url))
    assert written.errors == {"logits": 0.0, "hidden.1": 0.0}
    check_held(Cache(Folder(url)), EXAMPLES)


def test_a_second_writing_runs_no_teacher(url: str) -> None:
    """A cache that is probed each time it is opened needs its teacher for ever."""
    write(url, EXAMPLES)
    teacher = CountingTeacher()
    written = write(url, EXAMPLES, teacher)
    assert teacher.seen == []
    assert (written.examples, written.computed, written.finished) == (18, 0, True)


def test_a_grown_data_set_is_added_to(url: str) -> None:
    """More examples, and the old ones computed again; or their shards forgotten."""
    write(url, EXAMPLES)
    before = set(shards(url))
    more, teacher = sentences(9, first=12), CountingTeacher()
    written = write(url, [*EXAMPLES, *more], teacher)
    assert written.computed == 3
    assert set(teacher.seen) == {3 + 18, 3 + 19, 3 + 20}
    assert before < set(shards(url))
    check_held(Cache(Folder(url)), [*EXAMPLES, *more])


def test_files_end_where_they_are_full(url: str) -> None:
    """Files of one batch each are hundreds of thousands; one file for all is never kept early."""
    write(url, EXAMPLES, shard_bytes=10**6)
    assert len(shards(url)) == 1
    other = f"{url}-other"
    write(other, EXAMPLES, shard_bytes=700)
    assert 1 < len(shards(other)) < 5
    check_held(Cache(Folder(url)), EXAMPLES)
    check_held(Cache(Folder(other)), EXAMPLES)


@pytest.mark.parametrize(
    "shown", [{}, {"storage": "bfloat16"}, {"storage": "int8"}, {"top": 2, "storage": "int8"}]
)
def test_the_estimate_is_what_is_written(shown: dict[str, Any], tmp_path: Path) -> None:
    """An estimate without scales, keys or places says that it fits, and then the disk is full."""
    told: list[str] = []
    room: list[int] = []
    work = writer(tmp_path / "c", EXAMPLES, CountingTeacher(), about=about(shown=shown))
    work._say = told.append
    work._folder.check_room = room.append  # type: ignore[method-assign]
    written = work.write()
    (estimate,) = room
    assert len(told) == 1
    assert told[0].startswith("Teacher cache: 18 of 18 examples are to be shown once: 0.0 MB in 5 ")
    headers = 0
    for name in shards(str(tmp_path / "c")):
        content = (tmp_path / "c" / name).read_bytes()
        # A length, the names, one starting place for each of four units.
        headers += 8 + int.from_bytes(content[:8], "little") + 4 * 8
    assert written.bytes == estimate + headers


def test_a_full_disk_is_refused_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of a hundred files does not fit: known before the first, or after a night."""
    monkeypatch.setattr(folder_room.shutil, "disk_usage", lambda _: Usage(100, 90, 10))
    with pytest.raises(ValueError, match="must have room for"):
        write(tmp_path / "c", EXAMPLES)
    assert not (tmp_path / "c").exists()


class Broken:
    """A file system that fails at its n-th change, in the middle of it."""

    def __init__(self, real: Any, when: int) -> None:
        self._real, self.left = real, when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def _fails(self) -> bool:
        self.left -= 1
        return self.left == 0

    def makedirs(self, *args: Any, **kwargs: Any) -> None:
        if self._fails():
            raise OSError("stopped")
        self._real.makedirs(*args, **kwargs)

    def pipe_file(self, path: str, content: bytes) -> None:
        if self._fails():
            self._real.pipe_file(path, content[: len(content) // 2])
            raise OSError("stopped")
        self._real.pipe_file(path, content)

    def mv(self, old: str, new: str) -> None:
        if self._fails():
            raise OSError("stopped")
        self._real.mv(old, new)

    def rm_file(self, path: str) -> None:
        if self._fails():
            raise OSError("stopped")
        self._real.rm_file(path)


def test_stopped_at_any_change_it_goes_on(url: str) -> None:
    """Half a shard, an index before its shards, or a folder that can never be written again."""
    for when in range(1, 100):
        place = f"{url}-{when}"
        folder = Folder(place)
        folder._fs = Broken(folder._fs, when)
        with suppress(OSError):
            write(folder, EXAMPLES)
            break
        if Folder(place).names(ENDING) and INDEX not in Folder(place):
            with pytest.raises(ValueError, match="must be finished, got"):
                Cache(Folder(place))
        kept = sum(len(shard.keys) for shard in shards(place).values())
        written = write(place, EXAMPLES)
        assert (written.computed, written.finished) == (18 - kept, True)
        check_held(Cache(Folder(place)), EXAMPLES)
        assert not Folder(place).names(".partial")
    assert 18 < when < 90


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    """A signal that no code can catch: what was finished is computed again, or half a file read."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.teacher.counting"])
    count, folder = 60, tmp_path / "c"
    random.seed(1)
    pauses = [None, *(random.uniform(0.01, 0.09) for _ in range(8))]
    for pause in pauses:
        child = context.Process(target=write_slowly, args=(str(folder), count))
        child.start()
        if pause is None:  # The first one starts the server.
            while not list(folder.glob(f"*{ENDING}")):
                time.sleep(0.002)
        else:
            time.sleep(pause)
        child.kill()
        child.join()
    examples = sentences(count)
    kept = shards(str(folder))
    done = sum(len(shard.keys) for shard in kept.values())
    assert 0 < done <= count
    written = write(folder, examples)
    assert written.computed == count - done
    assert kept.keys() <= shards(str(folder)).keys()
    check_held(Cache(Folder(folder)), examples)
    assert sum(len(shard.keys) for shard in shards(str(folder)).values()) == count


def together(url: str, count: int) -> list[Written]:
    """What processes write that work at the same time: threads, that wait as processes do."""
    barrier = threading.Barrier(count, timeout=60)
    found: dict[int, Written] = {}

    def work(index: int) -> None:
        crew = Crew(index, count, lambda: barrier.wait() and None)
        found[index] = write(url, EXAMPLES, crew=crew)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(count)]


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_write_what_one_does(count: int, tmp_path: Path) -> None:
    """Files that nobody writes, or both; an index before the other one has finished."""
    url = str(tmp_path / "cache")  # Threads that read one file of memory:// share its position.
    written = together(url, count)
    assert sum(each.computed for each in written) == 18
    assert all(each.computed > 0 for each in written)
    assert all(each.finished and each.examples == 18 for each in written)
    alone = f"{url}-alone"
    write(alone, EXAMPLES)
    assert Folder(url).names("") == Folder(alone).names("")
    assert Folder(url).read(INDEX) == Folder(alone).read(INDEX)
    check_held(Cache(Folder(url)), EXAMPLES)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_machines_share_one_after_the_other(order: tuple[int, int], url: str) -> None:
    """A second machine that divides what the first one left writes a half of a half."""
    first = write(url, EXAMPLES, share=(order[0], 2))
    assert (first.computed, first.examples, first.finished) == (9, 9, False)
    with pytest.raises(ValueError, match="must be finished"):
        Cache(Folder(url))
    teacher = CountingTeacher()
    second = write(url, EXAMPLES, teacher, share=(order[1], 2))
    assert (second.computed, second.examples, second.finished) == (9, 18, True)
    assert len(set(teacher.seen)) == 9
    check_held(Cache(Folder(url)), EXAMPLES)


@pytest.mark.parametrize("share", [(0, 2), (3, 2), (1, 0)])
def test_shares_are_counted_from_one(share: tuple[int, int], tmp_path: Path) -> None:
    """(0, 2) and (1, 2) write the same half, and wait for the other for ever."""
    with pytest.raises(ValueError, match=r"share must be \(i, n\) with i from 1 to n, got"):
        write(tmp_path / "c", EXAMPLES, share=share)


class Wrong(CountingTeacher):
    """Overflows on one sentence."""

    def show(self, *args: Any) -> Signals:
        shown = super().show(*args)
        if 7 in self.seen and shown.logits is not None:
            return replace(shown, logits=shown.logits * math.inf)
        return shown


def test_no_number_is_ever_kept(url: str) -> None:
    """NaN of one example in ten thousand: training breaks a day later, and at every resume."""
    with pytest.raises(FloatingPointError, match="must be finite numbers, got others in logits"):
        write(url, EXAMPLES, Wrong())
    for shard in shards(url).values():
        for place in range(len(shard.keys)):
            assert shard.parts("logits", "sequence", place)[""].isfinite().all()
    assert INDEX not in Folder(url)
    write(url, EXAMPLES)
    check_held(Cache(Folder(url)), EXAMPLES)


def test_examples_that_change_later_are_refused(url: str) -> None:
    """A transform that is rarely drawn: the plan saw one text, and the teacher is shown another."""
    reads = [0]

    def drifting(batches: Batches) -> Iterable[Mapping[str, Tensor]]:
        for batch in reader(EXAMPLES)(batches):
            reads[0] += 1
            # After the scan, its repetition and both probes.
            yield {**batch, "input_ids": batch["input_ids"] + (reads[0] > 5)}

    with pytest.raises(ValueError, match="must give the same examples each time it is read, got"):
        write(url, EXAMPLES, read=drifting)


def test_equal_examples_are_kept_once(url: str) -> None:
    """A data set that repeats itself fills the disk with the same rows."""
    twice = [*EXAMPLES, *EXAMPLES]
    written = write(url, twice)
    assert (written.computed, written.examples) == (18, 36)
    assert len(Cache(Folder(url))) == 18
    check_held(Cache(Folder(url)), twice)


def test_other_columns_are_not_moved(tmp_path: Path) -> None:
    """Texts beside tokens have no device: a batch with them is read in training, and not here."""

    def read(batches: Batches) -> Iterable[Mapping[str, Any]]:
        for batch in batches:
            yield {**collate([EXAMPLES[index] for index in batch]), "text": ["a"] * len(batch)}

    assert write(tmp_path / "c", EXAMPLES, read=read).finished


def test_errors_are_told_by_signal(tmp_path: Path) -> None:
    """What is chosen by is what was measured: relative for states, nats for the likeliest."""
    kept = write(tmp_path / "c", EXAMPLES, about=about(shown={"storage": "int8", "top": 2}))
    exact = write(tmp_path / "e", EXAMPLES, about=about(shown={"storage": "int8"}))
    assert 0 < exact.errors["logits"] < 0.01
    assert 0 < exact.errors["hidden.1"] < 0.01
    assert kept.errors["hidden.1"] == exact.errors["hidden.1"]
    assert kept.errors["logits"] != exact.errors["logits"]
