"""A cache is written: the teachers are run once over every example, and what they show is kept."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from hf_distill.cache.about import About, Index, Shown
from hf_distill.cache.cache import ABOUT, INDEX, check_folder
from hf_distill.cache.encoding import Error
from hf_distill.cache.folder import Folder
from hf_distill.cache.keys import example_keys
from hf_distill.cache.rows import Layout, layouts, row_counts
from hf_distill.cache.shards import ENDING, Shard, ShardBuilder, ShardFacts, open_shard
from hf_distill.cache.stored import Stored, signal_of
from hf_distill.signals.head import Head, Targets
from hf_distill.signals.signals import Signals
from hf_distill.teacher.plan import (
    CHANGING,
    Read,
    Scanned,
    bytes_of,
    in_batches,
    in_files,
    scan,
)

SHARD_BYTES = 1 << 28


class Shows(Protocol):
    """A live teacher, or several."""

    def show(self, inputs: Mapping[str, Tensor], targets: Targets) -> Signals:
        """The signals of one batch."""


@dataclass(frozen=True)
class Crew:
    """The processes of one machine, which write together."""

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None
    """Returns when all of them have called it."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that does what is done once."""
        return self.index == 0


@dataclass(frozen=True)
class Written:
    """What was done."""

    examples: int
    """That the cache holds now, of those asked for."""
    computed: int
    """That this process ran the teachers on."""
    bytes: int
    """Of all shards."""
    seconds: float
    errors: Mapping[str, float] = field(default_factory=dict)
    """Signal -> what storing lost: relative (root mean square), or KL in nats of the likeliest."""
    finished: bool = True
    """False where others are still writing."""


class Writer:
    """Fills one folder with what the teachers of one training show."""

    def __init__(
        self,
        folder: Folder,
        about: About,
        teacher: Shows,
        head: Head,
        *,
        read: Read,
        count: int,
        device: torch.device,
        batch_size: int,
        crew: Crew,
        share: tuple[int, int] = (1, 1),
        say: Callable[[str], None] = lambda line: None,
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: Where.
            about: What is to be held.
            teacher: Who shows it.
            head: The student's.
            read: Gives batches of examples.
            count: How many examples there are.
            device: Where the teacher is run.
            batch_size: Examples that it is run on together.
            crew: Who writes.
            share: (i, n), this machine's part of n that write into one folder, counted from 1.
            say: Is told what is going to be done.
            shard_bytes: Of a file, at most (but for one batch).

        Raises:
            ValueError: Something else stands in the folder, or there is no such share.
        """
        _check_share(share)
        check_folder(folder, about)
        self._folder, self._about, self._teacher, self._head = folder, about, teacher, head
        self._read, self._count, self._device = read, count, device
        self._batch_size, self._crew, self._share = batch_size, crew, share
        self._say, self._shard_bytes = say, shard_bytes
        shown = about.shown
        self._layouts: Mapping[str, Layout] = layouts(shown.demand, head, about.heads)

    def write(self) -> Written:
        """Write what is missing, and finish the cache.

        Raises:
            ValueError: The disk has no room for it, or the examples change while they are read.
            FloatingPointError: What a teacher shows is no number.
        """
        began = time.perf_counter()
        rows = self._about.shown.logits
        scanned = scan(self._read, range(self._count), self._head, self._about.columns, rows=rows)
        held = self._held({})
        number, machines = self._share
        # By example, not by file: whatever others have written by now, this machine's stay its own.
        share = scanned.distinct()[number - 1 :: machines]
        missing = scanned.missing(share, _keys(held))
        mine = self._planned(scanned, missing) if missing else []
        if self._crew.leads and ABOUT not in self._folder:
            self._folder.write(ABOUT, self._about.model_dump_json(indent=2).encode())
        self._crew.wait()
        self._fill(mine, scanned.keys)
        self._crew.wait()
        held = self._held(held)
        lost = scanned.missing(range(self._count), _keys(held))
        index = Index(shards=sorted(held), errors=_relative(held, self._about.shown))
        if not lost and self._crew.leads:
            self._folder.write(INDEX, index.model_dump_json(indent=2).encode())
            self._folder.tidy()
        self._crew.wait()
        return Written(
            examples=self._count - len(lost),
            computed=sum(len(batch) for file in mine for batch in file),
            bytes=sum(self._folder.size(name) for name in held),
            seconds=time.perf_counter() - began,
            errors=index.errors,
            finished=not lost,
        )

    def _held(self, known: Mapping[str, Shard]) -> dict[str, Shard]:
        """The shards of this cache, as far as they are whole; what is damaged is removed.

        Args:
            known: Those that were found to be whole before.
        """
        found = dict(known)
        for name in self._folder.names(ENDING):
            if name in found:
                continue
            shard = open_shard(self._folder, name)
            if shard is None and self._crew.leads:
                self._say(f"{name} is damaged: what it held is computed anew.")
                self._folder.remove(name)
            if shard is not None and shard.facts.about == self._about.digest():
                found[name] = shard
        return found

    def _planned(self, scanned: Scanned, missing: Sequence[int]) -> list[list[Sequence[int]]]:
        """The batches of each of this process's files, after saying what all will cost.

        Raises:
            ValueError: There is no room for them.
        """
        batches = in_batches(missing, self._batch_size)
        middle = batches[len(batches) // 2]
        # The longest first: whether it fits into memory is known now, not when hours have passed.
        # The first time is slower than those that follow.
        for batch in (batches[-1], middle):
            began = time.perf_counter()
            (stored,) = self._shown([batch])
            seconds = time.perf_counter() - began
        per_row = stored.bytes_per_row(self._layouts)
        sizes = [bytes_of(scanned, batch, per_row) for batch in batches]
        # By batch, not by file: a small cache is one file, and the others would stand idle.
        each = [slice(index, None, self._crew.count) for index in range(self._crew.count)]
        files = [in_files(batches[own], sizes[own], self._shard_bytes) for own in each]
        tokens = scanned.counts["token"]
        share = int(tokens[missing].sum()) / max(int(tokens[middle].sum()), 1)
        self._say(
            f"Teacher cache: {len(missing):,} of {len(scanned.keys):,} examples are to be shown "
            f"once: {sum(sizes) / 1e6:,.1f} MB in {sum(map(len, files))} files, about "
            f"{seconds * share / self._crew.count:,.0f} s, into {self._folder.url}."
        )
        self._folder.check_room(sum(sizes))
        return files[self._crew.index]

    def _fill(self, files: Sequence[Sequence[Sequence[int]]], keys: Tensor) -> None:
        """Write files: one is written while the next is computed."""
        shown = self._shown([batch for file in files for batch in file])
        with ThreadPoolExecutor(1) as pool:
            writing: list[Future[None]] = []
            for file in files:
                builder, errors, classes = ShardBuilder(), dict[str, Error](), 0
                for number, batch in enumerate(file):
                    stored = next(shown)
                    if not torch.equal(stored.keys, keys[batch]):
                        raise ValueError(CHANGING)
                    builder.add(stored.keys, stored.counts, stored.parts)
                    if number == 0:
                        errors, classes = stored.errors(), stored.classes
                facts = ShardFacts(about=self._about.digest(), classes=classes, errors=errors)
                while writing:
                    writing.pop().result()
                writing.append(pool.submit(self._keep, builder, facts))
            while writing:
                writing.pop().result()

    def _keep(self, builder: ShardBuilder, facts: ShardFacts) -> None:
        self._folder.write(*builder.finish(facts))

    def _shown(self, batches: Sequence[Sequence[int]]) -> Iterator[Stored]:
        """What is stored of each of these batches."""
        for batch in self._read(batches):
            inputs = self._head.complete(
                {n: each.to(self._device) for n, each in batch.items() if hasattr(each, "to")}
            )
            targets = self._head.targets(inputs)
            shown = self._teacher.show(inputs, targets)
            rows = {
                name: layout.rows(signal_of(shown, name), targets)
                for name, layout in self._layouts.items()
            }
            keys = example_keys(inputs, targets, self._about.columns, rows=self._about.shown.logits)
            yield Stored(keys, row_counts(targets), rows, self._about.shown)


def _check_share(share: tuple[int, int]) -> None:
    number, machines = share
    if not 1 <= number <= machines:
        raise ValueError(
            f"share must be (i, n) with i from 1 to n, got {share!r}. Count machines from 1."
        )


def _keys(shards: Mapping[str, Shard]) -> Tensor:
    return torch.cat([torch.empty(0, 2).long(), *(shard.keys for shard in shards.values())])


def _relative(shards: Mapping[str, Shard], shown: Shown) -> dict[str, float]:
    """Signal -> what storing lost, over all shards."""
    sums: dict[str, Error] = defaultdict(Error)
    for each in shards.values():
        for name, lost in each.facts.errors.items():
            sums[name] = sums[name].plus(lost)
    return {
        name: each.nats if name == "logits" and shown.top is not None else each.relative
        for name, each in sums.items()
    }
