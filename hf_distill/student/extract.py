"""Extract, then distil: a student cut out of its teacher (ETD, Chen et al. 2021, arXiv 2104.11928).

What a cut preserves: feed-forward neurons and whole heads give the teacher with the others masked;
channels inside heads do so after `rescale_qk`; hidden units do not, since LayerNorm then averages
over fewer units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.architectures import anatomy, base_model
from hf_distill.student.choosing import choose
from hf_distill.student.config import student_config
from hf_distill.student.indices import IndexSets
from hf_distill.student.scores import Importance
from hf_distill.student.size import Size
from hf_distill.student.slicing import Origin, Slicer, inner_name


class Extraction(NamedTuple):
    """A student and what it was cut from."""

    model: PreTrainedModel
    indices: IndexSets
    origins: tuple[Origin, ...]
    """Where each of its tensors came from; of tensors that are tied, once."""


def extract(
    teacher: PreTrainedModel,
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

    Args:
        teacher: A transformers model, with or without a head. It is not changed.
        size: What `student_config` takes: "22M", "L3-H384", sizes by name, or a config.
        how: `magnitude` (needs no data and no seed, hence the default), `stride`, `random`, or
            scores of the teacher's units, as `importance` gives (ETD-Impt).
        layers: `uniform`, `first`, `last`, or the teacher layers to copy, counted from 1.
        decoder_layers: The same of a decoder beside the encoder.
        seed: For `random`.
        rescale_qk: Whether to make up for the smaller heads' scale, where heads are cut inside.
        dropout: The student's; the teacher's where it is None.

    Returns:
        The student, in the teacher's dtype and on its device, the index sets, and where each
        tensor came from.

    Raises:
        ValueError: The teacher's family or head cannot be cut, the size does not fit, or a name is
            unknown.
    """
    config = _config(teacher, size, layers, dropout)
    weights = {
        inner_name(name, teacher.base_model_prefix): tensor
        for name, tensor in teacher.state_dict().items()
    }
    indices = choose(
        config,
        teacher.config,
        weights,
        how=how,
        layers=layers,
        decoder_layers=decoder_layers,
        seed=seed,
    )
    whole = Size.of(teacher.config)
    ratio = Size.of(config).head_size / whole.head_size
    rescaled = rescale_qk and anatomy(config).scaled
    factor = math.sqrt(ratio) if rescaled else 1.0
    student = _blank(teacher, config, seed)
    origins = Slicer(weights, whole, indices, query_factor=factor).fill(student)
    return Extraction(student, indices, origins)


def fresh(
    teacher: PreTrainedModel,
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
    return _blank(teacher, _config(teacher, size, "uniform", dropout), seed)


def _config(
    teacher: PreTrainedModel,
    size: str | Mapping[str, int] | PretrainedConfig,
    layers: str | Sequence[int],
    dropout: float | None,
) -> PretrainedConfig:
    if not isinstance(teacher, PreTrainedModel):
        raise ValueError(
            f"teacher must be a transformers model, got {type(teacher).__name__!r}. "
            "Merge adapters first (merge_and_unload), unwrap what is compiled or parallel."
        )
    return student_config(size, teacher.config, layers=layers, dropout=dropout)


def _blank(teacher: PreTrainedModel, config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A model of the teacher's class with random weights."""
    # On the CPU and with its generator alone: torch.manual_seed would reseed the devices as well.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        student = type(teacher)(config)
    bare: Any = base_model(student)
    if getattr(base_model(teacher), "pooler", bare) is None:
        bare.pooler = None  # A teacher built with add_pooling_layer=False.
    # Module's own `to`: the override of PreTrainedModel hides its types.
    nn.Module.to(student, device=teacher.device, dtype=teacher.dtype)
    return student.eval()
