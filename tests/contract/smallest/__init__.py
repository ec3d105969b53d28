"""Objective -> the smallest arguments that show it off: one module per family."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {}
for module in iter_modules(__path__):
    SMALLEST.update(import_module(f"{__name__}.{module.name}").SMALLEST)
