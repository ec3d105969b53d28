"""What a public text may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_distill.release.names import cleaned, is_local, published_name, scrubbed, shown_name

TOKEN = "hf_" + "aB3" * 11
CACHED = "/home/ada/.cache/huggingface/hub/models--org--large-cased/snapshots/0a1b2c"


@pytest.mark.parametrize(
    ("name", "shown", "published"),
    [
        ("bert-base-uncased", "bert-base-uncased", "bert-base-uncased"),
        ("org/large.v2", "org/large.v2", "org/large.v2"),
        ("/home/ada/models/teacher", "teacher", None),
        ("/home/ada/my models/teacher/", "teacher", None),
        ("~/teacher", "teacher", None),
        ("./teacher", "teacher", None),
        ("../runs/teacher/checkpoint-500", "checkpoint-500", None),
        ("runs/teacher/checkpoint-500", "checkpoint-500", None),
        ("C:\\Users\\ada\\teacher", "teacher", None),
        ("C:/Users/ada/teacher", "teacher", None),
        ("\\\\server\\share\\teacher", "teacher", None),
        ("file:///home/ada/teacher", "teacher", None),
        ("s3://bucket/teacher", "teacher", None),
        ("/", "unnamed", None),
        (CACHED, "org/large-cased", "org/large-cased"),
        (Path("/home/ada/teacher"), "teacher", None),
    ],
)
def test_paths_are_shown_by_their_last_part(
    name: str | Path, shown: str, published: str | None
) -> None:
    """A path in a card tells whose machine it was; taken for an id, it links to a stranger."""
    assert shown_name(name) == shown
    assert published_name(name) == published


def test_a_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`runs/teacher` reads like an id, and would claim the weights of another's model."""
    monkeypatch.chdir(tmp_path)
    assert not is_local("runs/teacher")
    (tmp_path / "runs" / "teacher").mkdir(parents=True)
    assert is_local("runs/teacher")
    assert shown_name("runs/teacher") == "teacher"
    assert published_name("runs/teacher") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train --output_dir /home/ada/out --seed 1", "train --output_dir out --seed 1"),
        ("train --output_dir=/home/ada/out", "train --output_dir=out"),
        ("train '/home/ada/my data/x.csv' 2", "train 'x.csv' 2"),
        ('train "~/my data/x.csv" 2', 'train "x.csv" 2'),
        ("PATH=/a/b:/c/d x", "PATH=b:d x"),
        ("cc -I/usr/include", "cc -Iinclude"),
        ("see (/home/ada/notes.txt).", "see (notes.txt)."),
        ("read file:///home/ada/x and C:\\Users\\ada\\y", "read x and y"),
        (f"teacher {CACHED}", "teacher org/large-cased"),
        (f"train --hub_token {TOKEN}", "train --hub_token ***"),
        (f"login {TOKEN}", "login ***"),
        ("WANDB_API_KEY=abc123 train", "WANDB_API_KEY=*** train"),
        ("train --password 'two words' x", "train --password *** x"),
        ("train --push_token --seed 1", "train --push_token --seed 1"),
        ("clone https://ada:secret@example.org/x", "clone https://example.org/x"),
    ],
)
def test_texts_lose_paths_and_secrets(text: str, expected: str) -> None:
    """A command line carries the user's folders and tokens into a public card."""
    assert scrubbed(text) == expected
    assert scrubbed(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "120 sentences/s on Debian GNU/Linux",
        "https://arxiv.org/abs/2012.15828",
        "train recipes/glue/mnli.yaml --max_new_tokens 5 --tokenizer org/name",
        "org/name, bits/dim, and / or",
        "hf_distill train --token_type_ids no",
        "s3://bucket/x",
        "${HOME}/x",
    ],
)
def test_other_texts_stay(text: str) -> None:
    """A cleaner that eats links and units makes a card that is wrong."""
    assert scrubbed(text) == text


def test_settings_are_cleaned_at_every_depth() -> None:
    """A path three levels down is as public as one at the top."""
    settings = {"a": [{"b": ("/home/ada/x", 2)}], "hub_token": "abc", "token": 1, "tokens": 3}
    expected = {"a": [{"b": ["x", 2]}], "hub_token": "***", "token": "***", "tokens": 3}
    assert cleaned(settings) == expected
    assert cleaned({"kinds": frozenset({"value", "key"}), "at": Path("/home/ada/x")}) == {
        "kinds": ["key", "value"],
        "at": "x",
    }
