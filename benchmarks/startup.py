"""What it takes to begin: imports, the command line, a trainer and its first step.

    python benchmarks/startup.py

Every figure is of processes of its own, one after the other, in rounds that begin with another one
each time. A round before them, which is not counted, fills the caches of the disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from studies.quartiles import quartiles
from studies.trainers import arguments, bert, random_tokens, step_seconds
from transformers import Trainer

from hf_distill import DistillationTrainer
from hf_distill.evaluation.speed import machine


class Start(NamedTuple):
    """Something that is started, and what it is compared with."""

    arguments: Sequence[str]
    """Of the Python interpreter."""
    beside: str | None = None


TRANSFORMERS, TRAINER = "import transformers", "from transformers import Trainer"
STARTS: Mapping[str, Start] = {
    "python -c pass": Start(("-c", "pass")),
    "import torch": Start(("-c", "import torch")),
    TRANSFORMERS: Start(("-c", TRANSFORMERS)),
    TRAINER: Start(("-c", TRAINER)),
    "import hf_distill": Start(("-c", "import hf_distill"), TRANSFORMERS),
    "import hf_distill.objectives": Start(("-c", "import hf_distill.objectives"), "import torch"),
    "from hf_distill import DistillationTrainer": Start(
        ("-c", "from hf_distill import DistillationTrainer"), TRAINER
    ),
    "hf-distill --help": Start(("-m", "hf_distill", "--help"), TRANSFORMERS),
    "hf-distill list": Start(("-m", "hf_distill", "list"), TRAINER),
}
PLAIN, OURS = "Trainer", "DistillationTrainer"
STEPS, BATCH, LENGTH = 8, 16, 64
PHASES = ("construction", "first step", "later step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="measured starts of each (5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=(PLAIN, OURS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        print(json.dumps(phases(options.only)))
        return
    print(starts_table(in_rounds({name: started(name) for name in STARTS}, options.rounds)))
    trainers = {name: trained(name, options.threads) for name in (PLAIN, OURS)}
    print(f"\n{trainers_table(in_rounds(trainers, options.rounds))}")
    print(
        f"\nMedians of {options.rounds} processes each, in parentheses quartiles; ratios are of "
        f"the same round. Student L6-H256, teacher L12-H384, {BATCH} x {LENGTH} tokens, float32; "
        f"the first step is counted from train() on, a later one is the median of {STEPS - 2}. "
        f"Machine: {machine()}."
    )


def in_rounds(measures: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """What each measure gave, round by round; each round begins with another one.

    Args:
        measures: By name.
        rounds: How many are kept; one before them is not.
    """
    names, found = list(measures), {name: list[Any]() for name in measures}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            measured = measures[name]()
            if turn:
                found[name].append(measured)
    return found


def started(name: str) -> Callable[[], float]:
    """Measures the seconds from a process's start to its end."""

    def measure() -> float:
        began = time.perf_counter()
        _output(STARTS[name].arguments)
        return time.perf_counter() - began

    return measure


def trained(name: str, threads: int) -> Callable[[], dict[str, float]]:
    """Measures the phases of one trainer's start."""

    def measure() -> dict[str, float]:
        output = _output([__file__, f"--only={name}", f"--threads={threads}"])
        found: dict[str, float] = json.loads(output.splitlines()[-1])
        return found

    return measure


def _output(arguments: Sequence[str]) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def starts_table(found: Mapping[str, Sequence[float]]) -> str:
    """Seconds of each start, and as a part of what it is compared with."""
    lines = ["| what is started | seconds | beside | ratio |", "| --- | ---: | --- | ---: |"]
    for name, seconds in found.items():
        beside = STARTS[name].beside
        compared = "" if beside is None else _ratios(seconds, found[beside])
        cells = [f"`{name}`", quartiles(seconds).shown(2), f"`{beside}`" if beside else ""]
        lines.append(f"| {' | '.join([*cells, compared])} |")
    return "\n".join(lines)


def trainers_table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Seconds of each phase, ours beside the plain Trainer's."""
    lines = [f"| phase | {PLAIN}, s | {OURS}, s | ratio |", "| --- | ---: | ---: | ---: |"]
    for phase in PHASES:
        plain, ours = ([each[phase] for each in found[name]] for name in (PLAIN, OURS))
        shown = [quartiles(seconds).shown(3) for seconds in (plain, ours)]
        lines.append(f"| {' | '.join([phase, *shown, _ratios(ours, plain)])} |")
    later = [[each["first step"] / each["later step"] for each in found[n]] for n in (PLAIN, OURS)]
    shown = [quartiles(ratios).shown(2) for ratios in later]
    lines.append(f"| first step / later step | {shown[0]} | {shown[1]} | |")
    return "\n".join(lines)


def _ratios(above: Sequence[float], below: Sequence[float]) -> str:
    pairs = zip(above, below, strict=True)
    return quartiles([first / second for first, second in pairs]).shown(2)


def phases(name: str) -> dict[str, float]:
    """Seconds of each phase of a trainer in this process."""
    torch.manual_seed(0)
    student, teacher = bert(6, 256, 8), bert(12, 384, 12)
    dataset = random_tokens(BATCH * STEPS, LENGTH)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(folder, BATCH, STEPS, use_cpu=True, dataloader_pin_memory=False)
        began = time.perf_counter()
        if name == OURS:
            trainer = DistillationTrainer(student, given, teacher=teacher, train_dataset=dataset)
        else:
            trainer = Trainer(student, given, train_dataset=dataset)
        constructed = time.perf_counter() - began
        first, _, *later = step_seconds(trainer)
    return dict(zip(PHASES, (constructed, first, statistics.median(later)), strict=True))


if __name__ == "__main__":
    main()
