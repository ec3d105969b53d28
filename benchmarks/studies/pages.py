"""Results as part of a page that people wrote."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import relpath
from pathlib import Path


def write_between(
    page: Path, begin: str, end: str, text: str, pictures: Sequence[Path] = ()
) -> None:
    """Put pictures and a text where a page has others, or a place for them.

    Args:
        page: A Markdown file.
        begin: The mark before the place. Without it, the place is the end of the page.
        end: The mark after it.
        text: Markdown.
        pictures: Files, shown before the text.

    Raises:
        ValueError: The page has one of the marks only.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    if bool(found) != (end in rest):
        raise ValueError(f"{page.name} must have {begin} and {end} after it, or neither.")
    after = rest.partition(end)[2]
    shown = "".join(f"![{each.stem}]({relpath(each, page.parent)})\n\n" for each in pictures)
    page.write_text(f"{before}{begin}\n\n{shown}{text}\n{end}{after}", encoding="utf-8")
