"""Length grouping that resumes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

LENGTH_GROUPED: dict[str, Any] = (
    {"train_sampling_strategy": "group_by_length"}
    if hasattr(TrainingArguments, "train_sampling_strategy")
    else {"group_by_length": True}
)
"""The argument that asks for length grouping, as this version of transformers calls it."""


class EpochLengthGroupedSampler(LengthGroupedSampler):
    """The same batches as the Trainer's, in an order that is a function of (seed, epoch) alone.

    The Trainer's own sampler draws from the global random state, so that a resumed run sees other
    batches.
    """

    def __init__(self, sampler: LengthGroupedSampler, seed: int) -> None:
        """Take over the batch size and lengths of the Trainer's sampler."""
        super().__init__(sampler.batch_size, lengths=sampler.lengths)
        self.seed, self.epoch = seed, 0

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class SetEpoch(TrainerCallback):
    """Tells the sampler its epoch: accelerate's call does not reach it through a resumed loader."""

    def __init__(self, sampler: EpochLengthGroupedSampler) -> None:
        """Keep the sampler."""
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called before the loader is iterated."""
        self.sampler.epoch = int(state.epoch or 0)


class ExactlyResumed(Trainer):
    """A Trainer that, resumed after any step, sees the batches that it would have seen."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            sampler = EpochLengthGroupedSampler(sampler, seed)
            self.remove_callback(SetEpoch)
            self.add_callback(SetEpoch(sampler))
        return sampler
