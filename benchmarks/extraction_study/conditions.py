"""The questions that are asked: which starts, sizes, objectives, budgets and rates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from hf_distill.objectives import HiddenMSE, MiniLMv2, SimilarityKL
from hf_distill.objectives.base import Objective

TEXT = "text"
"""The part without a task: a sentence encoder learns from plain text."""
RANDOM = "random"
"""Fresh weights: the control."""
STARTS = (RANDOM, "stride", "ETD-Rand", "magnitude")
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
    "layers": Taught(_STATES),
    # The same of the last layer alone.
    "hidden": Taught(_STATES, "last"),
    # As many relation heads as divide the width of every student; of the last layer.
    "relation": Taught({"relation": (1.0, MiniLMv2(relation_heads=16))}),
}
USUAL = "usual"
"""Of a task: what `DistillationTrainer` chooses, labels among it."""

RATES: Mapping[tuple[str, str, bool], float] = {
    (TEXT, "hidden", True): 1e-3,
    (TEXT, "hidden", False): 1e-3,
    (TEXT, "layers", True): 1e-3,
    (TEXT, "layers", False): 1e-3,
    (TEXT, "relation", True): 1e-3,
    (TEXT, "relation", False): 1e-3,
    ("trec", USUAL, True): 5e-4,
    ("trec", USUAL, False): 5e-4,
    ("sst2", USUAL, True): 5e-4,
    ("sst2", USUAL, False): 5e-4,
}
"""(task, objective, from fresh weights) -> learning rate: the best of `Sweep`s below, each for
itself."""

SHORT, LONG, OF_A_TASK = 400, 3000, 500


@dataclass(frozen=True)
class Cell:
    """One run of the study."""

    task: str
    size: str
    objective: str
    start: str
    steps: int
    rate: float
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

    def cells(self) -> Iterator[Cell]:
        """Every run, seed after seed."""
        for seed, steps, start in product(self.seeds, self.steps, self.starts):
            chosen = RATES[self.task, self.objective, start == RANDOM]
            for rate in self.rates or (chosen,):
                yield Cell(self.task, self.size, self.objective, start, steps, rate, seed)


def _sweep(task: str, objective: str, steps: int, rates: Sequence[float]) -> Batch:
    return Batch(task, "13M", objective, (RANDOM, "magnitude"), (steps,), (SWEPT,), rates)


CUT = STARTS[1:]
DEPTH = (RANDOM, "magnitude")
"""Where only layers are left out, all cuts are one: there is nothing else to choose."""
TEXT_RATES, TASK_RATES = (3e-4, 1e-3, 3e-3), (2e-4, 5e-4, 1e-3)

BATCHES: tuple[Batch, ...] = (
    _sweep(TEXT, "hidden", SHORT, TEXT_RATES),
    _sweep(TEXT, "layers", SHORT, TEXT_RATES),
    Batch(TEXT, "13M", "hidden", STARTS, (SHORT,)),
    Batch(TEXT, "13M", "hidden", CUT[1:], (SHORT // 20, SHORT // 10)),
    Batch(TEXT, "13M", "hidden", (RANDOM, "magnitude"), (LONG,), SEEDS[:1]),
    _sweep("trec", USUAL, OF_A_TASK, TASK_RATES),
    Batch("trec", "13M", USUAL, STARTS, (OF_A_TASK,)),
    _sweep(TEXT, "relation", SHORT, TEXT_RATES),
    Batch(TEXT, "13M", "relation", STARTS, (SHORT,)),
    Batch(TEXT, "13M", "hidden", CUT[1:], (LONG // 20, LONG * 3 // 20), SEEDS[:1]),
    Batch(TEXT, "L3-H384", "hidden", DEPTH, (SHORT,)),
    Batch("sst2", "13M", USUAL, STARTS, (OF_A_TASK,)),
    Batch(TEXT, "13M", "hidden", CUT[1:2], (LONG,), SEEDS[:1]),
    Batch(TEXT, "L3-H384", "relation", DEPTH, (SHORT,)),
    Batch(TEXT, "13M", "hidden", (RANDOM, *CUT[1:]), (LONG,), SEEDS[1:]),
    Batch(TEXT, "13M", "hidden", CUT[1:], (LONG // 20, LONG * 3 // 20), SEEDS[1:]),
    Batch(TEXT, "13M", "relation", (RANDOM, "magnitude"), (LONG,), SEEDS[:1]),
)
"""The most telling first: an unfinished study is the upper part of the list."""


def cells() -> list[Cell]:
    """Every run once, in the order in which they are done."""
    return list(dict.fromkeys(cell for batch in BATCHES for cell in batch.cells()))
