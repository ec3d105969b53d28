"""Runs that take a second: own caches, few sentences to time, no collection of what is imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import datasets
import pytest

from hf_distill.recipe import measure, run


@pytest.fixture(autouse=True, scope="session")
def _quick_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # The Trainer collects garbage after each training; what was imported is none.
    gc.freeze()
    assert run.Request, "imported before"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr(measure, "_SENTENCES", {1: 3, 32: 32})
        datasets.disable_progress_bars()
        yield
    gc.unfreeze()
