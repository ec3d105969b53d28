"""Which parts of the teacher a student is cut from: index sets, and how they are chosen."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.architectures import FFN, QUERY_KEY, VALUE, Axes, architecture, base_model
from hf_distill.architectures import layers as layer_modules
from hf_distill.student.config import Size
from hf_distill.student.depth import source_layers

EXTRACTION_FILE = "extraction.json"

Indices = tuple[int, ...]


@dataclass(frozen=True)
class IndexSets:
    """What is kept of a teacher. Layers are counted from 1, channels from 0; every set ascends.

    The hidden set is one for the whole model, since the residual stream adds layers coordinate by
    coordinate; the others belong to one kept layer each (ETD, Chen et al. 2021). Query and key
    share a set, as they meet in a dot product; so do the value's rows and the output's columns.
    """

    layers: Indices
    """The teacher layers copied: the m-th becomes student layer m."""
    hidden: Indices
    """Units of the residual stream."""
    ffn: tuple[Indices, ...]
    """Feed-forward neurons, for each kept layer."""
    query_key: tuple[Indices, ...]
    """Channels of queries and keys, head after head, for each kept layer."""
    value: tuple[Indices, ...]
    """Channels of values, from the same heads, for each kept layer."""

    def to_json(self) -> str:
        """The sets as JSON, one set to a line."""
        lines = (f"  {json.dumps(name)}: {json.dumps(sets)}" for name, sets in asdict(self).items())
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> IndexSets:
        """The sets that `to_json` wrote.

        Raises:
            ValueError: The text is no JSON object of exactly these sets.
        """
        read = json.loads(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(read, dict) or set(read) != names:
            got = sorted(read) if isinstance(read, dict) else read
            raise ValueError(
                f"{EXTRACTION_FILE} must hold {', '.join(sorted(names))}, got {got!r}. "
                "Extract the student again."
            )
        return cls(**{name: _tuples(sets) for name, sets in read.items()})

    def save(self, directory: str | Path) -> Path:
        """Write extraction.json into a checkpoint's directory; returns its path."""
        path = Path(directory) / EXTRACTION_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, directory: str | Path) -> IndexSets:
        """Read extraction.json from a checkpoint's directory.

        Raises:
            FileNotFoundError: There is none.
            ValueError: It does not hold index sets.
        """
        return cls.from_json((Path(directory) / EXTRACTION_FILE).read_text(encoding="utf-8"))


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


Choice = Callable[[int, Tensor, Random], Indices]
"""(how many, a score for each candidate [n], source of chance) -> that many of 0..n-1, ascending"""


def magnitude(count: int, scores: Tensor, chance: Random) -> Indices:
    """The largest: hidden units by variance of their word embeddings, others by weight norm.

    Of equal scores the earlier is taken. Needs no data and no seed.
    """
    largest = torch.argsort(scores, descending=True, stable=True)[:count]
    return tuple(sorted(largest.tolist()))


def stride(count: int, scores: Tensor, chance: Random) -> Indices:
    """Evenly spaced, from the first on."""
    return tuple(index * len(scores) // count for index in range(count))


def random(count: int, scores: Tensor, chance: Random) -> Indices:
    """Drawn without replacement, by seed (ETD-Rand)."""
    return tuple(sorted(chance.sample(range(len(scores)), count)))


CHOICES: dict[str, Choice] = {"magnitude": magnitude, "stride": stride, "random": random}
"""Name -> function. The first line of its docstring explains it."""


def choose(
    teacher: PreTrainedModel,
    config: PretrainedConfig,
    *,
    how: str,
    layers: str | Sequence[int],
    seed: int,
) -> IndexSets:
    """The index sets that cut a student of this config out of the teacher.

    Where the student has fewer heads than the teacher, whole heads are chosen, the same for
    queries, keys and values; where its heads are smaller, channels are chosen inside each head.

    Args:
        teacher: The teacher, with or without a head.
        config: The student's config, from `student_config`.
        how: A name of `CHOICES`.
        layers: A name of `SOURCES`, or teacher layers counted from 1.
        seed: For `random`. A layer's draw does not depend on which other layers are kept.

    Raises:
        ValueError: A name is unknown or the layers do not fit.
    """
    choice = _choice(how)
    student, whole = Size.of(config), Size.of(teacher.config)
    kept = source_layers(layers, student.layers, whole.layers)
    spread = _exact(teacher.get_input_embeddings().get_parameter("weight")).var(dim=0)
    hidden = choice(student.width, spread, Random(f"{seed}/hidden"))
    tensors = architecture(teacher.config).layer_tensors
    modules = layer_modules(base_model(teacher))
    ffn: list[Indices] = []
    query_key: list[Indices] = []
    value: list[Indices] = []
    for layer in kept:
        chance, module = Random(f"{seed}/{layer}"), modules[layer - 1]
        ffn.append(choice(student.ffn, _energy(module, tensors, FFN), chance))
        channels = [
            _energy(module, tensors, axis).view(whole.heads, -1) for axis in (QUERY_KEY, VALUE)
        ]
        heads = choice(student.heads, (channels[0] + channels[1]).sum(dim=1), chance)
        for sets, scores in zip((query_key, value), channels, strict=True):
            sets.append(_inside(heads, student.head_size, scores, choice, chance))
    return IndexSets(kept, hidden, tuple(ffn), tuple(query_key), tuple(value))


def _choice(how: str) -> Choice:
    if how in CHOICES:
        return CHOICES[how]
    near = difflib.get_close_matches(str(how).lower(), CHOICES, n=1, cutoff=0.5)
    remedy = f"Did you mean {near[0]!r}?" if near else "Choose one of these."
    raise ValueError(f"how must be one of {', '.join(CHOICES)}, got {how!r}. {remedy}")


def _exact(weight: Tensor) -> Tensor:
    """A weight in float64 on the CPU, so that the choice is the same on every machine."""
    return weight.detach().to(device="cpu", dtype=torch.float64)


def _energy(layer: nn.Module, tensors: Mapping[str, Axes], axis: str) -> Tensor:
    """Squared L2 norm of each channel of an axis, over all matrices of a layer that have it: [n].

    For a feed-forward neuron these are its row of the first and its column of the second matrix.
    """
    total = torch.zeros(())
    for name, axes in tensors.items():
        if len(axes) == 2 and axis in axes:
            other = 1 - axes.index(axis)
            total = total + _exact(layer.get_parameter(name)).square().sum(dim=other)
    return total


def _inside(heads: Indices, size: int, scores: Tensor, choice: Choice, chance: Random) -> Indices:
    """Channels chosen inside each of the kept heads; scores are [heads of the teacher, d]."""
    width = scores.shape[1]
    return tuple(
        head * width + channel for head in heads for channel in choice(size, scores[head], chance)
    )
