"""Capture: forward hooks that record the demanded layers of one model, and nothing else.

Queries, keys and values are read from their projections; attention scores and probabilities are
computed from them, so that SDPA and flash attention stay on. Where a family adds relative positions
to its scores, the probabilities are read before their dropout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hf_distill.architectures import Architecture, architecture, base_model, embeddings, layers
from hf_distill.signals.signals import LAYERED, Demand, Signals

Features = dict[str, Tensor]
"""Recorded tensors by flat key, `hidden.3`: plain data that DDP and compiled graphs carry along."""

_IN_WORDS = {
    "hidden": "hidden states",
    "attention": "attention maps",
    "attention_scores": "attention scores",
    "query": "queries",
    "key": "keys",
    "value": "values",
}


class Recorder:
    """Records what a demand asks for while armed: one forward pass at a time.

    The hooks are persistent (hooks added later are ignored by compiled graphs) and silent unless
    armed, so that the model behaves plainly elsewhere and recomputation under gradient
    checkpointing records nothing twice.
    """

    def __init__(self, model: nn.Module, demand: Demand) -> None:
        """Raises ValueError where the family is unknown, or cannot show a signal."""
        self.armed = False
        self._kept: Features = {}
        self._calls: dict[str, int] = defaultdict(int)
        base = base_model(model)
        family = architecture(base.config)
        for signal in LAYERED:
            if demand.of(signal) and signal not in family.shows:
                raise ValueError(
                    f"model must show {_IN_WORDS[signal]} for this objective, got "
                    f"{base.config.model_type!r}, which shows {', '.join(sorted(family.shows))}. "
                    "Compare hidden states, or relations (MiniLMv2) where they are shown."
                )
        stack = layers(model)
        for layer in sorted(demand.of("hidden")):
            if layer == 0:
                self._record("hidden.0", embeddings(model))
            elif layer == len(stack) and family.final_norm:
                self._record(f"hidden.{layer}", base.get_submodule(family.final_norm))
            else:
                self._record(f"hidden.{layer}", stack[layer - 1], _call(stack, layer))
        for name, wanted in _projections_wanted(demand, family).items():
            for layer in sorted(wanted):
                module = stack[layer - 1].get_submodule(getattr(family, name))
                self._record(
                    f"{name}.{layer}", module, _call(stack, layer), before=name == "scores"
                )

    def arm(self) -> None:
        """Record the next forward pass."""
        self._calls.clear()
        self._kept = {}
        self.armed = True

    def take(self) -> Features:
        """Hand over what was recorded, keep nothing, and stop recording."""
        self.armed = False
        kept, self._kept = self._kept, {}
        return kept

    def _record(self, key: str, module: nn.Module, call: int = 0, before: bool = False) -> None:
        # Other calls are ignored: ALBERT runs one module for many layers, and DeBERTa projects its
        # relative positions # by the modules that project queries and keys.
        def keep(shown: Any) -> None:
            if self.armed:
                if self._calls[key] == call:
                    self._kept[key] = shown[0] if isinstance(shown, tuple) else shown
                self._calls[key] += 1

        if before:
            module.register_forward_pre_hook(lambda _, args: keep(args))
        else:
            module.register_forward_hook(lambda _, args, output: keep(output))


def _call(stack: list[nn.Module], layer: int) -> int:
    """Which call of its module a layer is, from 0."""
    return sum(earlier is stack[layer - 1] for earlier in stack[: layer - 1])


def _projections_wanted(demand: Demand, family: Architecture) -> dict[str, frozenset[int]]:
    """Field of the architecture that names a module in a layer -> the layers to record it in."""
    query, key, value, maps = (demand.of(name) for name in ("query", "key", "value", "attention"))
    if family.fused is not None:
        return {"fused": query | key | value}
    if family.scores is not None:
        return {"query": query, "key": key, "value": value, "scores": maps}
    maps |= demand.of("attention_scores")
    return {"query": query | maps, "key": key | maps, "value": value}


def signals(features: Mapping[str, Tensor], demand: Demand, config: Any, **shown: Any) -> Signals:
    """Signals out of recorded features.

    Args:
        features: What a `Recorder` kept.
        demand: What was asked for.
        config: The model's config.
        **shown: The other fields of `Signals`, `mask` among them.
    """
    family = architecture(config)
    parts = _projections(features, family, config.num_attention_heads)

    def scores(layer: int) -> Tensor:
        return attention_scores(parts("query", layer), parts("key", layer))

    def maps(layer: int) -> Tensor:
        if family.scores:
            return features[f"scores.{layer}"]
        return attention_probabilities(scores(layer), shown["mask"])

    read: dict[str, Callable[[int], Tensor]] = {
        "hidden": lambda layer: features[f"hidden.{layer}"],
        "attention": maps,
        "attention_scores": scores,
        **{part: partial(parts, part) for part in ("query", "key", "value")},
    }
    layered: dict[str, Any] = {
        signal: {layer: read[signal](layer) for layer in demand.of(signal)} for signal in LAYERED
    }
    return Signals(**shown, **layered)


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """Q K^T / sqrt(d), of [B, A, T, d] twice: [B, A, T, T], in float32 or wider."""
    wide = torch.promote_types(query.dtype, torch.float32)
    # Autocast would cast the factors back.
    with torch.autocast(query.device.type, enabled=False):
        scores: Tensor = query.to(wide) @ key.to(wide).transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores


def attention_probabilities(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of [B, A, T, T] scores over real keys; 0 on padding."""
    padding = ~mask[:, None, None, :]
    scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(padding, 0)


def _projections(
    features: Mapping[str, Tensor], family: Architecture, heads: int
) -> Callable[[str, int], Tensor]:
    """A function (signal, layer) -> [B, A, T, d], out of projections [B, T, D] or [B, T, 3 D]."""

    def part(signal: str, layer: int) -> Tensor:
        if family.fused is None:
            flat = features[f"{signal}.{layer}"]
        else:
            index = ("query", "key", "value").index(signal)
            flat = features[f"fused.{layer}"].chunk(3, dim=-1)[index]
        split: Tensor = flat.unflatten(-1, (heads, -1))
        return split.transpose(1, 2)

    return part
