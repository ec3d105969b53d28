"""Tiny teachers whose every weight is distinct, and the same teachers with parts masked."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers.models.deberta_v2 import modeling_deberta_v2

from hf_distill.architectures import anatomy, base_model
from hf_distill.student import IndexSets, Size
from hf_distill.student.slicing import inner_name, place
from tests import tiny

FAMILIES = tuple(tiny.FAMILIES)
HEADS = (
    "Model",
    "EncoderModel",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForMaskedLM",
    "ForCausalLM",
    "ForPreTraining",
    "ForNextSentencePrediction",
    "ForConditionalGeneration",
    "DoubleHeadsModel",
)
_SLIDING = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
_VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "positions with projections of their own": ("DebertaV2", "ForMaskedLM", {
        "share_att_key": False, "norm_rel_ebd": "none", "position_biased_input": True,
        "type_vocab_size": 2,
    }),
    "a convolution": ("DebertaV2", "ForMaskedLM", {"conv_kernel_size": 3, "conv_act": "gelu"}),
    "embeddings apart": ("DebertaV2", "ForMaskedLM", {
        "embedding_size": 16, "position_biased_input": True,
    }),
    "a language model of DeBERTa's first kind": ("DebertaV2", "ForMaskedLM", {"legacy": False}),
    "embeddings as wide as ALBERT": ("Albert", "ForMaskedLM", {"embedding_size": 32}),
    "biases in ModernBERT": ("ModernBert", "ForMaskedLM", {
        "norm_bias": True, "attention_bias": True, "mlp_bias": True, "decoder_bias": False,
    }),
    "no inner width named": ("GPT2", "ForCausalLM", {"intermediate_size": None}),
    "scores by layer": ("GPT2", "ForCausalLM", {"scale_attn_by_inverse_layer_idx": True}),
    "biases in Llama": ("Llama", "ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "tied Llama": ("Llama", "ForCausalLM", {"tie_word_embeddings": True}),
    "one group": ("Llama", "ForCausalLM", {"num_key_value_heads": 1}),
    "no groups": ("Qwen3", "ForCausalLM", {"num_key_value_heads": 4}),
    "sliding windows": ("Qwen2", "ForCausalLM", _SLIDING),
    "gated T5": ("T5", "ForConditionalGeneration", {
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    }),
    "an ELECTRA without projection": ("Electra", "ForMaskedLM", {"embedding_size": 32}),
    "an ELECTRA that is a decoder": ("Electra", "ForCausalLM", {"is_decoder": True}),
}  # fmt: skip
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{family} {head}": (family, head, {})
    for family in FAMILIES
    for head in tiny.heads(family, HEADS)
    if (family, head) != ("Bart", "ForCausalLM")  # Refused.
} | _VARIANTS
"""Name -> family, head and changes of the config: every head that transformers has for a family,
and the variants that have tensors or sizes of their own."""
PLAIN = tuple(name for name, (_, head, _) in CASES.items() if head == "Model") + tuple(_VARIANTS)
"""One case of every family, and every variant."""


def teacher(family: str = "Bert", head: str = "Model", **changes: Any) -> Any:
    """A tiny model in float64; norms and biases are random too, so that a forgotten one shows."""
    skip_what_cannot_run(family, head)
    model = tiny.model(family, head, **changes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return model


def skip_what_cannot_run(family: str, head: str) -> None:
    """Skip the test where this version of transformers has a fault of its own."""
    if (family, head, transformers.__version__) == ("XLMRoberta", "ForMultipleChoice", "5.0.0"):
        pytest.skip("this model of transformers 5.0.0 asks for an output that is not there")


def case(name: str, layers: int = 2) -> tuple[Any, dict[str, Tensor]]:
    """The model of one of `CASES`, as deep as asked for, and a batch for it."""
    family, head, changes = CASES[name]
    decoder = {"T5": "num_decoder_layers", "Bart": "decoder_layers"}.get(family)
    depth = {"num_hidden_layers": layers} | ({decoder: layers} if decoder else {})
    return teacher(family, head, **changes, **depth), inputs(head)


def narrow(model: Any, size: str) -> str:
    """A size that cuts the embeddings too where they are apart from the width."""
    size_of, apart = Size.of(model.config), anatomy(model.config).projects
    return f"{size}-E4" if apart or size_of.embedding != size_of.width else size


def inputs(head: str = "Model", length: int = 7) -> dict[str, Tensor]:
    """A batch of two sequences, the second of them padded, each with one end of sentence."""
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, -2:] = 0
    ids = torch.randint(3, tiny.VOCABULARY, (2, length))
    ids[:, length - 3] = 2
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    if head == "ForMultipleChoice":
        return {name: tensor.unsqueeze(0) for name, tensor in batch.items()}
    if head == "ForConditionalGeneration":
        batch["decoder_input_ids"] = torch.randint(3, tiny.VOCABULARY, (2, 5))
    return batch


class _Exact(TorchFunctionMode):
    """float64 where a model would go down to float32."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.float:
            return args[0].double()
        args = [torch.float64 if each is torch.float32 else each for each in args]
        kwargs = {
            name: torch.float64 if each is torch.float32 else each
            for name, each in (kwargs or {}).items()
        }
        return function(*args, **kwargs)


def _exact_root(queries: Tensor, factor: int) -> Tensor:
    return torch.tensor(queries.shape[-1] * factor, dtype=torch.float64).sqrt()


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """Every tensor that a model answers with."""
    # Early versions compile DeBERTa's root of the head size, in float32, where no mode reaches.
    exact_root = patch.object(modeling_deberta_v2, "scaled_size_sqrt", _exact_root)
    with torch.no_grad(), exact_root, _Exact():
        found = model(**batch)
    return [value for value in found.values() if isinstance(value, Tensor)]


def close(first: list[Tensor], second: list[Tensor], tolerance: float = 1e-12) -> bool:
    """Whether two lists of tensors are equal up to a tolerance, of their size where above 1."""
    return len(first) == len(second) and all(
        a.shape == b.shape and bool(((a - b).abs() <= tolerance * b.abs().clamp_min(1)).all())
        for a, b in zip(first, second, strict=True)
    )


def expected(model: Any, indices: IndexSets, batch: dict[str, Tensor]) -> list[Tensor]:
    """What a student must answer: the masked teacher's outputs, and of hidden states the kept.

    T5's head divides its input by the root of the width: the student's by the root of its own.
    """
    width, narrow = Size.of(model.config).width, len(indices.hidden)
    with masked(model, indices):
        found = outputs(model, batch)
    if hasattr(model, "lm_head") and getattr(model.config, "scale_decoder_outputs", False):
        found[0] = found[0] * (width / narrow) ** 0.5
    return [each[..., list(indices.hidden)] if each.shape[-1] == width else each for each in found]


_READS = {"output": "context", "cross_output": "cross_context", "ffn_out": "ffn"}
"""Role of a projection -> what it reads; most read hidden units."""
_READS |= dict.fromkeys(("embedding_projection", "generator_decoder", "lm_decoder"), "embedding")
_AVERAGES = {"query_norm": "channel", "key_norm": "channel"}
"""Role of a norm -> what it averages over; most average over hidden units."""
_AVERAGES |= dict.fromkeys(("embedding_norm", "generator_norm", "lm_norm"), "embedding")
_MEET = {"query": "query", "key": "key", "cross_query": "cross_query", "cross_key": "cross_key"}
"""Role of a projection to queries or keys -> its channels."""
_MEET |= {"position_query": "query", "position_key": "key"}


@contextmanager
def masked(model: Any, indices: IndexSets) -> Iterator[None]:
    """The model without all that the index sets leave out, at its full size.

    Projections read and norms average only what is kept; queries and keys meet in kept channels; a
    layer that is not kept hands on what it was given. A layer that runs several times stays.
    """
    with ExitStack() as stack:
        for module, role, sets in _modules(model, indices):
            for hook in _hooks(module, role, sets):
                stack.callback(hook.remove)
        for layer in _dropped(model, indices):
            stack.callback(layer.register_forward_hook(_hand_on).remove)
        first = indices.layers[0].source - 1
        if first and model.config.model_type == "modernbert":
            # The student's first layer has no norm before its attention; the gain remains.
            norm = base_model(model).layers[first].attn_norm
            stack.callback(norm.register_forward_hook(_gain_only).remove)
        yield


def _modules(model: Any, indices: IndexSets) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Every module with a weight, save in layers not kept; its role; what is kept of its axes."""
    size, family = Size.of(model.config), anatomy(model.config)
    sources = [
        {layer.source - 1: layer.axes(size) for layer in kept}
        for kept in (indices.layers, indices.decoder)
    ]
    for name in model.state_dict():
        where = place(inner_name(name, model.base_model_prefix), family)
        path, _, leaf = name.rpartition(".")
        if leaf != "weight" or where is None:
            continue
        sets: dict[str, Any] = {"hidden": indices.hidden, "embedding": indices.embedding}
        if where.stack is not None and where.layer not in sources[where.stack]:
            continue
        if where.stack is not None:
            sets |= sources[where.stack][where.layer]
        if path.endswith("embeddings.LayerNorm") and model.config.model_type == "deberta-v2":
            sets["embedding"] = indices.hidden  # Behind its projection.
        yield model.get_submodule(path), where.part.role.removesuffix(".weight"), sets


def _hooks(module: Any, role: str, sets: dict[str, Any]) -> Iterator[Any]:
    """The hooks that mask one module, by its role."""
    if isinstance(module, nn.Embedding):
        return
    if module.weight.dim() == 1:
        yield module.register_forward_hook(partial(_norm_over, sets[_AVERAGES.get(role, "hidden")]))
        return
    read = sets[_READS.get(role, "hidden")]
    yield module.register_forward_pre_hook(partial(_read_only, read))
    if role == "query_key_value":
        yield module.register_forward_hook(partial(_fused_only, sets))
    elif role in _MEET:
        yield module.register_forward_hook(partial(_only, sets[_MEET[role]]))


def kept(width: int, indices: Any) -> Tensor:
    """[width] of ones where an index is kept, zeros elsewhere."""
    mask = torch.zeros(width, dtype=torch.float64)
    mask[list(indices)] = 1.0
    return mask


def _read_only(indices: Any, module: Any, args: Any) -> Any:
    """Conv1d reads [B, channels, T], the others [..., channels]."""
    if isinstance(module, nn.Conv1d):
        return (args[0] * kept(args[0].shape[1], indices)[:, None], *args[1:])
    return (args[0] * kept(args[0].shape[-1], indices), *args[1:])


def _only(indices: Any, module: Any, args: Any, output: Tensor) -> Tensor:
    return output * kept(output.shape[-1], indices)


def _fused_only(sets: dict[str, Any], module: Any, args: Any, output: Tensor) -> Tensor:
    """Queries, keys and values of one projection, as many of each."""
    width = output.shape[-1] // 3
    masks = [kept(width, sets["query"]), kept(width, sets["key"]), torch.ones(width)]
    return output * torch.cat(masks)


def _norm_over(indices: Any, module: Any, args: Any, output: Tensor) -> Tensor:
    """What a norm over the kept units alone gives; 0 elsewhere."""
    units, narrow = list(indices), copy.deepcopy(module)
    narrow._forward_hooks.clear()
    narrow.normalized_shape = (len(units),)
    for name, parameter in module.named_parameters():
        setattr(narrow, name, nn.Parameter(parameter[units]))
    result = torch.zeros_like(output)
    result[..., units] = narrow(args[0][..., units])
    return result


def _dropped(model: Any, indices: IndexSets) -> Iterator[nn.Module]:
    """The layers that are not kept."""
    stacks = anatomy(model.config).stacks if not anatomy(model.config).shared else ()
    for stack, sets in zip(stacks, (indices.layers, indices.decoder), strict=False):
        sources = {layer.source - 1 for layer in sets}
        present = base_model(model).get_submodule(stack.path) if sets else ()
        yield from (layer for at, layer in enumerate(present) if at not in sources)


def _hand_on(module: Any, args: Any, output: Any) -> Any:
    """A layer's input in place of its output; position biases and maps stay."""
    return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]


def _gain_only(module: Any, args: Any, output: Any) -> Tensor:
    return args[0] * module.weight  # type: ignore[no-any-return]
