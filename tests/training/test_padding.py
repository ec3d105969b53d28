"""How much of what the student is given is padding, as the log tells it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.training.resuming import LENGTH_GROUPED
from hf_distill.training.terms import TermLog
from tests.training.runs import SEQ2SEQ, examples, logged, trainer
from tests.training.test_terms import Reads

OBJECTIVES = {"kl": (1.0, KLDivergence())}


class InOrder(IterableDataset):
    """Examples of the given lengths, in that order."""

    def __init__(self, lengths: Sequence[int]) -> None:
        super().__init__()
        self.lengths = lengths

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for length in self.lengths:
            ids = torch.arange(3, 3 + length)
            yield {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "labels": torch.tensor(0),
            }


def fractions(folder: Path, lengths: Sequence[int], **given: Any) -> list[float]:
    run = trainer(folder, train_dataset=InOrder(lengths), objectives=OBJECTIVES, **given)
    run.train()
    return logged(run, "padding_fraction")


def test_share_is_that_of_the_batches(tmp_path: Path) -> None:
    """A share of the longest text, or of max_length, says nothing about what was computed."""
    lengths = [2, 4, 4, 6, 5, 5, 5, 5]
    assert fractions(tmp_path, lengths) == pytest.approx([1 - 16 / 24, 0.0])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_share_is_of_all_tokens_since_the_last_log(tmp_path: Path, accumulation: int) -> None:
    """A mean of the batches' shares, or the last micro-batch alone, hides where the padding is."""
    lengths = [1, 9, 2, 2, 3, 3, 1, 2, *[4] * 8]
    found = fractions(
        tmp_path,
        lengths,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=accumulation,
        max_steps=8 // accumulation,
        logging_steps=4 // accumulation,
    )
    assert found == pytest.approx([1 - 23 / (18 + 4 + 6 + 4), 0.0])


def test_batches_without_a_mask_have_no_padding(tmp_path: Path) -> None:
    """The student reads every token there: none of them is padding to it."""
    dataset = [{"input_ids": one["input_ids"][:3], "labels": one["labels"]} for one in examples(8)]
    run = trainer(tmp_path, train_dataset=dataset, objectives=OBJECTIVES)
    run.train()
    assert logged(run, "padding_fraction") == [0.0, 0.0]


def test_share_is_the_encoders_beside_a_decoder(tmp_path: Path) -> None:
    """Targets that are shorter than texts would count as if the encoder had read them."""
    objectives = {"hidden": (1.0, HiddenMSE())}
    seen: list[float] = []
    run = trainer(tmp_path, SEQ2SEQ, objectives=objectives)
    run.model.get_encoder().register_forward_pre_hook(
        lambda _, args, given: seen.append(1 - given["attention_mask"].float().mean().item()),
        with_kwargs=True,
    )
    run.train()
    assert logged(run, "padding_fraction") == pytest.approx(seen)
    assert max(seen) > 0


def test_grouping_by_length_leaves_less_padding(tmp_path: Path) -> None:
    """An argument that is accepted and changes nothing costs half of the computation."""
    shares = []
    for sampling in ({}, LENGTH_GROUPED):
        options = {"max_steps": -1, "num_train_epochs": 1, "logging_strategy": "epoch", **sampling}
        run = trainer(tmp_path, count=128, objectives=OBJECTIVES, **options)
        run.train()
        shares += logged(run, "padding_fraction")
    random, grouped = shares
    assert 0 < grouped < random / 2


def test_counting_waits_for_no_device() -> None:
    """A number that is read in every step stops an accelerator in every step."""
    log = TermLog()
    with Reads() as reads:
        for _ in range(3):
            log.count_step([torch.ones(2, 3, dtype=torch.bool)] * 2)
    assert reads.count == 0
