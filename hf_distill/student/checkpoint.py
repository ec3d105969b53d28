"""A teacher as extraction reads it: a model in memory, or a folder, one tensor at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    cached_file,
)
from transformers.utils.hub import get_checkpoint_shard_files

from hf_distill.architectures import anatomy
from hf_distill.student.limits import check_model
from hf_distill.student.slicing import inner_name

_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""What checkpoints of before 2019 call a norm's tensors."""


_NO_WEIGHTS = re.compile(r"\.(position_ids|attn\.bias|attn\.masked_bias|rotary_emb\.inv_freq)$")
"""Constants that old checkpoints hold, and that models compute now."""


class Checkpoint(Mapping[str, Tensor]):
    """The tensors of safetensors files by their names without the base model's prefix.

    Each is read anew when it is asked for, and is gone when nobody holds it: a file is mapped into
    memory for one tensor only, so that its pages are given back with it.
    """

    def __init__(self, files: list[Path], prefix: str, dtype: torch.dtype | None) -> None:
        """Of the files that make up one checkpoint.

        Args:
            files: Their paths.
            prefix: The base model's, as in "bert".
            dtype: What tensors in floating point are given in; the files' own where it is None.
        """
        self._places: dict[str, tuple[Path, str]] = {}
        for path in files:
            with safe_open(path, "pt") as held:
                for key in held.keys():  # noqa: SIM118  It is no mapping.
                    if not _NO_WEIGHTS.search(key):
                        self._places[inner_name(_present_name(key), prefix)] = path, key
        self.dtype = dtype or self._own_dtype()

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor."""
        path, key = self._places[name]
        with safe_open(path, "pt") as held:
            tensor: Tensor = held.get_tensor(key)
        # Quantised integers stay what they are, to be refused.
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def __iter__(self) -> Iterator[str]:
        """In the order of the files."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self._places

    def _own_dtype(self) -> torch.dtype:
        """That of the first tensor in floating point, as `from_pretrained` takes it."""
        for path, key in self._places.values():
            with safe_open(path, "pt") as held:
                tensor = held.get_slice(key)[:0] if held.get_slice(key).get_shape() else None
            if tensor is not None and tensor.is_floating_point():
                found: torch.dtype = tensor.dtype
                return found
        return torch.float32


@dataclass(frozen=True)
class Original:
    """What extraction needs of a teacher."""

    kind: type[PreTrainedModel]
    config: PretrainedConfig
    weights: Mapping[str, Tensor]
    """Name without the base model's prefix -> tensor."""
    dtype: torch.dtype
    device: torch.device
    generation: GenerationConfig | None = None
    """How it writes, where it can."""

    @classmethod
    def of(cls, teacher: PreTrainedModel | str | Path) -> Original:
        """A model in memory, or one that is read from a folder or the Hub's cache.

        Of safetensors, no more than one tensor is held at a time, in the dtype that
        `from_pretrained` would give: the config's, else the file's. Other weights are loaded whole.

        Raises:
            ValueError: It is no transformers model, cannot be found, or is of a class or a family
                that extraction does not know.
        """
        if isinstance(teacher, (str, Path)):
            return _read(str(teacher))
        check_model("teacher", teacher)
        prefix = teacher.base_model_prefix
        weights = {inner_name(name, prefix): each for name, each in teacher.state_dict().items()}
        generation = teacher.generation_config if teacher.can_generate() else None
        return cls(
            type(teacher), teacher.config, weights, teacher.dtype, teacher.device, generation
        )


def _read(source: str) -> Original:
    config = _config(source)
    anatomy(config)
    kind = _kind(config)
    files = weight_files(source)
    if not files:
        return Original.of(kind.from_pretrained(source))
    weights = Checkpoint(files, kind.base_model_prefix, config.dtype)
    generation = _generation(source) if kind.can_generate() else None
    return Original(kind, config, weights, weights.dtype, torch.device("cpu"), generation)


def _config(source: str) -> Any:
    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        told = str(error).rstrip(".")
        raise ValueError(
            f"teacher must be a model's folder or its name on the Hub, got {source!r}: {told}. "
            "Correct the name."
        ) from error


def _generation(source: str) -> Any:
    try:
        return GenerationConfig.from_pretrained(source)
    except OSError:  # Its model's config says all.
        return None


def _kind(config: Any) -> Any:
    """The class that the checkpoint was saved from."""
    names = config.architectures or []
    kinds = [getattr(transformers, name, None) for name in names[:1]]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            return kind
    raise ValueError(
        f"teacher must name a class of transformers in its config (architectures), got {names!r}. "
        "Load it with its class, and give the model."
    )


def weight_files(source: str) -> list[Path]:
    """The safetensors of a folder or of a model on the Hub; none where it has others."""
    options: dict[str, Any] = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    whole = cached_file(source, SAFE_WEIGHTS_NAME, **options)
    if whole is not None:
        return [Path(whole)]
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, **options)
    if index is None:
        return []
    return [Path(each) for each in get_checkpoint_shard_files(source, index)[0]]


def _present_name(key: str) -> str:
    for old, new in _OLD_NAMES.items():
        key = key.replace(old, new)
    return key
