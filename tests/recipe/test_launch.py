"""One recipe, two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.recipe import examples

ROOT = Path(__file__).parent.parent.parent


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _launched(folder: Path, *arguments: str) -> str:
    """What two processes say on the way."""
    config = ROOT / "recipes" / "accelerate" / "two_cpu.yaml"
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)),
        *("--main_process_port", _free_port(), "-m", "hf_distill", *arguments),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "home")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("chained", [False, True])
def test_two_processes_train_together(tmp_path: Path, chained: bool) -> None:
    """On CPUs two runs are easily started that know nothing of each other, and share files."""
    found = examples.recipe(tmp_path, "text-classification")
    if chained:
        found["teacher"]["models"] = [found["teacher"].pop("model")] * 2
        found |= {"assistants": [{"size": "L4-H16-A2-F24"}]}
        found["objectives"] = {"kl": {"type": "KLDivergence"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    said = _launched(tmp_path, "train", "tiny.yaml", "--baseline", "--output", "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert results["processes"] == 2
    assistants = {"assistant 1"} if chained else set()
    assert set(results["scores"]) == {"teacher", "student", "baseline", *assistants}
    assert said.count("Measuring.") == 1 + chained, "only the main process speaks"
    assert said.count("baseline (no teacher)") == 1
    assert (tmp_path / "out" / "student" / "README.md").is_file()
    card = (tmp_path / "out" / "student" / "README.md").read_text(encoding="utf-8")
    assert "batch size 16" in card, "8 for each of two processes"
    assert "accelerate launch --num_processes 2 -m hf_distill train" in card


@pytest.mark.slow
def test_two_processes_write_a_cache_together(tmp_path: Path) -> None:
    """Each alone would compute everything, twice; and both would tell the user so."""
    found = examples.recipe(tmp_path, "text-classification")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    asked = ("cache", "tiny.yaml", "--out", "cached", "--output", "out", "--storage", "float32")
    several = ("--set", "training.per_device_train_batch_size=4")
    for computed in (32, 0):
        said = _launched(tmp_path, *asked, *several)
        assert said.count(f"\n{computed} examples were computed, in") == 1, said
        assert said.count("Data: 32 features") == 1, "only the main process speaks"
        assert said.count("The cache in cached holds all 32 examples") == 1
        assert said.count("Teacher cache: 32 of 32 examples are to be shown once") == (computed > 0)
    assert len(list((tmp_path / "cached").glob("*.safetensors"))) == 2, "one of each process"
    _launched(tmp_path, "train", "tiny.yaml", "--output", "out", "--set", "teacher_cache=cached")
    card = (tmp_path / "out" / "student" / "README.md").read_text(encoding="utf-8")
    assert "read from a cache (float32)" in card
    assert "batch size 16" in card, "8 for each of two processes"
