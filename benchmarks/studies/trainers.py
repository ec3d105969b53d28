"""Small trainings that are timed: random models on random tokens, and what their steps took."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

CLASSES = 6
_PIECES = range(1000, 30000)
"""Of BERT's vocabulary: no special tokens."""


def bert(layers: int, width: int, heads: int, **changes: Any) -> BertForSequenceClassification:
    """A BERT with random weights, whose feed-forward layers are four times as wide."""
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=CLASSES,
        **changes,
    )
    return BertForSequenceClassification(config)


def random_tokens(count: int, length: int) -> Dataset:
    """So many labelled examples of one length."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(_PIECES.start, _PIECES.stop, (count, length), generator=draw)
    return Dataset.from_dict(
        {
            "input_ids": ids.numpy(),
            "attention_mask": torch.ones_like(ids).numpy(),
            "labels": torch.randint(0, CLASSES, (count,), generator=draw).numpy(),
        }
    )


def arguments(folder: str, batch: int, steps: int, **changes: Any) -> TrainingArguments:
    """Arguments of a training that neither logs nor saves."""
    quiet: Mapping[str, Any] = {
        "per_device_train_batch_size": batch,
        "max_steps": steps,
        "learning_rate": 1e-4,
        "optim": "adamw_torch_fused",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return TrainingArguments(folder, **{**quiet, **changes})


class Stopwatch(TrainerCallback):
    """Takes the time when steps end."""

    def __init__(self) -> None:
        """Start."""
        self.marks = [time.perf_counter()]

    def on_step_end(self, args: TrainingArguments, *others: Any, **kwargs: Any) -> None:
        """One more step is done."""
        if args.device.type == "cuda":
            torch.cuda.synchronize(args.device)
        self.marks.append(time.perf_counter())


def step_seconds(trainer: Trainer) -> list[float]:
    """Train; the seconds of each step, the first one counted from the call of `train`."""
    set_verbosity_error()
    disable_progress_bar()
    trainer.remove_callback(PrinterCallback)
    watch = Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    return [end - begin for begin, end in zip(watch.marks, watch.marks[1:], strict=False)]
