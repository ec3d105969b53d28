"""What a Trainer needs to be resumed exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices

from hf_distill.student.factorised import load_factors, save_factors

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
    """A Trainer that, resumed after any step, goes on as if it had not been stopped.

    Length grouping gives the batches that it would have given; factorised embeddings, of which a
    checkpoint has the product, find their factors.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            sampler = EpochLengthGroupedSampler(sampler, seed)
            self.remove_callback(SetEpoch)
            self.add_callback(SetEpoch(sampler))
        return sampler

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            save_factors(self.model, output_dir or self.args.output_dir)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        load_factors(self.model, resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        load_factors(self.model, str(self.state.best_model_checkpoint))
        super()._load_best_model()
