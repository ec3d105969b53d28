"""The files of a cache, on this machine or on any file system that fsspec knows."""

from __future__ import annotations

import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec.core import url_to_fs
from huggingface_hub.constants import HF_HOME

HOME = Path(HF_HOME) / "hf_distill"
"""Where caches stand that were given no place."""
_PARTIAL = ".partial"


class Folder:
    """A folder of files that are written whole or not at all."""

    def __init__(self, url: str | Path) -> None:
        """It need not exist.

        Args:
            url: A path, or a URL such as "s3://bucket/folder" where fsspec has its file system.

        Raises:
            ValueError: It has not.
        """
        self.url = str(url)
        # Without this, a listing may be older than what others wrote.
        self._fs: Any
        try:
            self._fs, self._root = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            raise ValueError(
                f"the folder of a cache must be on a file system that is installed, got "
                f"{self.url!r}. {error}."
            ) from error
        self.is_local = "file" in (self._fs.protocol, *self._fs.protocol)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a file."""
        return bool(self._fs.isfile(self._at(name)))

    def names(self, ending: str) -> list[str]:
        """The files whose names end so, in order."""
        if not self._fs.isdir(self._root):
            return []
        found = (path.rpartition("/")[2] for path in self._fs.ls(self._root, detail=False))
        return sorted(name for name in found if name.endswith(ending))

    def is_empty(self) -> bool:
        """Whether nothing stands there, but what was not written to its end."""
        is_file = self._fs.isfile(self._root)
        return not is_file and all(name.endswith(_PARTIAL) for name in self.names(""))

    def read(self, name: str) -> bytes:
        """A file, whole."""
        held: bytes = self._fs.cat_file(self._at(name))
        return held

    def write(self, name: str, content: bytes) -> None:
        """Write a file: under its name it stands only when it is complete."""
        self._fs.makedirs(self._root, exist_ok=True)
        partial = self._at(_partial(name))
        self._fs.pipe_file(partial, content)
        self._fs.mv(partial, self._at(name))

    def remove(self, name: str) -> None:
        """Remove a file; others may have done so."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def tidy(self) -> None:
        """Remove what was not written to its end, when nobody writes any more."""
        for name in self.names(_PARTIAL):
            self.remove(name)

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self._fs.size(self._at(name)))

    def check_room(self, size: int) -> None:
        """Raise ValueError where the disk is known to have no room for so many bytes."""
        if not self.is_local:
            return
        place = Path(self._root)
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if size > free:
            raise ValueError(
                f"the disk of {self.url!r} must have room for {size / 1e9:,.1f} GB, got "
                f"{free / 1e9:,.1f} GB. Store int8, fewer layers or the likeliest classes alone, "
                "or name a folder elsewhere."
            )

    def local(self, name: str, *, anew: bool = False) -> Path:
        """A file's path on this machine; one of another file system is copied here first.

        Args:
            name: Of the file.
            anew: Whether a copy that is here already is replaced.
        """
        if self.is_local:
            return Path(self._root) / name
        copy = HOME / "copies" / sha256(self.url.encode()).hexdigest()[:16] / name
        if anew or not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(_partial(name))
            self._fs.get_file(self._at(name), str(partial))
            partial.replace(copy)
        return copy

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _partial(name: str) -> str:
    """What a file is called until it is complete: no two processes write the same one."""
    return f"{name}.{uuid4().hex}{_PARTIAL}"
