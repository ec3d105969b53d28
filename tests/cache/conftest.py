"""Folders of caches, on this machine and elsewhere."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from hf_distill.cache import folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of what stands elsewhere are kept here."""
    monkeypatch.setattr(folder, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a cache may be written: a path, and a URL of another file system."""
    return str(tmp_path / "cache") if request.param == "local" else f"memory://{uuid4().hex}/cache"
