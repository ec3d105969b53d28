"""What a public text may say: names instead of paths, and no secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HIDDEN = "***"
"""Stands where a secret stood."""

_HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
_HUB_CACHE = re.compile(r"(?:^|[\\/])(?:models|datasets)--([^\\/]+)")
_SECRET_NAME = r"(?:token|password|secret|api[_-]?key)"
_SECRET = r"""(?:'[^']*'|"[^"]*"|[^\s"'*]\S*)"""
_SECRETS = (
    (re.compile(r"\b(?:hf_|api_org_|gh[a-z]_|sk-)[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(rf"(?i)(--[\w.-]*{_SECRET_NAME}(?:\s+|=))(?!-){_SECRET}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)\b(\w*{_SECRET_NAME}=){_SECRET}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), ""),
)
_SECRET_KEY = re.compile(rf"(?i)(?:.*[_.-])?{_SECRET_NAME}")
_PATHS = re.compile(
    r"""(?P<quote>['"])(?P<quoted>(?:file://)?(?:~?/|[A-Za-z]:[\\/]|\\\\)(?:(?!(?P=quote)).)+)"""
    r"""|(?<![\w./~}-])(?:file://)?~?/(?!/)[^\s'"`,:;()<>|=]+"""
    r"""|(?<=\s-[A-Za-z])/(?!/)[^\s'"`,:;()<>|=]+"""
    r"""|(?<!\w)(?:[A-Za-z]:[\\/]|\\\\)[^\s'"`,:;()<>|=]+"""
)


def is_local(name: str | os.PathLike[str]) -> bool:
    """Whether a model or data set is named by a path, and not by its id on the Hub.

    A folder of that name wins over the Hub, as it does in `from_pretrained`.
    """
    return not _HUB_ID.fullmatch(os.fspath(name)) or Path(name).exists()


def shown_name(name: str | os.PathLike[str]) -> str:
    """A model's or data set's name as a card shows it: the Hub id, or a path's last part.

    A path into the Hub's cache is the id that it was downloaded from.
    """
    text = os.fspath(name)
    return _last_part(text) if is_local(text) else text


def published_name(name: str | os.PathLike[str] | None) -> str | None:
    """The id on the Hub, or None where there is none (a local name)."""
    if name is None:
        return None
    cached = _cached_id(os.fspath(name))
    return cached or (None if is_local(name) else os.fspath(name))


def scrubbed(text: str) -> str:
    """A text without absolute paths (their last part stays) and without secrets."""
    for pattern, stand_in in _SECRETS:
        text = pattern.sub(stand_in, text)
    return _PATHS.sub(_without_folders, text)


def cleaned(value: Any) -> Any:
    """Plain data with every text scrubbed, and the values of secret keys hidden."""
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, os.PathLike):
        return shown_name(value)
    if isinstance(value, Mapping):
        return {
            scrubbed(str(key)): HIDDEN if _SECRET_KEY.fullmatch(str(key)) else cleaned(each)
            for key, each in value.items()
        }
    if isinstance(value, set | frozenset):
        return sorted(map(cleaned, value), key=str)
    if isinstance(value, list | tuple):
        return [cleaned(each) for each in value]
    return value


def _without_folders(match: re.Match[str]) -> str:
    if match["quoted"] is not None:
        return match["quote"] + _last_part(match["quoted"])
    return _last_part(match[0])


def _last_part(path: str) -> str:
    parts = [part for part in re.split(r"[\\/]+", path) if part not in ("", ".", "..", "~")]
    return _cached_id(path) or (parts[-1] if parts else "unnamed")


def _cached_id(path: str) -> str | None:
    found = _HUB_CACHE.search(path)
    return found[1].replace("--", "/") if found else None
