"""What does a start cut out of the teacher save, against fresh weights? Curves, step by step.

    python benchmarks/extraction.py --data FOLDER

FOLDER holds wikitext2, gutenberg, stsb, trec and sst2, each a folder of <split>.parquet as on the
Hub. The teacher is all-MiniLM-L6-v2: as it is for plain text, fine-tuned once for each task.

Any number of processes may run the same command; finished runs are kept, those of a dead process
done again, and a grid that has grown is filled up. The most telling runs come first.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
from extraction_study.conditions import SWEPT, Cell, cells, tried
from extraction_study.plots import plot
from extraction_study.report import report
from extraction_study.saving import settings
from studies.pages import write_between
from studies.storage import finished, open_study, work
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

BEGIN, END = "<!-- tables -->", "<!-- end of tables -->"


def main() -> None:
    """Run what is missing of the study, report, and plot where asked."""
    options = _options()
    folder = options.out / (f"limit{options.limit}" if options.limit else options.precision)
    folder.mkdir(parents=True, exist_ok=True)
    journal = open_study(folder, "extraction")

    def wanted() -> list[Cell]:
        asked = cells(finished(journal, tried())[0])
        return [cell for cell in asked if options.tasks is None or cell.task in options.tasks]

    if not options.report:
        set_verbosity_error()
        disable_progress_bar()
        datasets.disable_progress_bars()
        torch.set_num_threads(1)
        run, locks = _runner(options, folder), folder / "locks"
        work(journal, lambda: _ready(wanted()), locks, run, options.minutes, _say)
    asked = wanted()
    results, machines = finished(journal, asked)
    text = report(results, asked, machines)
    (folder / "report.md").write_text(text, encoding="utf-8")
    print(text, end="")
    pictures = []
    if options.plot:
        compared = settings([cell for cell in asked if cell.seed != SWEPT])
        pictures = plot(results, compared, options.plot)
    if options.write:
        write_between(options.write, BEGIN, END, text, pictures)


def _ready(asked: list[Cell]) -> list[Cell]:
    """Those whose rates are chosen."""
    return [cell for cell in asked if cell.rate is not None]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data's folders")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-extraction"))
    parser.add_argument("--report", action="store_true", help="of what is finished; run nothing")
    parser.add_argument("--write", type=Path, help=f"put the tables into a page, after {BEGIN}")
    parser.add_argument("--plot", type=Path, help="write the curves into this folder")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--tasks", nargs="+", help="only these: text, trec, sst2")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--limit", type=int, help="at most so many examples, for a trial")
    options = parser.parse_args()
    if options.data is None and not options.report:
        parser.error("--data is needed, unless nothing is run (--report)")
    return options


def _runner(options: argparse.Namespace, folder: Path) -> Any:
    from extraction_study.training import Study, run
    from studies.teachers import machine_and_versions

    study = Study(options.data, folder, options.precision, options.limit)

    def one(cell: Cell) -> tuple[float, dict[str, Any]]:
        outcome = asdict(run(study, cell))
        return outcome.pop("score"), {**outcome, "on": machine_and_versions()}

    return one


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
