"""A model no deeper than is needed: its first layers, without its head."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from hf_distill.architectures.structure import architecture, base_model, layers

_PREPARED = ("_is_accelerate_prepared", "_original_forward")
"""Marks that accelerate leaves on a model that it has prepared."""


def truncated(model: nn.Module, depth: int) -> Any:
    """The model below its head, up to one of its layers; of an encoder-decoder the encoder alone.

    Its first `depth` layers compute what they compute in the model; what follows them (a last
    norm) is not the model's. Layers and weights are the model's own, and the model itself is left
    as it is: only the modules on the way to the list of layers are new ones.

    Args:
        model: A transformers model, or a PEFT model whose adapters sit inside its layers.
        depth: How many layers are run, counted from 1; 0 for the embeddings alone. A family that
            cannot run without layers runs its first.

    Raises:
        ValueError: The family is not known.
    """
    base = base_model(model)
    family = architecture(base.config)
    depth = max(depth, family.least)
    path = family.layers.split(".")
    if family.decoder and base.config.is_encoder_decoder:
        base, path = base.get_submodule(path[0]), path[1:]
    config = _shortened(base.config, depth, shared=family.shared)
    found = parent = twin(base, config)
    if "pooler" in dict(found.named_children()):
        found.pooler = None
    *between, last = path
    for name in between:
        child = twin(parent.get_submodule(name), config)
        setattr(parent, name, child)
        parent = child
    setattr(parent, last, nn.ModuleList(layers(model)[:depth]))
    return found


def twin(module: nn.Module, config: Any = None) -> Any:
    """A second module of the same parts; parts and hooks that one is given the other is not.

    What accelerate has made of the first one's forward pass (autocast, in another run) is left out.

    Args:
        module: Any module.
        config: The twin's own, where the module has one.
    """
    made = copy.copy(module)
    held = vars(made)
    if "_original_forward" in held:
        del held["forward"]
    for name in _PREPARED:
        held.pop(name, None)
    held.update({name: value.copy() for name, value in held.items() if isinstance(value, dict)})
    if config is not None and "config" in held:
        held["config"] = config
    return made


def _shortened(config: Any, depth: int, *, shared: bool) -> Any:
    """The config of the first layers alone."""
    short = copy.copy(config)
    short.num_hidden_layers = depth
    short.is_encoder_decoder = False
    if shared:
        # The list holds one module for each time that it is run: each is a group of its own.
        short.num_hidden_groups = depth
    return short
