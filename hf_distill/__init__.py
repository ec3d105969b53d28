"""hf_distill: small transformers out of large ones, inside the Hugging Face Trainer."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_distill.student import extract, fresh
    from hf_distill.teacher import Adapter, Ensemble
    from hf_distill.training.trainer import DistillationTrainer

    __version__: str

__all__ = ["Adapter", "DistillationTrainer", "Ensemble", "__version__", "extract", "fresh"]

_HOMES = {
    "Adapter": "hf_distill.teacher",
    "DistillationTrainer": "hf_distill.training.trainer",
    "Ensemble": "hf_distill.teacher",
    "extract": "hf_distill.student",
    "fresh": "hf_distill.student",
}
"""Public name -> the module that defines it, imported when the name is first asked for."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = version("hf-distill")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
