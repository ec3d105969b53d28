"""What a cache is still to be given: which examples, in which order, in which files, how large."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from hf_distill.cache.keys import Places, example_keys
from hf_distill.cache.rows import RowUnit, row_counts
from hf_distill.signals.head import Head

Batches = Sequence[Sequence[int]]
"""Indices of examples, batch by batch."""
Read = Callable[[Batches], Iterable[Mapping[str, Tensor]]]
"""Gives the batches of these examples, padded."""

CHANGING = (
    "train_dataset must give the same examples each time it is read, got others: masking or "
    "augmentation is drawn anew, and a cache of the teacher can serve neither. Mask or augment the "
    "data set once, or use the teacher without a cache."
)

_SCANNED = 256
"""Examples that are looked at together."""


@dataclass(frozen=True)
class Scanned:
    """All examples, as they are told apart, and how many rows each has."""

    keys: Tensor
    """[N, 2] int64."""
    counts: Mapping[RowUnit, Tensor]
    """[N] each."""

    def distinct(self) -> list[int]:
        """The examples, of equal ones the first: the shortest first, whoever asks."""
        (first,) = torch.where(Places(self.keys).find(self.keys) == torch.arange(len(self.keys)))
        found: list[int] = first[self.counts["token"][first].argsort(stable=True)].tolist()
        return found

    def missing(self, among: Sequence[int], known: Tensor) -> list[int]:
        """Those of some examples whose keys are not among the known ones [K, 2]."""
        places = Places(known).find(self.keys[torch.tensor(among, dtype=torch.int64)])
        return [index for index, place in zip(among, places.tolist(), strict=True) if place < 0]


def scan(
    read: Read, examples: Sequence[int], head: Head, columns: Iterable[str], *, rows: bool
) -> Scanned:
    """Look at examples.

    Args:
        read: Gives batches of examples.
        examples: Their indices.
        head: The student's.
        columns: The inputs that the teacher reads.
        rows: Whether logits are kept.

    Raises:
        ValueError: An example is another one each time it is read.
    """
    columns = list(columns)

    def looked(batches: Batches) -> Iterator[tuple[Tensor, dict[RowUnit, Tensor]]]:
        for batch in read(batches):
            inputs = head.complete(dict(batch))
            targets = head.targets(inputs)
            yield example_keys(inputs, targets, columns, rows=rows), row_counts(targets)

    batches = in_batches(examples, _SCANNED)
    found = list(looked(batches))
    again = next(iter(looked(batches[:1])))[0] if batches else None
    if again is not None and not torch.equal(again, found[0][0]):
        raise ValueError(CHANGING)
    none = torch.empty(0, dtype=torch.int64)
    return Scanned(
        torch.cat([none.view(0, 2), *(keys for keys, _ in found)]),
        {
            unit: torch.cat([none, *(counts[unit] for _, counts in found)])
            for unit in get_args(RowUnit)
        },
    )


def in_batches(examples: Sequence[int], size: int) -> list[Sequence[int]]:
    """Batches of examples, in their order."""
    return [examples[at : at + size] for at in range(0, len(examples), size)]


def in_files(batches: Batches, sizes: Sequence[int], most: int) -> list[list[Sequence[int]]]:
    """Batches, gathered into files.

    Args:
        batches: The batches.
        sizes: Bytes that are stored of each.
        most: Bytes of a file; a batch is never divided.
    """
    files: list[list[Sequence[int]]] = []
    filled = 0
    for batch, size in zip(batches, sizes, strict=True):
        if not files or filled + size > most:
            files.append([])
            filled = 0
        files[-1].append(batch)
        filled += size
    return files


def bytes_of(scanned: Scanned, batch: Sequence[int], per_row: Mapping[RowUnit, int]) -> int:
    """Bytes that are stored of a batch.

    Args:
        scanned: All examples.
        batch: Some of them.
        per_row: Bytes of a row of each unit, over all signals.
    """
    own = sum(size * int(scanned.counts[unit][batch].sum()) for unit, size in per_row.items())
    # Keys, and where each unit's rows begin.
    return own + len(batch) * (16 + 8 * len(scanned.counts))
