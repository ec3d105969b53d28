"""How much of a teacher a small student keeps on TREC, and what teacher and extraction add to it.

    python benchmarks/trec.py --data FOLDER

FOLDER holds train.parquet and test.parquet (columns text, coarse_label). For each seed one teacher
is fine-tuned; from it, each student is trained four ways: from weights cut out of the teacher or
from random ones, with the teacher or without. Budgets and settings are those of the recipes in
recipes/trec. Finished runs are skipped, interrupted ones continued, so the command may be repeated.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent.parent / "recipes" / "trec"
STUDENTS = {
    "L3-H384": RECIPES / "l3-h384-from-minilm-extract.yaml",
    "13M": RECIPES / "13m-from-minilm-extract.yaml",
}
STARTS = {"extract": "extracted", "random": "random"}
METHODS = {"student": "distilled", "baseline": "without teacher"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="folder of train.parquet and test.parquet")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--first-seed", type=int, default=1, help="so that processes can share (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-trec"), help="folder")
    parser.add_argument("--limit", type=int, help="at most so many examples, for a trial")
    parser.add_argument("--threads", type=int, help="of torch; 1 is fastest on a busy machine")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    text = report(list(results(options)))
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text, end="")


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """results.json of every run, each with the student and the start that it had."""
    changes = [f"data.path={options.data}"]
    if options.limit:
        changes.append(f"data.limit={options.limit}")
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        # The first run of a seed makes the teacher; the others are given it.
        teacher: list[str] = []
        for size, recipe in STUDENTS.items():
            for start in STARTS:
                folder = options.out / f"seed{seed}" / f"{size}-{start}".lower()
                asked = [*changes, f"seed={seed}", f"student.init={start}", *teacher]
                found = result(recipe, asked, folder)
                yield {**found, "size": size, "start": start}
                if not teacher:
                    made = (folder / "teacher").as_posix()
                    teacher = [f"teacher.model={made}", "teacher.training=null"]


def result(recipe: Path, changes: list[str], folder: Path) -> dict[str, Any]:
    """results.json of one run, which is made, continued, or found finished."""
    from hf_distill.recipe.reading import read
    from hf_distill.recipe.run import Request, run

    print(f"\n{folder.as_posix()}", flush=True)
    request = Request(
        recipe=read(recipe, changes),
        name=f"trec-{folder.name}",
        output=folder,
        baseline=True,
        resume=True,
    )
    return run(request, lambda line: print(line, flush=True))


def report(runs: list[dict[str, Any]]) -> str:
    """A Markdown table: mean and standard deviation over seeds."""
    seeds = sorted({run["seed"] for run in runs})
    teachers = {run["seed"]: run["scores"]["teacher"]["accuracy"] for run in runs}
    rows = [_row("teacher", "fine-tuned", runs[0]["sizes"]["teacher"], teachers, teachers)]
    for size in STUDENTS:
        for start in STARTS:
            chosen = [run for run in runs if (run["size"], run["start"]) == (size, start)]
            for label, method in METHODS.items():
                found = {run["seed"]: run["scores"][label]["accuracy"] for run in chosen}
                told = f"{STARTS[start]} start, {method}"
                rows.append(_row(size, told, chosen[0]["sizes"][label], found, teachers))
    first = runs[0]
    examples, versions = first["examples"], first["versions"]
    named = ", ".join(f"{name} {each}" for name, each in versions.items())
    machines = "; ".join(sorted({run["machine"] for run in runs}))
    epochs = first["recipe"]["training"].get("num_train_epochs")
    return "\n".join(
        [
            "| model | how | parameters | test accuracy, % | % of teacher |",
            "| --- | --- | ---: | ---: | ---: |",
            *rows,
            "",
            f"TREC, 6 classes, {examples['train']:,} training and {examples['evaluation']:,} test "
            f"examples, {epochs} epochs each; mean ± standard deviation over {len(seeds)} seeds "
            f"({', '.join(map(str, seeds))}), each with a teacher of its own.",
            "",
            f"Machine: {machines}. Versions: {named}.",
            "",
        ]
    )


def _row(
    model: str,
    how: str,
    size: dict[str, Any],
    scores: dict[int, float],
    teachers: dict[int, float],
) -> str:
    percent = [100 * score for score in scores.values()]
    kept = [100 * score / teachers[seed] for seed, score in scores.items()]
    return f"| {model} | {how} | {size['parameters']:,} | {_spread(percent)} | {_spread(kept)} |"


def _spread(values: list[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


if __name__ == "__main__":
    main()
