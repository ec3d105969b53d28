"""Where caches of these tests stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_distill.cache import folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches without a place of their own, and copies of what stands elsewhere."""
    monkeypatch.setattr(folder, "HOME", tmp_path / "home")
    return tmp_path / "home"
