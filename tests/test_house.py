"""The shape of the house: what no other tool checks."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "hf_distill").rglob("*.py"))
GRAB_BAGS = {"common", "helper", "helpers", "misc", "util", "utils"}
MACHINE_PATH = re.compile(r"(?<![\w.:/~-])/(?:work|tmp|root)(?:/|\b)")

MODULE_LINES = 300
BODY_LINES = 40


def _named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _project_files() -> list[Path]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so nothing says which files are the project's")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_modules_were_found() -> None:
    """A wrong root would make every test below pass on nothing."""
    assert "hf_distill/__init__.py" in map(_named, MODULES)


@pytest.mark.parametrize("module", MODULES, ids=_named)
def test_modules_hold_one_idea(module: Path) -> None:
    """A module grows by a few lines at a time, and no single change makes it too long."""
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES, f"modules must be at most {MODULE_LINES} lines, got {lines}."


@pytest.mark.parametrize("module", MODULES, ids=_named)
def test_function_bodies_fit_a_screen(module: Path) -> None:
    """Complexity alone does not see a long straight function that does five things."""
    too_long = {
        f"{_named(module)}:{function.lineno} {function.name}": lines
        for function in _functions(module)
        if (lines := _body_lines(function)) > BODY_LINES
    }
    assert not too_long, f"function bodies must be at most {BODY_LINES} lines, got {too_long}."


@pytest.mark.parametrize("module", MODULES, ids=_named)
def test_package_does_not_assert(module: Path) -> None:
    """`python -O` removes asserts, and with them every check of a user's input that was one."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    assert not found, f"input must be checked by errors, got assert in lines {found}."


def test_no_grab_bags() -> None:
    """A file named for nothing collects everything, and the same function twice."""
    found = [
        _named(path)
        for path in _project_files()
        if path.suffix == ".py"
        and GRAB_BAGS.intersection((path.stem, *path.relative_to(ROOT).parts))
    ]
    assert not found, f"files must be named for what they hold, got {found}."


def test_no_path_of_one_machine() -> None:
    """A path that exists on the author's machine only fails on every other."""
    found = [
        f"{_named(path)}:{number}"
        for path in _project_files()
        if path.relative_to(ROOT).parts[0] != "tests"
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if MACHINE_PATH.search(line)
    ]
    assert not found, f"paths must be relative or given by the user, got {found}."
