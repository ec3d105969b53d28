"""A long run needs no more memory than a short one."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from hf_distill.objectives import (
    AttentionMSE,
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    MiniLMv2,
    SimilarityKL,
)
from tests.training.runs import trainer

COUNTED = (5, 20, 35)
"""Steps, the first of them after everything is warm."""


class Live(TrainerCallback):
    """Counts live tensors, and their bytes, after some steps."""

    def __init__(self) -> None:
        self.found: list[tuple[int, int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step not in COUNTED:
            return
        gc.collect()
        # Asking by type: isinstance would wake what is lazy.
        live = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
        self.found.append((len(live), sum(each.nbytes for each in live)))


def test_live_tensors_stay_as_many(tmp_path: Path) -> None:
    """A loss kept with its graph, or features of a batch, grow until the run dies at night."""
    live = Live()
    run = trainer(
        tmp_path,
        objectives={
            "kl": (1.0, KLDivergence()),
            "task": (1.0, CrossEntropy()),
            "hidden": (1.0, HiddenMSE()),
            "relations": (1.0, MiniLMv2()),
            "maps": (1.0, AttentionMSE()),
            "similarity": (1.0, SimilarityKL()),
        },
        data_collator=padded,
        callbacks=[live],
        max_steps=COUNTED[-1],
        gradient_accumulation_steps=2,
        logging_steps=1000,
    )
    run.train()
    assert len(live.found) == len(COUNTED)
    assert len(set(live.found)) == 1, live.found
    # Nodes of a graph are no objects of Python: what waits for the next log must have none.
    waiting = run._term_log._sums.values()
    assert len(waiting) == 6
    assert not any(each.requires_grad for each in waiting)


def padded(batch: Any) -> dict[str, torch.Tensor]:
    """All batches alike."""
    size = (len(batch), 10)
    ids = torch.full(size, 7)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.zeros(len(batch), dtype=torch.long),
    }
