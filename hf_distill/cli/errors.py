"""A user's error is answered by a sentence, not by a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def is_main_process() -> bool:
    """Whether this process speaks: under `accelerate launch`, only the first one does."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """End the command with code 2 and a message where the user can put things right."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if debug:
            raise
        # The others mostly say the same; where one fails alone, its sentence is needed.
        told = str(error) if is_main_process() else f"process {os.environ['RANK']}: {error}"
        typer.echo(told, err=True)
        raise typer.Exit(2) from error
