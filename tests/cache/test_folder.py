"""Folders: files that are whole or not there, wherever they stand."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from hf_distill.cache import folder as room
from hf_distill.cache.folder import Folder

Usage = namedtuple("Usage", "total used free")


def test_what_is_written_is_read(url: str) -> None:
    """A URL taken for a path writes into a folder called 'memory:'."""
    folder = Folder(url)
    assert folder.is_empty()
    assert folder.names("") == []
    folder.write("a.bin", b"12345")
    folder.write("b.json", b"{}")
    assert folder.read("a.bin") == b"12345"
    assert folder.local("a.bin").read_bytes() == b"12345"
    assert "a.bin" in folder
    assert "c" not in folder
    assert folder.names(".bin") == ["a.bin"]
    assert folder.names("") == ["a.bin", "b.json"]
    assert folder.size("a.bin") == 5
    assert not folder.is_empty()
    # Another one sees the same: no listing is kept.
    Folder(url).remove("a.bin")
    Folder(url).remove("a.bin")
    assert folder.names("") == ["b.json"]


def test_files_are_replaced_whole(url: str) -> None:
    """A shorter text written over a longer one leaves the longer one's end."""
    folder = Folder(url)
    folder.write("a", b"longer than that")
    folder.write("a", b"short")
    assert folder.read("a") == b"short"
    assert folder.names("") == ["a"]


def test_stopped_writing_leaves_no_file(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file under its name is taken for a whole one by everyone who does not check."""
    folder = Folder(url)
    folder.write("a", b"before")

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder._fs, "mv", stopped)
    for name in ("a", "b"):
        with pytest.raises(KeyboardInterrupt):
            folder.write(name, b"after")
    monkeypatch.undo()
    assert folder.read("a") == b"before"
    assert "b" not in folder
    folder.tidy()
    assert folder.names("") == ["a"]


def test_partial_files_alone_are_no_content(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in which the very first file was being written could never be begun again."""
    folder = Folder(url)
    monkeypatch.setattr(folder._fs, "mv", lambda *_: None)
    folder.write("a", b"half")
    assert folder.is_empty()
    assert len(folder.names("")) == 1


def test_two_writers_of_one_name_do_not_meet(url: str) -> None:
    """One partial file for two processes: each writes into the other's, and one finds none."""
    one, other = Folder(url), Folder(url)
    writing, move = [], one._fs.mv

    def interleaved(*names: Any) -> None:
        if not writing:
            writing.append(True)
            other.write("a", b"other")
        move(*names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one._fs, "mv", interleaved)
        one.write("a", b"one")
    assert one.read("a") == b"one"
    assert one.names("") == ["a"]


def test_copies_are_taken_once_and_anew_when_asked(home: Path) -> None:
    """A copy that is damaged is served for ever, or each reading is a transfer."""
    folder = Folder("memory://copied/cache")
    folder.write("a", b"right")
    copy = folder.local("a")
    assert home in copy.parents
    copy.write_bytes(b"wrong")
    assert folder.local("a").read_bytes() == b"wrong"
    assert folder.local("a", anew=True).read_bytes() == b"right"
    other = Folder("memory://copied/another")
    other.write("a", b"other")
    assert other.local("a").read_bytes() == b"other"
    assert [each.name for each in copy.parent.iterdir()] == ["a"]


def test_a_disk_without_room_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of a teacher, and then no space left on device."""
    asked = []

    def usage(path: Path) -> Usage:
        asked.append(path)
        return Usage(100, 90, 10)

    monkeypatch.setattr(room.shutil, "disk_usage", usage)
    folder = Folder(tmp_path / "not" / "there")
    folder.check_room(10)
    with pytest.raises(ValueError, match=r"must have room for 0.0 GB, got 0.0 GB. Store int8"):
        folder.check_room(11)
    assert asked == [tmp_path, tmp_path]
    Folder("memory://elsewhere").check_room(10**18)
