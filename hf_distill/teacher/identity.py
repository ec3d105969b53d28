"""Who a teacher is: a digest of its weights, and a model of its shape that holds none."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from hf_distill.architectures import plain_model
from hf_distill.cache.about import Taught
from hf_distill.cache.shards import file_digest
from hf_distill.student.checkpoint import weight_files

_INCIDENTAL = ("_name_or_path", "architectures", "dtype", "transformers_version")
"""What a config says of how it was written or read, whatever the model is."""


def taught_by(model: nn.Module, path: str | Path | None = None) -> Taught:
    """What a cache says of a teacher.

    Args:
        model: The teacher, with its adapters where it has any.
        path: Where it was loaded from, a folder or a Hub id, if it was.
    """
    plain = plain_model(model)
    config = json.loads(plain.config.to_json_string(use_diff=False))
    return Taught(
        name=str(plain.name_or_path or type(plain).__name__),
        model_class=type(plain).__name__,
        config={name: said for name, said in config.items() if name not in _INCIDENTAL},
        weights=weights_digest(model),
        files=None if path is None else files_digest(path),
    )


def weights_digest(model: nn.Module) -> str:
    """Of all tensors that are saved of a model, with their names."""
    digest = sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def files_digest(path: str | Path) -> str | None:
    """Of a checkpoint's config, weights and adapters; None where there are no safetensors."""
    weights = weight_files(str(path))
    if not weights:
        return None
    folder = weights[0].parent
    digest = sha256()
    for file in [folder / "config.json", *weights, *sorted(folder.glob("adapter_*"))]:
        digest.update(f"{file.name} {file_digest(file)}".encode())
    return digest.hexdigest()


def hollow(taught: Taught) -> Any:
    """A model of the teacher's class and config, on the device "meta": it has shapes, no numbers.

    Raises:
        ValueError: This version of transformers has no such class.
    """
    kind = getattr(transformers, taught.model_class, None)
    family = taught.config.get("model_type")
    if kind is None or family not in transformers.CONFIG_MAPPING:
        raise ValueError(
            f"teacher of a cache must be of a class of transformers {transformers.__version__}, "
            f"got {taught.model_class!r} of model_type {family!r}. Install the version that the "
            "cache was written with."
        )
    config = transformers.CONFIG_MAPPING[family].from_dict(taught.config)
    with torch.device("meta"):
        model = kind(config)
    model.name_or_path = taught.name
    return model
