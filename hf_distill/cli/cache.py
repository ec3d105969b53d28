"""`hf-distill cache`: what a recipe's teacher shows, kept for its students."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_distill.cli.errors import Debug, is_main_process, user_errors
from hf_distill.cli.tables import aligned
from hf_distill.cli.train import default_output


class Storage(str, Enum):
    """The precision that is stored."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


def cache(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
    out: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A folder, or a URL; the recipe's teacher_cache without."),
    ] = None,
    storage: Annotated[
        Storage, typer.Option(help="The precision; int8 with a scale for each row.")
    ] = Storage.bfloat16,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Keep so many of the likeliest classes of a row.")
    ] = None,
    share: Annotated[
        str, typer.Option(metavar="I/N", help="This machine's part, of n that share the folder.")
    ] = "1/1",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value: data.max_length=64."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The run's folder, for a teacher that is fine-tuned; as of train."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Run a recipe's teacher once over its examples, and keep what it shows.

    `hf-distill train RECIPE --set teacher_cache=DIR` then trains without running it. Called again,
    it goes on where it was stopped, and writes damaged files anew.
    """
    with user_errors(debug):
        part = _part(share)
        from hf_distill.recipe.caching import CacheRequest, write_cache
        from hf_distill.recipe.reading import read

        found = read(recipe, changes or [])
        place = out or found.cache_folder
        if place is None:
            raise ValueError("--out must name a folder, got none. Give it one, or a URL.")
        request = CacheRequest(
            recipe=found,
            output=output or Path(found.output or default_output(recipe)),
            place=place,
            storage=storage.value,
            top=top_k,
            share=part,
        )
        done = write_cache(request, typer.echo)
    if is_main_process():
        typer.echo(_summary(done, place, top_k))


def _part(share: str) -> tuple[int, int]:
    number, _, count = share.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(
            f"--share must be I/N with I from 1 to N, got {share!r}. The second of eight is 2/8."
        )
    return int(number), int(count)


def _summary(done: Any, place: str, top: int | None) -> str:
    """What was written, what storing it lost, and what comes next."""
    rows = [
        {"signal": name, "lost by storing": _lost(lost, divergence=top and name == "logits")}
        for name, lost in done.errors.items()
    ]
    whole = f"The cache in {place} holds all {done.examples:,} examples: train with teacher_cache."
    if not done.finished:
        whole = f"{place} holds {done.examples:,} examples: those of other shares are missing."
    spent = f"{done.computed:,} examples were computed, in {done.seconds:,.1f} s"
    return "\n".join([aligned(rows), f"{spent}; all files: {done.bytes / 1e6:,.1f} MB.", whole])


def _lost(lost: float, *, divergence: Any) -> str:
    return f"{lost:.1e} nats" if divergence else f"{lost:.2e} of its size"
