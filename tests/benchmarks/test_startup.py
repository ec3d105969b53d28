"""What it takes to begin: rounds, tables, and steps that are told apart."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import startup
from studies.trainers import arguments, random_tokens, step_seconds
from transformers import Trainer, TrainerCallback

from tests.training.runs import student


def test_rounds_take_turns_and_the_first_is_not_kept() -> None:
    """Always the same one first: it alone would find the disk cold."""
    order: list[str] = []

    def measure(name: str) -> Callable[[], int]:
        def measured() -> int:
            order.append(name)
            return len(order)

        return measured

    found = startup.in_rounds({name: measure(name) for name in "abc"}, rounds=2)
    assert "".join(order) == "abcbcacab"
    assert found == {"a": [6, 8], "b": [4, 9], "c": [5, 7]}


def test_starts_are_compared_with_what_stands_beside_them() -> None:
    """A ratio to another import flatters, or frightens."""
    seconds = {name: [2.0, 2.0] for name in startup.STARTS}
    seconds["import hf_distill"] = [0.5, 0.5]
    lines = startup.starts_table(seconds).splitlines()
    assert len(lines) == 2 + len(startup.STARTS)
    (line,) = [each for each in lines if each.startswith("| `import hf_distill` |")]
    assert "| `import transformers` | 0.25 (0.25 to 0.25) |" in line
    assert all(
        each.beside is None or each.beside in startup.STARTS for each in startup.STARTS.values()
    )


def test_phases_are_ours_beside_the_plain_trainer() -> None:
    """The other way round a slow start looks like a fast one."""
    plain, ours = (dict.fromkeys(startup.PHASES, seconds) for seconds in (1.0, 3.0))
    plain["first step"] = 2.0
    table = startup.trainers_table({startup.PLAIN: [plain, plain], startup.OURS: [ours, ours]})
    assert "| construction | 1.000 (1.000 to 1.000) | 3.000 (3.000 to 3.000) | 3.00 (" in table
    last = "| first step / later step | 2.00 (2.00 to 2.00) | 1.00 (1.00 to 1.00) | |"
    assert table.endswith(last)


class Waits(TrainerCallback):
    """Makes the third step long."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called before each step."""
        if state.global_step == 2:
            time.sleep(0.3)


def test_seconds_are_those_of_each_step(tmp_path: Path) -> None:
    """Steps that are told of their neighbour, or without what comes before the first."""
    model = student(num_labels=6, vocab_size=30000)
    given = arguments(str(tmp_path), 2, 4, use_cpu=True, dataloader_pin_memory=False)
    trainer = Trainer(model, given, train_dataset=random_tokens(8, 5), callbacks=[Waits()])
    began = time.perf_counter()
    seconds = step_seconds(trainer)
    assert len(seconds) == 4
    assert seconds[2] > 0.3 > statistics.median(seconds)
    assert sum(seconds) < time.perf_counter() - began
