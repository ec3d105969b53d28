"""How large a model is, and how many sentences it reads in a second, on which machine."""

from __future__ import annotations

import inspect
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

LEAST_ROUNDS = 3
"""Rounds that are run however short the time: less has no spread."""

Batch = dict[str, Tensor]


class Sizes(NamedTuple):
    """How large a model is. A tensor that is used twice (tied embeddings) is counted once."""

    parameters: int
    non_embedding_parameters: int
    """Without the tables of embeddings: words, positions, types."""
    megabytes: float
    """Of the tensors in its safetensors file: 1e6 bytes."""


class Speed(NamedTuple):
    """Sentences per second: the median of several rounds, and the slowest and fastest of them."""

    median: float
    lowest: float
    highest: float
    rounds: int


def sizes(model: nn.Module) -> Sizes:
    """The sizes of a model, as it is in memory now (its dtype counts)."""
    parameters = {id(each): each.numel() for each in model.parameters()}
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    embedded = {id(each.weight): each.weight.numel() for each in tables}
    stored = {id(each): each for each in model.state_dict(keep_vars=True).values()}
    total = sum(parameters.values())
    return Sizes(
        parameters=total,
        non_embedding_parameters=total - sum(embedded.values()),
        megabytes=sum(each.numel() * each.element_size() for each in stored.values()) / 1e6,
    )


def sentences_per_second(
    models: Mapping[str, nn.Module],
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int,
    rounds: int = 7,
    seconds: float | None = None,
    max_length: int = 128,
) -> dict[str, Speed]:
    """The speed of several models' forward passes on the same batches, in turn.

    Every round times each model once over all batches, beginning with another model each time, so
    that what else the machine does hits all alike. Tokenising is not timed. Texts beyond the last
    full batch are left out.

    Args:
        models: Models by name, each on the device it is to be measured on.
        tokenizer: One tokenizer for all.
        texts: Sentences, at least `batch_size`.
        batch_size: Sentences in one forward pass.
        rounds: Timed rounds, after one that is not timed.
        seconds: Time after which no new round begins, once there were three.
        max_length: Tokens at which a sentence is cut.
    """
    if not models:
        raise ValueError(f"models must name at least one model, got {models!r}. Add the student.")
    if not 1 <= batch_size <= len(texts):
        raise ValueError(
            f"batch_size must be between 1 and the {len(texts)} texts, got {batch_size!r}. "
            "Give more texts."
        )
    if rounds < LEAST_ROUNDS:
        raise ValueError(
            f"rounds must be at least {LEAST_ROUNDS}, got {rounds!r}. Shorten texts instead."
        )
    batches = _batches(tokenizer, texts, batch_size, max_length)
    inputs = {name: _accepted(model, batches) for name, model in models.items()}
    names, times = list(models), {name: list[float]() for name in models}
    with _evaluating(models), torch.no_grad():
        for name in names:
            _timed(models[name], inputs[name])
        began = time.perf_counter()
        for turn in range(rounds):
            late = seconds is not None and time.perf_counter() - began > seconds
            if late and turn >= LEAST_ROUNDS:
                break
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(_timed(models[name], inputs[name]))
    sentences = len(batches) * batch_size
    return {name: _speed(sentences, times[name]) for name in names}


def machine(device: torch.device | str = "cpu") -> str:
    """One line on what a speed was measured on: no host name, no path.

    Args:
        device: Where the models were; names the GPU where it is one.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [
        _processor(),
        f"{usable} of {os.cpu_count()} cores usable, {torch.get_num_threads()} threads",
        _system(),
        f"torch {torch.__version__}",
    ]
    kind = torch.device(device).type
    if kind == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    elif kind != "cpu":
        parts.insert(0, f"{kind} device")
    return "; ".join(parts)


def _batches(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int, max_length: int
) -> list[Batch]:
    """The full batches, each padded to its longest sentence."""
    options = {"padding": True, "truncation": True, "max_length": max_length}
    return [
        dict(tokenizer(list(texts[at : at + batch_size]), return_tensors="pt", **options))
        for at in range(0, len(texts) - batch_size + 1, batch_size)
    ]


def _accepted(model: nn.Module, batches: Sequence[Batch]) -> list[Batch]:
    """The batches on the model's device, without what its family does not read (token types)."""
    device = next(model.parameters()).device
    known = inspect.signature(model.forward).parameters
    return [
        {key: each.to(device) for key, each in batch.items() if key in known} for batch in batches
    ]


@contextmanager
def _evaluating(models: Mapping[str, nn.Module]) -> Iterator[None]:
    """Evaluation mode inside; afterwards the mode that each submodule had."""
    modes = [(part, part.training) for model in models.values() for part in model.modules()]
    try:
        for model in models.values():
            model.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _timed(model: nn.Module, batches: Sequence[Batch]) -> float:
    device = next(model.parameters()).device
    _wait(device)
    began = time.perf_counter()
    for batch in batches:
        model(**batch)
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _speed(sentences: int, times: Sequence[float]) -> Speed:
    speeds = [sentences / each for each in times]
    return Speed(statistics.median(speeds), min(speeds), max(speeds), len(speeds))


def _processor() -> str:
    """The name of the CPU model; its architecture where the system does not tell."""
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    if platform.system() == "Darwin":
        command: list[Any] = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    """The name of the operating system."""
    if platform.system() == "Linux":
        try:
            return platform.freedesktop_os_release()["PRETTY_NAME"]
        except (OSError, KeyError):
            return "Linux"
    return f"{platform.system()} {platform.release()}"
