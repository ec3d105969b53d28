"""Objective -> the smallest arguments that show it off: one module per family."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

SMALLEST: dict[str, dict[str, Any]] = {}
VARIANTS: dict[str, list[dict[str, Any]]] = {}
"""Objective -> further arguments with which it must keep its promises: where an option changes what
it reads, compares or counts. A family may have none."""
for module in iter_modules(__path__):
    family = import_module(f"{__name__}.{module.name}")
    SMALLEST.update(family.SMALLEST)
    VARIANTS.update(getattr(family, "VARIANTS", {}))
