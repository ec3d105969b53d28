"""`hf-distill list`: what there is to choose from."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hf_distill.cli.errors import Debug, user_errors
from hf_distill.cli.tables import aligned

Rows = list[dict[str, str]]


class Kind(str, Enum):
    """What can be listed."""

    objectives = "objectives"
    mappings = "mappings"
    students = "students"
    recipes = "recipes"


def list_(
    kind: Annotated[Kind | None, typer.Argument(help="What to list; all without.")] = None,
    recipes: Annotated[Path, typer.Option(help="The folder of recipes.")] = Path("recipes"),
    debug: Debug = False,
) -> None:
    """Show objectives, layer mappings, student sizes and recipes."""
    with user_errors(debug):
        if kind is Kind.recipes and not recipes.is_dir():
            raise ValueError(
                f"--recipes must be a folder of recipes, got {str(recipes)!r}. Name one."
            )
        for each in Kind if kind is None else [kind]:
            rows = _ROWS[each]() if each is not Kind.recipes else _recipes(recipes)
            if kind is None:
                typer.echo(f"\n{each.value}\n")
            typer.echo(aligned(rows) or "None here.")


def _objectives() -> Rows:
    from hf_distill import objectives

    found = []
    for name in objectives.__all__:
        kind = getattr(objectives, name)
        row = {"objective": name, "what it compares": _first_line(kind)}
        found.append({**row, "needs": ", ".join(sorted(kind.needs)), "source": kind.citation})
    return found


def _mappings() -> Rows:
    from hf_distill.mapping import MAPPINGS

    return [{"mapping": name, "which layers": _first_line(each)} for name, each in MAPPINGS.items()]


def _students() -> Rows:
    from hf_distill.student import PRESETS

    return [
        {
            "size": name,
            "layers": str(size.layers),
            "width": str(size.width),
            "heads": str(size.heads),
            "feed-forward": str(size.ffn),
            "as a name": str(size),
        }
        for name, size in PRESETS.items()
    ]


def _recipes(folder: Path) -> Rows:
    """Those that begin with a comment and say a task; other YAML says how to launch."""
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if any(line.startswith("task:") for line in lines):
            found.append({"recipe": path.as_posix(), "what": lines[0].lstrip("# ")})
    return found


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]


_ROWS = {Kind.objectives: _objectives, Kind.mappings: _mappings, Kind.students: _students}
