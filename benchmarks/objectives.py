"""What each objective is worth to a small student with few examples, in pairs with the same seed.

    python benchmarks/objectives.py --data FOLDER

FOLDER holds trec, mrpc, rte and stsb, each a folder of <split>.parquet as on the Hub. A teacher,
all-MiniLM-L6-v2 fine-tuned once for each task on all training examples, teaches a student cut out
of it, which is given few. A seed chooses those examples and their order, for all conditions alike.
An extra term's weight is found by one rule (`balance` in objective_study/training.py), not tuned.

Any number of processes may run the same command; finished runs are kept, those of a dead process
done again, and a grid that has grown is filled up. The most important runs come first.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
from objective_study.conditions import CONDITIONS, SETTINGS, Cell, cells
from objective_study.report import report
from studies.storage import finished, open_study, work
from transformers.utils.logging import disable_progress_bar, set_verbosity_error


def main() -> None:
    """Run what is missing of the study, and report."""
    options = _options()
    limited = f"-limit{options.limit}" if options.limit else ""
    named = f"{options.examples}x{options.epochs}-{options.precision}{limited}"
    folder = options.out / named
    folder.mkdir(parents=True, exist_ok=True)
    journal = open_study(folder, "objectives")
    wanted = cells(options.seeds, options.tasks, options.conditions)
    if not options.report:
        set_verbosity_error()
        disable_progress_bar()
        datasets.disable_progress_bars()
        torch.set_num_threads(1)
        run = _runner(options, folder)
        work(journal, lambda: wanted, folder / "locks", run, options.minutes, _say)
    results, machines = finished(journal, wanted)
    text = report(results, wanted, machines)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text, end="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks' folders")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-objectives"))
    parser.add_argument("--report", action="store_true", help="of what is finished; run nothing")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--tasks", nargs="+", choices=list(dict(SETTINGS)), help="only these")
    parser.add_argument("--conditions", nargs="+", choices=list(CONDITIONS), help="only these")
    parser.add_argument("--examples", type=int, default=2000, help="for the student (2000)")
    parser.add_argument("--epochs", type=int, default=3, help="of the student (3)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--limit", type=int, help="at most so many examples, for a trial")
    return parser.parse_args()


def _runner(options: argparse.Namespace, folder: Path) -> Any:
    from objective_study.training import Study, run
    from studies.teachers import machine_and_versions

    study = Study(
        options.data, folder, options.examples, options.epochs, options.precision, options.limit
    )

    def one(cell: Cell) -> tuple[float, dict[str, Any]]:
        outcome = asdict(run(study, cell))
        return outcome.pop("score"), {**outcome, "on": machine_and_versions()}

    return one


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
