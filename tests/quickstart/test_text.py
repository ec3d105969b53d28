"""The text that every Python brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_distill.quickstart.text import held_out, python_sentences, read_sentences, sentences


def test_prose_is_split_into_sentences() -> None:
    """Without the split a whole docstring is one long sentence, and similarities mean little."""
    text = "Return the first element of the list. The list must not be empty at that time."
    assert list(sentences(text)) == [
        "Return the first element of the list.",
        "The list must not be empty at that time.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        ">>> print(value) shows the value of the variable.",
        "os.path.join(a, b) -> x_1 = y_2 + z_3 = w_4.",
        "Too short.",
        "no capital at the start of this sentence here.",
        "| column | another | and a third one in the row |",
    ],
)
def test_what_is_not_prose_is_left_out(text: str) -> None:
    """Code and tables among the sentences would teach the student another language."""
    assert not list(sentences(text))


def test_markup_is_taken_off() -> None:
    """Roles and back-quotes would fill the vocabulary's pieces with punctuation."""
    text = "The :class:`Thread` object calls ``run`` in a thread of its own."
    assert list(sentences(text)) == ["The Thread object calls run in a thread of its own."]


def test_this_python_brings_enough_text_without_duplicates() -> None:
    """Duplicates would stand both in the training text and among the held-out sentences."""
    found = python_sentences()
    assert len(found) > 5000
    assert len(set(found)) == len(found)
    assert found == python_sentences()


def test_held_out_sentences_are_not_trained_on() -> None:
    """A shared sentence would make fidelity look better than it is."""
    train, kept = held_out(map(str, range(50)), 10, seed=1)
    assert len(kept) == 10
    assert not set(train) & set(kept)
    assert sorted([*train, *kept]) == sorted(map(str, range(50)))
    assert (train, kept) == held_out(map(str, range(50)), 10, seed=1)
    assert kept != held_out(map(str, range(50)), 10, seed=2)[1]


def test_too_little_text_is_refused() -> None:
    """A handful of sentences would train and measure on next to nothing."""
    with pytest.raises(ValueError, match=r"text must hold at least 20 sentences, got 5\."):
        held_out(["a"] * 5, 10, seed=0)


def test_text_is_read_from_files(tmp_path: Path) -> None:
    """A csv read as plain text would give its separators as words."""
    sentence = "The quick brown fox jumps over the lazy dog."
    plain = tmp_path / "plain.txt"
    plain.write_text(f"{sentence} {sentence}")
    table = tmp_path / "table.csv"
    table.write_text(f"text,label\n{sentence},1\n")
    assert read_sentences(str(plain)) == read_sentences(str(table)) == [sentence]


def test_unreadable_text_is_refused(tmp_path: Path) -> None:
    """A traceback out of a reader does not say what to give instead."""
    wrong = tmp_path / "text.xlsx"
    wrong.write_text("")
    with pytest.raises(ValueError, match="text must be a txt, parquet, csv or json file"):
        read_sentences(str(wrong))
    table = tmp_path / "table.csv"
    table.write_text("sentence\nWords.\n")
    with pytest.raises(ValueError, match="text must have a column 'text'"):
        read_sentences(str(table))
