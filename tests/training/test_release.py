"""What leaves the machine: an ordinary student, and no secret."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from hf_distill.training.heads import FILE
from tests.hub import Hub
from tests.training.push import REPOSITORY
from tests.training.runs import trainer

ROOT = Path(__file__).parents[2]
TOKEN = "hf_SECRETSECRET"


def holding(files: Mapping[str, bytes]) -> list[str]:
    """The files that hold the token."""
    return [name for name, content in files.items() if TOKEN.encode() in content]


def written(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_hub_token_is_in_no_file(tmp_path: Path) -> None:
    """The Trainer pickles its arguments, token included, into every checkpoint, and uploads it."""
    run = trainer(tmp_path, hub_token=TOKEN, save_strategy="steps", save_steps=1)
    run.train()
    run.save_model(str(tmp_path / "final"))
    run.save_state()
    files = written(tmp_path)
    assert {"final/training_args.bin", "checkpoint-1/training_args.bin"} <= set(files)
    assert not holding(files)
    arguments = torch.load(tmp_path / "final" / "training_args.bin", weights_only=False)
    assert arguments.hub_token is None
    assert arguments.learning_rate == run.args.learning_rate
    assert run.args.hub_token == TOKEN


def test_copies_of_arguments_keep_the_token(tmp_path: Path) -> None:
    """Arguments are copied between runs, as in a search: a copy without its token cannot push."""
    run = trainer(tmp_path, hub_token=TOKEN)
    for copied in (copy.copy(run.args), copy.deepcopy(run.args), dataclasses.replace(run.args)):
        assert copied.hub_token == TOKEN


@pytest.mark.slow
def test_a_pushed_student_is_ordinary(tmp_path: Path) -> None:
    """Projections, or arguments with a token, on a public page."""
    with Hub() as hub:
        done = subprocess.run(
            [sys.executable, "-m", "tests.training.push", str(tmp_path / "run"), TOKEN],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"},
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "home"),
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        files = hub.repositories[REPOSITORY]
    assert {"config.json", "model.safetensors", "training_args.bin", "README.md"} <= set(files)
    assert not any(Path(name).name == FILE for name in files), sorted(files)
    assert b"distillation_heads" not in files["model.safetensors"]
    assert not holding(files)
    assert not holding(written(tmp_path))
