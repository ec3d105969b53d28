"""`hf-distill train`: a recipe, carried out."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_distill.cli.errors import Debug, is_main_process, user_errors
from hf_distill.cli.tables import aligned

_SHOWN = {
    "start": "student before",
    "baseline": "baseline (no teacher)",
}


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value: training.max_steps=5."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/<recipe> without.")
    ] = None,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the same start without a teacher, too.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that is in the folder.")
    ] = False,
    log_gradient_norms: Annotated[
        bool,
        typer.Option("--log-gradient-norms", help="Log how strongly each objective pulls."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a student as a recipe says, measure it, and write it with its card."""
    with user_errors(debug):
        from hf_distill.recipe.reading import read
        from hf_distill.recipe.run import Request, run

        sets = [*(changes or []), *(["log_gradient_norms=true"] if log_gradient_norms else [])]
        found = read(recipe, sets)
        name = recipe_name(recipe)
        folder = output or Path(found.output or default_output(recipe))
        options = {"--baseline": baseline}
        request = Request(
            recipe=found,
            name=name.replace("/", "-"),
            output=folder,
            baseline=baseline,
            overwrite=overwrite,
            resume=resume,
            command=_command(recipe, sets, [key for key, on in options.items() if on]),
        )
        results = run(request, typer.echo)
    if is_main_process():
        typer.echo(table(results))
        typer.echo(f"The student, its card and results.json are in {folder}.")


def recipe_name(path: Path) -> str:
    """A recipe's name: its path below the folder `recipes`, else the file's own name."""
    parts = path.with_suffix("").parts
    if "recipes" in parts:
        below = len(parts) - parts[::-1].index("recipes")
        return "/".join(parts[below:])
    return path.stem


def default_output(path: Path) -> Path:
    """The run's folder of a recipe that names none."""
    return Path("runs") / recipe_name(path)


def table(results: Mapping[str, Any]) -> str:
    """Scores, sizes and speeds side by side, and what they were measured on."""
    scores, sizes, speeds = results["scores"], results["sizes"], results["speeds"]
    rows = []
    for label, scored in scores.items():
        row = {"": _SHOWN.get(label, label)}
        row |= {name: f"{score:.4f}" for name, score in scored.items()}
        if label in sizes:
            row["parameters"] = f"{sizes[label]['parameters']:,}"
            row["MB"] = f"{sizes[label]['megabytes']:.1f}"
        for size, speed in speeds.get(label, {}).items():
            row[f"sentences/s, batch {size}"] = f"{speed['median']:.1f}"
        rows.append(row)
    where = f"{results['examples']['evaluation']:,} examples ({results['evaluated_on']})"
    return "\n".join([aligned(rows), f"Scores on {where}, seed {results['seed']}."])


def _command(recipe: Path, changes: list[str], options: list[str]) -> str:
    processes = os.environ.get("WORLD_SIZE", "1")
    start = ["hf-distill"]
    if processes != "1":
        start = ["accelerate", "launch", "--num_processes", processes, "-m", "hf_distill"]
    sets = [part for change in changes for part in ("--set", change)]
    return shlex.join([*start, "train", str(recipe), *sets, *options])
