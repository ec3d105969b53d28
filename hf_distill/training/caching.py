"""A teacher that is run once: what it shows is kept in a cache, which then stands in for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, get_args

import datasets
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer
from transformers.utils import logging

from hf_distill.cache.about import About
from hf_distill.cache.cache import Cache
from hf_distill.cache.encoding import Storage
from hf_distill.cache.folder import HOME, Folder
from hf_distill.objectives.mixture import Mixture
from hf_distill.release.facts import Facts
from hf_distill.signals.head import Head, QuestionAnswering
from hf_distill.signals.signals import Demand
from hf_distill.teacher.cached import CachedTeacher, absent
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.plan import Batches, scan
from hf_distill.teacher.several import SeveralTeachers
from hf_distill.teacher.writing import Crew, Writer, Written
from hf_distill.training.held import shown, tokenizer_digest
from hf_distill.training.pairing import class_names
from hf_distill.training.teaching import Teaching

_LOGGER = logging.get_logger(__name__)


class Caching(Trainer):
    """A trainer that can keep what its teachers show, and do without them then."""

    head: Head
    mixture: Mixture
    teacher: LiveTeacher | SeveralTeachers | CachedTeacher
    teacher_facts: dict[str, Any]
    _teaching: Teaching
    _keeps: bool = False
    """Whether a cache is to be written before the first step."""

    def write_teacher_cache(
        self,
        folder: str | os.PathLike[str],
        *,
        storage: Storage = "bfloat16",
        top: int | None = None,
        share: tuple[int, int] = (1, 1),
        say: Callable[[str], None] = _LOGGER.warning,
    ) -> Written:
        """Run the teachers over the training examples, and keep what they show.

        What stands in the folder already is not computed again; processes that `accelerate launch`
        started divide the work. Afterwards `teacher_cache=folder` trains without the teachers.

        Args:
            folder: A path, or a URL that fsspec knows.
            storage: "float32", "bfloat16" or "int8" (with a scale for each row).
            top: How many of the likeliest classes are kept of each row of logits; all without.
            share: (i, n): this machine's part of n that write into one folder, counted from 1.
            say: Is told size and time before they are spent.

        Raises:
            ValueError: Something cannot work: said before a byte is written, where it can be.
        """
        return self._write(Folder(os.fspath(folder)), self._about(storage, top), share, say)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, once the cache holds all examples, where one is used."""
        if self._keeps:
            self._keep()
        elif isinstance(self.teacher, CachedTeacher):
            self._check_examples(self.teacher)
        return super().train(*args, **kwargs)

    def _keep(self) -> None:
        about = self._about("bfloat16", None)
        folder = Folder(HOME / "teachers" / about.digest())
        written = self._write(folder, about, (1, 1), _LOGGER.warning)
        if not written.finished:
            raise ValueError(
                "teacher_cache='auto' must find all that was written on one disk, got processes on "
                "several. Write a cache where all can read it, and name its folder."
            )
        self.teacher = CachedTeacher(Cache(folder), about.shown.demand, self.head)
        self.teacher_facts = {**self.teacher_facts, "teacher_cache": about.shown.precision}
        self._teaching.dismiss()
        self._keeps = False

    def _write(
        self, folder: Folder, about: About, share: tuple[int, int], say: Callable[[str], None]
    ) -> Written:
        args = self.args
        crew = Crew(args.process_index, args.world_size, self.accelerator.wait_for_everyone)
        writer = Writer(
            folder,
            about,
            self.teacher,
            self.head,
            read=self._reader(),
            count=self._count_examples(),
            device=self.accelerator.device,
            batch_size=args.per_device_train_batch_size,
            crew=crew,
            share=share,
            say=say if self.is_world_process_zero() else lambda line: None,
        )
        with _undrawn():
            return writer.write()

    def _about(self, storage: Storage, top: int | None) -> About:
        if isinstance(self.teacher, CachedTeacher):
            raise ValueError(
                "a cache must be written by live teachers, got a trainer with teacher_cache. Leave "
                "it out, and name the teachers."
            )
        demand = self.mixture.demands()[1]
        _check_stored(storage, top, demand, self.head)
        # Numbers of a regression are matched by their places.
        named = demand.logits and self.head.problem != "regression"
        return About(
            teachers=self._teaching.members(),
            together=self._teaching.together(),
            precision=self._precision(),
            columns=self.teacher.columns,
            head=self.head.suffix,
            problem=self.head.problem,
            classes=class_names(self.model) if named else None,
            heads=self._teaching.shape.heads,
            shown=shown(demand, storage, top),
            tokenizer=tokenizer_digest(self.processing_class),
            facts=_plain(self.teacher_facts),
        )

    def _precision(self) -> str:
        """What the teachers are run in."""
        mixed = self.accelerator.mixed_precision
        asked = self.teacher_facts["teacher_dtype"]
        return asked or ("as loaded" if mixed == "no" else f"{mixed} autocast")

    def _reader(self) -> Callable[[Batches], Iterable[Mapping[str, Tensor]]]:
        dataset, collator = self.train_dataset, self.data_collator
        if isinstance(dataset, datasets.Dataset):
            dataset = self._remove_unused_columns(dataset, "training")
        else:
            collator = self._get_collator_with_removed_columns(collator, "training")
        workers = self.args.dataloader_num_workers

        def read(batches: Batches) -> Iterable[Mapping[str, Tensor]]:
            chosen = [list(batch) for batch in batches]
            return DataLoader(
                dataset, batch_sampler=chosen, collate_fn=collator, num_workers=workers
            )

        return read

    def _count_examples(self) -> int:
        streamed = isinstance(self.train_dataset, IterableDataset)
        if streamed or not hasattr(self.train_dataset, "__len__"):
            raise ValueError(
                "train_dataset must have a length to be cached, got "
                f"{type(self.train_dataset).__name__}. Write the stream into a data set first."
            )
        return len(self.train_dataset)

    def _check_examples(self, teacher: CachedTeacher) -> None:
        """Raise ValueError, in all processes, where an example is not in the cache."""
        count = self._count_examples()
        mine = range(self.args.process_index, count, self.args.world_size)
        with _undrawn():
            scanned = scan(
                self._reader(), mine, self.head, teacher.columns, rows=teacher.reads_rows
            )
        lost = torch.tensor(teacher.missing(scanned.keys), device=self.accelerator.device)
        missing = int(self.accelerator.reduce(lost, "sum"))
        if missing:
            raise ValueError(absent(missing, count))


def _undrawn() -> AbstractContextManager[None]:
    """What is trained afterwards draws as if nothing had been read here."""
    return torch.random.fork_rng(devices=[])


def _check_stored(storage: str, top: int | None, demand: Demand, head: Head) -> None:
    if storage not in get_args(Storage):
        raise ValueError(
            f"storage must be one of {', '.join(get_args(Storage))}, got {storage!r}. bfloat16 is "
            "usual."
        )
    if top is None:
        return
    if not demand.logits or head.problem != "single_label" or isinstance(head, QuestionAnswering):
        raise ValueError(
            f"top must be left out where no logits of exclusive classes are kept, got {top!r}."
            " Choose another storage, such as int8."
        )
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"top must be a whole number of at least 1, got {top!r}. Leave it out.")


def _plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as JSON can hold them."""
    return {
        name: fact.model_dump() if isinstance(fact, Facts) else fact for name, fact in facts.items()
    }
