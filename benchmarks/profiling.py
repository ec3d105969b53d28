"""Where a step's time goes: torch.profiler over live and cached training.

    python benchmarks/profiling.py

BERT-base's shape teaches the 13M student: logits, and seven hidden states through projections.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from studies.trainers import arguments, bert, random_tokens
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_distill import DistillationTrainer
from hf_distill.evaluation.speed import machine
from hf_distill.objectives import HiddenMSE, KLDivergence

PAIRS = [(layer, 2 * layer) for layer in range(7)]
KINDS = ("float32", "bfloat16", "cached")
WARMUP, OPERATIONS = 2, 6
PARTS = {
    "teacher": "the teacher's signals",
    "student": "student, forward",
    "loss": "objectives",
    "backward": "backward",
    "clip": "clipping",
    "optimizer": "optimizer",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="measured steps (6)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    set_verbosity_error()
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.kinds:
            print(section(kind, measured(kind, options, folder), options.steps), flush=True)
    size = f"{options.batch} x {options.length} tokens"
    print(f"{options.steps} steps of {size}. Machine: {machine()}.")


def measured(kind: str, options: argparse.Namespace, folder: str) -> Any:
    """The profile of so many steps."""
    torch.manual_seed(0)
    steps = WARMUP + options.steps
    dataset = random_tokens(steps * options.batch, options.length)

    def trainer(**teacher: Any) -> DistillationTrainer:
        return DistillationTrainer(
            bert(6, 256, 8),
            arguments(f"{folder}/out", options.batch, steps),
            objectives={"kl": (1.0, KLDivergence(2.0)), "hidden": (1.0, HiddenMSE())},
            layer_mapping={"hidden": PAIRS},
            train_dataset=dataset,
            **teacher,
        )

    if kind == "cached":
        cache = f"{folder}/cache"
        trainer(teacher=bert(12, 768, 12), teacher_dtype="bfloat16").write_teacher_cache(
            cache, say=lambda line: None
        )
        timed = trainer(teacher_cache=cache)
    else:
        timed = trainer(teacher=bert(12, 768, 12), teacher_dtype=kind)
    label(timed)
    watch = Profiled()
    timed.add_callback(watch)
    timed.remove_callback(PrinterCallback)
    timed.train()
    watch.profiler.stop()
    return watch.profiler.key_averages()


class Profiled(TrainerCallback):
    """Profiles the steps after the first ones."""

    def __init__(self) -> None:
        """Not yet."""
        self.profiler = profile(activities=[ProfilerActivity.CPU])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin after the warm-up."""
        if state.global_step == WARMUP:
            self.profiler.start()


def label(trainer: DistillationTrainer) -> None:
    """Give the parts of a step their names in the profile."""

    def named(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def labelled(*args: Any, **kwargs: Any) -> Any:
            with record_function(part):
                return work(*args, **kwargs)

        return labelled

    places: dict[str, tuple[Any, str]] = {
        "teacher": (trainer.teacher, "show"),
        "student": (trainer.student, "show"),
        "backward": (trainer.accelerator, "backward"),
        "clip": (trainer.accelerator, "clip_grad_norm_"),
    }
    for part, (owner, name) in places.items():
        setattr(owner, name, named(part, getattr(owner, name)))
    trainer.mixture = named("loss", trainer.mixture)  # type: ignore[assignment]
    make = trainer.create_optimizer

    def with_name(*args: Any, **kwargs: Any) -> Any:
        optimizer = make(*args, **kwargs)
        optimizer.step = named("optimizer", optimizer.step)  # type: ignore[method-assign]
        return optimizer

    trainer.create_optimizer = with_name  # type: ignore[method-assign]


def section(kind: str, events: Any, steps: int) -> str:
    """Tables of the parts and of the costliest operations, milliseconds of a step."""
    parts = {event.key: event.cpu_time_total for event in events if event.key in PARTS}
    operations = [event for event in events if event.key.startswith("aten::")]
    operations += [event for event in events if event.key.startswith("mkldnn")]
    operations.sort(key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(parts.values())
    lines = [f"### {kind}", "", "| part | ms | share, % |", "| --- | ---: | ---: |"]
    lines += [
        f"| {PARTS[part]} | {parts[part] / 1e3 / steps:.1f} | {100 * parts[part] / total:.1f} |"
        for part in PARTS
        if part in parts
    ]
    lines += ["", "| operation, itself | ms | calls |", "| --- | ---: | ---: |"]
    lines += [
        f"| {each.key} | {each.self_cpu_time_total / 1e3 / steps:.1f} | {each.count / steps:.0f} |"
        for each in operations[:OPERATIONS]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
