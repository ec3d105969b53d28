"""The questions that are asked: which starts, sizes, objectives, budgets and rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hf_distill.objectives import (
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    MiniLMv2,
    SimilarityKL,
)
from hf_distill.objectives.base import Objective

TEXT = "text"
"""The part without a task: a sentence encoder learns from plain text."""
RANDOM = "random"
"""Fresh weights: the control."""
IMPORTANCE = "ETD-Impt"
STARTS = (RANDOM, "stride", "ETD-Rand", "magnitude", IMPORTANCE)
RESCALED = f"{IMPORTANCE}, rescaled"
"""The same units, with queries scaled to what their heads have lost: another start just where heads
are cut inside."""
SEEDS = (1, 2, 3)
SWEPT = 0
"""The seed of the runs that rates were chosen by: no other run has it."""


@dataclass(frozen=True)
class Taught:
    """What a student learns from: weighted terms, and the layers that they compare."""

    terms: Mapping[str, tuple[float, Objective]]
    mapping: str | None = None
    """Each objective's own default without."""


_STATES = {"hidden": (1.0, HiddenMSE()), "similarity": (4.0, SimilarityKL(temperature=0.2))}
OBJECTIVES: Mapping[str, Taught] = {
    # What `DistillationTrainer` chooses for a student without a head: every layer of the student.
    "hidden": Taught(_STATES),
    # The same of the last layer alone.
    "last": Taught(_STATES, "last"),
    # As many relation heads as divide the width of every student; of the last layer.
    "relation": Taught({"relation": (1.0, MiniLMv2(relation_heads=16))}),
    "logits": Taught({"kl": (1.0, KLDivergence(temperature=2.0)), "task": (1.0, CrossEntropy())}),
}
USUAL = "usual"
"""Of a task: what `DistillationTrainer` chooses, hidden states beside logits and labels."""

SHORT, LONG, OF_A_TASK = 400, 3000, 500


_AS = {("sst2", USUAL): ("trec", USUAL), ("trec", "logits"): ("trec", USUAL)}
"""Whose rates are taken where none are tried."""

Results = Mapping["Cell", Mapping[str, Any]]
"""Cell -> score, curve, teacher, seconds: of the finished ones."""


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    task: str
    size: str
    objective: str
    start: str
    steps: int
    rate: float | None
    """None: not chosen yet."""
    seed: int

    @property
    def name(self) -> str:
        """As a file name."""
        return "-".join(f"{each}" for each in vars(self).values()).lower()

    def definition(self) -> dict[str, object]:
        """What the run is, as JSON reads it back: where any of it changes, it is another run."""
        taught = OBJECTIVES.get(self.objective, Taught({}))
        terms = {
            name: [weight, type(each).__name__, each.settings()]
            for name, (weight, each) in taught.terms.items()
        }
        whole = {**vars(self), "terms": terms, "mapping": taught.mapping}
        return dict(json.loads(json.dumps(whole)))


@dataclass(frozen=True)
class Batch:
    """Runs that differ in start, steps, seed and rate."""

    task: str
    size: str
    objective: str
    starts: Sequence[str]
    steps: Sequence[int]
    seeds: Sequence[int] = SEEDS
    rates: Sequence[float] | None = None
    """The chosen ones without."""

    def cells(self, results: Results) -> Iterator[Cell]:
        """Every run, seed after seed."""
        for seed, steps, start in product(self.seeds, self.steps, self.starts):
            rates = self.rates or (chosen_rate(results, self.task, self.objective, start, steps),)
            for rate in rates:
                yield Cell(self.task, self.size, self.objective, start, steps, rate, seed)


def _sweep(task: str, objective: str, steps: int, rates: Sequence[float]) -> Batch:
    return Batch(task, "13M", objective, BOTH, (steps,), (SWEPT,), rates)


CHOSEN = ("ETD-Rand", "magnitude", IMPORTANCE)
"""Cuts that are followed further."""
BOTH = (RANDOM, "magnitude")
"""Where only layers are left out, every cut is the same."""
FIRST, OTHERS = SEEDS[:1], SEEDS[1:]
PARTS_OF_SHORT = (SHORT // 20, SHORT // 10)
PARTS_OF_LONG = (LONG // 20, LONG * 3 // 20)

BATCHES: tuple[Batch, ...] = (
    _sweep(TEXT, "hidden", SHORT, (3e-4, 1e-3, 3e-3)),
    Batch(TEXT, "13M", "last", (RANDOM,), (SHORT,), (SWEPT,), (3e-4, 1e-3, 3e-3)),
    Batch(TEXT, "13M", "last", ("magnitude",), (SHORT,), (SWEPT,), (3e-4,)),
    Batch(TEXT, "13M", "hidden", STARTS, (SHORT,), FIRST),
    Batch(TEXT, "13M", "hidden", (RANDOM,), (LONG,), FIRST, (1e-3, 5e-4, 3e-4)),
    Batch(TEXT, "13M", "hidden", (*BOTH, IMPORTANCE), (LONG,), FIRST),
    Batch(TEXT, "13M", "hidden", CHOSEN, PARTS_OF_SHORT, FIRST),
    _sweep("trec", USUAL, OF_A_TASK, (2e-4, 5e-4, 1e-3)),
    Batch("trec", "13M", USUAL, STARTS, (OF_A_TASK,)),
    Batch(TEXT, "L6-H192-A12", "hidden", (RANDOM, IMPORTANCE, RESCALED), (SHORT,), FIRST),
    Batch(TEXT, "13M", "hidden", STARTS, (SHORT,), OTHERS),
    Batch(TEXT, "13M", "hidden", CHOSEN, PARTS_OF_LONG, FIRST),
    Batch(TEXT, "L6-H192-A12", "hidden", (RANDOM, IMPORTANCE, RESCALED), (SHORT,), OTHERS),
    _sweep(TEXT, "relation", SHORT, (3e-4, 1e-3)),
    Batch(TEXT, "13M", "relation", STARTS, (SHORT,), FIRST),
    Batch("sst2", "13M", USUAL, STARTS, (OF_A_TASK,), FIRST),
    Batch(TEXT, "L3-H384", "hidden", BOTH, (SHORT,), FIRST),
    Batch(TEXT, "L3-H384", "relation", BOTH, (SHORT,), FIRST),
    Batch("trec", "13M", "logits", BOTH, (OF_A_TASK,)),
    Batch(TEXT, "13M", "hidden", CHOSEN, PARTS_OF_SHORT, OTHERS),
    Batch(TEXT, "13M", "hidden", (RANDOM, *CHOSEN), (LONG,)),
    Batch(TEXT, "13M", "relation", STARTS, (SHORT,), OTHERS),
    Batch("sst2", "13M", USUAL, STARTS, (OF_A_TASK,), OTHERS),
    Batch(TEXT, "L3-H384", "hidden", BOTH, (SHORT,), OTHERS),
    Batch(TEXT, "L3-H384", "relation", BOTH, (SHORT,), OTHERS),
    Batch(TEXT, "13M", "hidden", CHOSEN, PARTS_OF_LONG, OTHERS),
    Batch(TEXT, "13M", "relation", BOTH, (LONG,), FIRST),
)
"""The most telling first: an unfinished study is the upper part of the list."""


def tried() -> list[Cell]:
    """The runs by which rates are chosen. A few are of a seed that is compared, too."""
    return [cell for batch in BATCHES if batch.rates for cell in batch.cells({})]


def chosen_rate(
    results: Results, task: str, objective: str, start: str, steps: int
) -> float | None:
    """Of the rates that were tried the best, by fidelity or accuracy at the end.

    Fresh weights have a rate of their own, and one for each budget in which some were tried; cuts
    have one. None until all are tried.
    """
    asked = _AS.get((task, objective), (task, objective))
    kin = [
        cell
        for cell in tried()
        if (cell.task, cell.objective) == asked and (cell.start == RANDOM) == (start == RANDOM)
    ]
    kin = [cell for cell in kin if cell.steps == steps] or [
        cell for cell in kin if cell.steps != LONG
    ]
    if not all(cell in results for cell in kin):
        return None
    judge = "fidelity" if task == TEXT else "accuracy"
    return max(kin, key=lambda cell: results[cell]["curve"][judge][-1]).rate


def cells(results: Results) -> list[Cell]:
    """Every run once, in the order in which they are done.

    Args:
        results: Of those that were tried, at least.
    """
    return list(dict.fromkeys(cell for batch in BATCHES for cell in batch.cells(results)))
