"""Real English prose that every Python brings along: its docstrings and the pydoc topics."""

from __future__ import annotations

import ast
import importlib
import random
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

_SKIPPED = {"test", "tests", "idlelib", "turtledemo", "site-packages", "dist-packages", "lib2to3"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_MARKUP = re.compile(r":[a-z]+:`~?([^`<]*)(?:<[^`]*>)?`|[`*]{1,2}([^`*]+)[`*]{1,2}")
_PROSE = re.compile(r"[A-Z][A-Za-z0-9 ,;:'\"()/.-]*[.!?]")
_WORDS = range(6, 61)


def python_sentences() -> list[str]:
    """Sentences of this Python's own documentation, in a fixed order, without duplicates."""
    texts = [
        *_topics(),
        *_docstrings(Path(sysconfig.get_paths()["stdlib"])),
        *_builtin_docstrings(),
    ]
    return list(dict.fromkeys(sentence for text in texts for sentence in sentences(text)))


def read_sentences(source: str) -> list[str]:
    """The sentences of a file or of a data set on the Hub.

    A parquet, csv or json file and a data set give their column `text`.

    Raises:
        ValueError: The file's kind is unknown, or there is no column of that name.
    """
    path = Path(source)
    kind = path.suffix.lstrip(".")
    if path.is_file() and kind in ("txt", "md", "rst", ""):
        texts: Iterable[str] = [path.read_text(encoding="utf-8")]
    else:
        texts = column(source, kind if path.is_file() else None)
    return list(dict.fromkeys(sentence for text in texts for sentence in sentences(text)))


def column(source: str, kind: str | None) -> Iterable[str]:
    """The column `text` of a file of this kind, or of a data set on the Hub.

    Raises:
        ValueError: The kind is unknown, or there is no such column.
    """
    from datasets import load_dataset

    if kind not in (None, "parquet", "csv", "json", "jsonl"):
        raise ValueError(
            f"text must be a txt, parquet, csv or json file or a Hub data set, got {source!r}."
        )
    builder = {"jsonl": "json"}.get(kind or "", kind)
    data = (
        load_dataset(source, split="train")
        if builder is None
        else load_dataset(builder, data_files=source, split="train")
    )
    if "text" not in data.column_names:
        raise ValueError(
            f"text must have a column 'text', got {source!r} with {data.column_names}. Rename it."
        )
    return data["text"]


def sentences(text: str) -> Iterator[str]:
    """The sentences of prose in a text: 6 to 60 words, most of them plain ones."""
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line.strip() for line in paragraph.splitlines()]
        if any(line.startswith((">>>", "...", "|", "+--", "::=")) for line in lines):
            continue
        plain = _MARKUP.sub(lambda found: found[1] or found[2] or "", " ".join(lines))
        for sentence in _SENTENCE_END.split(re.sub(r"\s+", " ", plain).strip()):
            if _is_prose(sentence):
                yield sentence


def held_out(found: Iterable[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """Shuffle, and set `count` sentences aside: (training, held out).

    Raises:
        ValueError: There is not twice as much text as is held out.
    """
    shuffled = list(found)
    if len(shuffled) < 2 * count:
        raise ValueError(
            f"text must hold at least {2 * count} sentences, got {len(shuffled)}. Give more text."
        )
    random.Random(seed).shuffle(shuffled)
    return shuffled[count:], shuffled[:count]


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    if len(words) not in _WORDS or not _PROSE.fullmatch(sentence):
        return False
    plain = sum(word.strip(",.;:!?()'\"").isalpha() for word in words)
    return plain >= 0.8 * len(words)


def _topics() -> list[str]:
    topics = importlib.import_module("pydoc_data.topics").topics
    return [topics[name] for name in sorted(topics)]


def _docstrings(folder: Path) -> Iterator[str]:
    """Docstrings of every module below a folder, read without importing it."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(folder.rglob("*.py")):
        if _SKIPPED.intersection(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, documented) and (found := ast.get_docstring(node)):
                yield found


def _builtin_docstrings() -> Iterator[str]:
    """Docstrings of built-in types and of the modules compiled into the interpreter."""
    for owner in map(importlib.import_module, sorted(sys.builtin_module_names)):
        for _, thing in sorted(vars(owner).items()):
            members = (
                [member for _, member in sorted(vars(thing).items())]
                if isinstance(thing, type)
                else []
            )
            for documented in [thing, *members]:
                text = getattr(documented, "__doc__", None)
                if isinstance(text, str):
                    yield text
