"""What the trainer costs beside a loop written by hand: seconds per step, and peak memory.

    python benchmarks/overhead.py

One process does both, a step of the one after a step of the other, so that whatever else the
machine does hits both alike. The loop does the same work: the same models, data, losses, clipping,
fused AdamW and schedule. Memory is the peak of a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from studies import memory
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_distill import DistillationTrainer
from hf_distill.evaluation.speed import machine
from hf_distill.objectives import CrossEntropy, HiddenMSE, KLDivergence

WORKS = ("logits", "intermediate")
PAIRS = [(layer, 2 * layer) for layer in range(7)]
CLASSES, LEARNING_RATE = 6, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=30, help="measured steps of each (30)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them (3)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=("trainer", "loop"), help=argparse.SUPPRESS)
    parser.add_argument("--work", choices=WORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    set_verbosity_error()
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    if options.only:
        print(json.dumps(peak(options)))
        return
    print("| work | loop, s/step | trainer, s/step | ratio (spread) | memory ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for work in WORKS:
        print(row(options, work), flush=True)
    size = f"{options.batch} x {options.length} tokens"
    print(
        f"\nTeacher L12-H384, student L6-H256, {size}, float32; medians of {options.steps} "
        f"interleaved steps, spread: quartiles of the paired ratios. Machine: {machine()}."
    )


def row(options: argparse.Namespace, work: str) -> str:
    """One line of the table."""
    loop, trainer = times(options, work)
    ratios = [ours / raw for ours, raw in zip(trainer, loop, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    peaks = {only: child(options, work, only) for only in ("loop", "trainer")}
    return (
        f"| {work} | {statistics.median(loop):.3f} | {statistics.median(trainer):.3f} "
        f"| {middle:.3f} ({low:.3f} to {high:.3f}) | {peaks['trainer'] / peaks['loop']:.3f} |"
    )


def models() -> tuple[BertForSequenceClassification, BertForSequenceClassification]:
    """Student and teacher, random weights."""
    torch.manual_seed(0)
    student = BertConfig(
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=1024,
        num_labels=CLASSES,
    )
    teacher = BertConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=CLASSES,
    )
    return BertForSequenceClassification(student), BertForSequenceClassification(teacher).eval()


def examples(options: argparse.Namespace) -> list[dict[str, torch.Tensor]]:
    """Random tokens, full length."""
    count = options.batch * (options.steps + options.warmup)
    return [
        {
            "input_ids": torch.randint(1000, 30000, (options.length,)),
            "attention_mask": torch.ones(options.length, dtype=torch.long),
            "labels": torch.randint(0, CLASSES, ()),
        }
        for _ in range(count)
    ]


def build_loop(options: argparse.Namespace, work: str) -> Callable[[], None]:
    """One step of the loop, to be called again and again."""
    student, teacher = models()
    projections = nn.ModuleList(nn.Linear(256, 384) for _ in PAIRS)
    learnt = [*student.parameters(), *(projections.parameters() if work != "logits" else ())]
    optimizer = torch.optim.AdamW(learnt, lr=LEARNING_RATE, fused=True)
    total = options.steps + options.warmup
    schedule = get_linear_schedule_with_warmup(optimizer, 0, total)
    data = iter(torch.utils.data.DataLoader(examples(options), options.batch, shuffle=True))
    hidden = work == "intermediate"

    def step() -> None:
        student.train()
        batch = next(data)
        labels = batch.pop("labels")
        with torch.no_grad():
            taught = teacher(**batch, output_hidden_states=hidden)
        shown = student(**batch, output_hidden_states=hidden)
        soft = [(shown.logits / 2).log_softmax(-1), (taught.logits / 2).log_softmax(-1)]
        loss = 4 * nn.functional.kl_div(*soft, reduction="batchmean", log_target=True)
        loss = loss + nn.functional.cross_entropy(shown.logits, labels)
        if hidden:
            for (ours, theirs), projection in zip(PAIRS, projections, strict=True):
                difference = projection(shown.hidden_states[ours]) - taught.hidden_states[theirs]
                loss = loss + difference.pow(2).mean() / len(PAIRS)
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.item()

    return step


class Stopwatch(TrainerCallback):
    """Times the trainer's steps, and does one of the loop's after each."""

    def __init__(self, other: Callable[[], None] | None) -> None:
        """Take the loop's step."""
        self.other, self.ours, self.others = other, list[float](), list[float]()
        self.began = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start."""
        self.began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop, let the other one step, start again."""
        self.ours.append(time.perf_counter() - self.began)
        began = time.perf_counter()
        if self.other:
            self.other()
        self.began = time.perf_counter()
        self.others.append(self.began - began)


def train(options: argparse.Namespace, work: str, watch: Stopwatch) -> None:
    """The trainer's part."""
    student, teacher = models()
    objectives = {"kl": (1.0, KLDivergence(2.0)), "task": (1.0, CrossEntropy())}
    if work == "intermediate":
        objectives["hidden"] = (1.0, HiddenMSE())
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=options.batch,
            max_steps=options.steps + options.warmup,
            learning_rate=LEARNING_RATE,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_steps=10**6,
            use_cpu=True,
        )
        trainer = DistillationTrainer(
            student,
            arguments,
            teacher=teacher,
            objectives=objectives,
            layer_mapping={"hidden": PAIRS} if work == "intermediate" else None,
            train_dataset=examples(options),
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def times(options: argparse.Namespace, work: str) -> tuple[list[float], list[float]]:
    """Seconds of the loop's steps and of the trainer's, without the first ones."""
    watch = Stopwatch(build_loop(options, work))
    train(options, work, watch)
    return watch.others[options.warmup :], watch.ours[options.warmup :]


def peak(options: argparse.Namespace) -> int:
    """This process's peak of memory after one of the two did a few steps."""
    options.steps = 6
    if options.only == "trainer":
        train(options, options.work, Stopwatch(None))
    else:
        step = build_loop(options, options.work)
        for _ in range(options.steps + options.warmup):
            step()
    return memory.peak()


def child(options: argparse.Namespace, work: str, only: str) -> int:
    """The peak of a process of its own."""
    given = [f"--{name}={getattr(options, name)}" for name in ("batch", "length", "threads")]
    command = [sys.executable, __file__, f"--only={only}", f"--work={work}", *given]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(shown.splitlines()[-1])


if __name__ == "__main__":
    main()
