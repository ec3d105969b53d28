"""A model over fewer tokens: the rows of the vocabulary cut, and every id renumbered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.architectures import architecture
from hf_distill.student.limits import check_model

_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")
"""What generation settings list ids under, beside names that end in token_id or token_ids."""
_MIXED = ("forced_decoder_ids", "sequence_bias")
"""Generation settings whose ids stand between other numbers."""


def vocabulary_axes(model: PreTrainedModel) -> dict[str, int]:
    """Name -> axis of every parameter and buffer that holds one row per token.

    These are the tensors that are larger in the same model with a larger vocabulary. Their size
    alone would not tell: it may be that of something else by chance.

    Raises:
        ValueError: The model's family is not known here, it is not as its config says, or is kept
            in a form whose rows cannot be taken.
    """
    check_model("model", model)
    architecture(model.config)
    config = copy.deepcopy(model.config)
    config.vocab_size += 1
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        larger = _tensors(type(model)(config))
    axes = {}
    for name, tensor in _tensors(model).items():
        shape = larger[name].shape if name in larger else tensor.shape
        grown = [axis for axis, size in enumerate(tensor.shape) if shape[axis] == size + 1]
        if grown:
            (axes[name],) = grown
    _check_tensors(model, larger, axes)
    return axes


def named_ids(model: PreTrainedModel) -> set[int]:
    """The ids that a model knows by their number: those of its configs, and of its padding rows."""
    named: set[int] = set()

    def note(old: int) -> int:
        named.add(old)
        return old

    for config in _configs(model):
        _change_config(config, note)
    for module in model.modules():
        if isinstance(padding := vars(module).get("padding_idx"), int):
            named.add(padding)
    return {old for old in named if 0 <= old < model.config.vocab_size}


def fixed_ids(model: PreTrainedModel, axes: Collection[str]) -> int:
    """How many ids, from 0 on, must stay as they are.

    Where positions are counted from the padding token's id, as RoBERTa and MPNet do, another id for
    it would shift them: every position would get its neighbour's embedding.
    """
    others = [
        module.padding_idx
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and f"{name}.weight" not in axes
    ]
    return 1 + max((old for old in others if old is not None), default=-1)


def trim_model(
    model: PreTrainedModel, axes: Mapping[str, int], kept: Sequence[int]
) -> PreTrainedModel:
    """A copy of a model over the kept tokens.

    Args:
        model: It is not changed.
        axes: Its `vocabulary_axes`.
        kept: Old id of each new one. `named_ids` are among them, the first `fixed_ids` in place.
    """
    tensors, new = _tensors(model), {old: at for at, old in enumerate(kept)}
    # What is tied is one tensor under several names, so it stays tied.
    copies: dict[int, Any] = {}
    for name, axis in axes.items():
        if id(tensors[name]) not in copies:
            copies[id(tensors[name])] = _cut(tensors[name], axis, kept)
    cut = {id(tensor) for tensor in copies.values()}
    # A deep copy takes what it finds there for copied, so the large tensors never are.
    trimmed: PreTrainedModel = copy.deepcopy(model, copies)
    for module in trimmed.modules():
        _change_module(module, cut, new)
    for config in _configs(trimmed):
        if hasattr(config, "vocab_size"):
            config.vocab_size = len(kept)
        _change_config(config, lambda old: new.get(old, old))
    return trimmed


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those that are tied under all their names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )


def _check_tensors(
    model: PreTrainedModel, larger: Mapping[str, Tensor], axes: Collection[str]
) -> None:
    tensors = _tensors(model)
    cut = {id(tensors[name]) for name in axes}
    # What DeBERTa-v2 calls its output embeddings is a layer before them, and not of that size.
    others = {
        id(tensor)
        for name, tensor in tensors.items()
        if name in larger and larger[name].shape == tensor.shape
    }
    layers = {model.get_input_embeddings(): cut, model.get_output_embeddings(): cut | others}
    for layer, known in layers.items():
        if layer is not None and id(layer.weight) not in known:
            raise ValueError(
                f"model must have plain embeddings of the {model.config.vocab_size} rows that its "
                f"config says, got {layer!r}. Merge adapters first; set vocab_size of the config."
            )
    for name in sorted(axes):
        if tensors[name].is_meta or not tensors[name].is_floating_point():
            held = "no data (device meta)" if tensors[name].is_meta else str(tensors[name].dtype)
            raise ValueError(
                f"model must hold its vocabulary in floating point, got {held} in {name!r}. "
                "Load it without quantisation and without offloading."
            )
    for config in _configs(model):
        for name in _MIXED:
            if getattr(config, name, None):
                raise ValueError(
                    f"{name} must be none, got {getattr(config, name)!r}. "
                    "Take it out of the generation config, and set it again with the new ids."
                )


def _cut(tensor: Tensor, axis: int, kept: Sequence[int]) -> Tensor:
    rows = tensor.detach().index_select(axis, torch.tensor(kept, device=tensor.device))
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(rows, requires_grad=tensor.requires_grad)
    return rows


def _change_module(module: nn.Module, cut: set[int], new: Mapping[int, int]) -> None:
    """Renumber what a module remembers of the vocabulary, in place."""
    weight = getattr(module, "weight", None)
    if id(weight) in cut and isinstance(module, nn.Embedding):
        module.num_embeddings = len(new)
    if id(weight) in cut and isinstance(module, nn.Linear):
        module.out_features = len(new)
    held: Any = module
    if "vocab_size" in vars(module):
        held.vocab_size = len(new)
    if isinstance(vars(module).get("padding_idx"), int):
        held.padding_idx = new.get(held.padding_idx, held.padding_idx)


def _configs(model: PreTrainedModel) -> Iterator[Any]:
    """Every config of a model; the stacks of an encoder-decoder have copies of their own."""
    found = {}
    for module in model.modules():
        for name in ("config", "generation_config"):
            config = vars(module).get(name)
            if config is not None:
                found[id(config)] = config
    yield from found.values()


def _change_config(config: Any, change: Callable[[int], int]) -> None:
    """Change, in place, every id that a config names."""
    for name, value in list(vars(config).items()):
        if name.endswith(("token_id", "token_ids")) or name in _LISTS:
            changed = _changed(value, change)
            if changed != value:
                setattr(config, name, changed)


def _changed(value: Any, change: Callable[[int], int]) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_changed(each, change) for each in value)
    return change(value) if type(value) is int else value
