"""Extract, then distil: a student cut out of its teacher (ETD, Chen et al. 2021, arXiv 2104.11928).

What a cut preserves: feed-forward neurons and whole heads give the teacher with the others masked;
channels inside heads do so after `rescale_qk`, of rotated heads where the smaller size divides the
larger; hidden units do not, since norms then average over fewer units. The head of T5 (not of 1.1)
divides by the root of its own width, so that a narrower student's logits keep their scale.
ModernBERT's first layer has no norm before its attention: where another layer becomes the first,
its projection takes up the norm's gain.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.architectures import anatomy, base_model
from hf_distill.student.checkpoint import Original
from hf_distill.student.choosing import choose
from hf_distill.student.config import student_config
from hf_distill.student.crossing import Crossed, crossed, differences
from hf_distill.student.indices import IndexSets, LayerSets
from hf_distill.student.report import Report
from hf_distill.student.scores import Importance
from hf_distill.student.size import Size
from hf_distill.student.slicing import Origin, Place, Slicer, place
from hf_distill.student.tying import untie


class Extraction(NamedTuple):
    """A student and what it was cut from."""

    model: PreTrainedModel
    indices: IndexSets
    report: Report
    """What became of every tensor."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where each tensor came from; of tensors that are tied, once."""
        return self.report.origins


def extract(
    teacher: PreTrainedModel | str | Path,
    size: str | Mapping[str, int] | PretrainedConfig,
    *,
    how: str | Importance = "magnitude",
    layers: str | Sequence[int] = "uniform",
    decoder_layers: str | Sequence[int] = "uniform",
    seed: int = 0,
    rescale_qk: bool = False,
    dropout: float | None = None,
) -> Extraction:
    """A smaller model of the teacher's class, every parameter a slice of the teacher's.

    Embeddings, their norm, pooler and task head are cut too. The student is in eval mode, as after
    `from_pretrained`; it shares no memory with the teacher, and all of it is trainable.

    Where `size` is a config of another family that computes as the teacher's does, the student is
    of that family: what stands for nothing there is set so that it changes nothing, and what has
    no source is new, named in the report and in a warning.

    Args:
        teacher: A transformers model, with or without a head; it is not changed. Or a folder or a
            name on the Hub, of which safetensors are read one tensor at a time.
        size: What `student_config` takes: "22M", "L3-H384", sizes by name, or a config. Of a
            config of the teacher's family, the sizes are read and nothing else.
        how: `magnitude` (needs no data and no seed, hence the default), `stride`, `random`, or
            scores of the teacher's units, as `importance` gives (ETD-Impt).
        layers: `uniform`, `first`, `last`, or the teacher layers to copy, counted from 1.
        decoder_layers: The same of a decoder beside the encoder.
        seed: For `random`, and for what is new.
        rescale_qk: Whether to make up for the smaller heads' scale, where heads are cut inside.
        dropout: The student's; the teacher's where it is None.

    Returns:
        The student, in the teacher's dtype and on its device, the index sets, and what became of
        every tensor.

    Raises:
        ValueError: The teacher's family or head cannot be cut, the size does not fit, or a name is
            unknown.
    """
    given = Original.of(teacher)
    original, config = _related(given, size, layers, dropout, seed)
    indices = choose(
        config,
        original.config,
        original.weights,
        how=how,
        layers=layers,
        decoder_layers=decoder_layers,
        seed=seed,
    )
    whole = Size.of(original.config)
    ratio = Size.of(config).head_size / whole.head_size
    rescaled = rescale_qk and anatomy(config).scaled
    factor = math.sqrt(ratio) if rescaled else 1.0
    student = _blank(original, config, seed)
    slicer = Slicer(original.weights, whole, indices, query_factor=factor)
    origins = slicer.fill(student)
    report = _report(given, original, indices, origins, slicer.read)
    _warn_of_new(report)
    return Extraction(student, indices, report)


def fresh(
    teacher: PreTrainedModel | str | Path,
    size: str | Mapping[str, int] | PretrainedConfig,
    seed: int = 0,
    *,
    dropout: float | None = None,
) -> PreTrainedModel:
    """The student that `extract` would give, from random weights: the control of an extraction.

    Args:
        teacher: Gives class, config, dtype and device.
        size: As for `extract`.
        seed: Of the weights. The global generators are left as they were.
        dropout: The student's; the teacher's where it is None.

    Raises:
        ValueError: The teacher's family cannot be cut, or the size does not fit.
    """
    original, config = _related(Original.of(teacher), size, "uniform", dropout, seed)
    return _blank(original, config, seed)


def _related(
    given: Original,
    size: str | Mapping[str, int] | PretrainedConfig,
    layers: str | Sequence[int],
    dropout: float | None,
    seed: int,
) -> tuple[Original, PretrainedConfig]:
    """The teacher as one of the student's family, and the student's config."""
    original = given
    if isinstance(size, PretrainedConfig) and size.model_type != given.config.model_type:
        original = crossed(given, size, seed)
    return original, student_config(size, original.config, layers=layers, dropout=dropout)


def _blank(original: Original, config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A model of the teacher's class with random weights."""
    # On the CPU and with its generator alone: torch.manual_seed would reseed the devices as well.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        student = original.kind(config)
    untie(student, original.weights)
    bare: Any = base_model(student)
    pooled = any(name.startswith("pooler.") for name in original.weights)
    if bare is student and not pooled and getattr(bare, "pooler", None) is not None:
        bare.pooler = None  # A teacher built with add_pooling_layer=False.
    if original.generation is not None:
        student.generation_config = copy.deepcopy(original.generation)
    # Module's own `to`: the override of PreTrainedModel hides its types.
    nn.Module.to(student, device=original.device, dtype=original.dtype)
    return student.eval()


def _report(
    given: Original,
    original: Original,
    indices: IndexSets,
    origins: tuple[Origin, ...],
    read: set[str],
) -> Report:
    told: list[str] = []
    weights = original.weights
    if isinstance(weights, Crossed):
        origins, read = weights.retold(origins), weights.sources(read)
        told = differences(given.config, original.config, original.kind)
    size, family = Size.of(original.config), anatomy(given.config)
    depth = len(indices.layers) if family.shared else size.layers
    gone = (
        _others(depth, indices.layers),
        _others(size.decoder, indices.decoder),
    )

    def is_gone(where: Place | None) -> bool:
        """Whether it stands in a layer that was not taken, which is named as a whole."""
        return (
            where is not None and where.stack is not None and where.layer + 1 in gone[where.stack]
        )

    left_out = [
        name for name in given.weights if name not in read and not is_gone(place(name, family))
    ]
    return Report(origins, tuple(left_out), *gone, differences=tuple(told))


def _others(depth: int, kept: Sequence[LayerSets]) -> tuple[int, ...]:
    """The layers that were not taken."""
    taken = {layer.source for layer in kept}
    return tuple(layer for layer in range(1, depth + 1) if layer not in taken)


def _warn_of_new(report: Report) -> None:
    new = [origin.name for origin in report.of_kind("new")]
    if new:
        warnings.warn(
            f"nothing in the teacher is the source of {', '.join(new)}: they are newly "
            "initialised. Train the student before it is used.",
            stacklevel=3,
        )
