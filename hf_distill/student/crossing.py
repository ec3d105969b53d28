"""A teacher's tensors under the names of another family that computes alike.

A crossed teacher is an `Original` of the student's family in the teacher's own sizes; what is cut
out of it is cut as within one family.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.architectures import anatomy
from hf_distill.student.checkpoint import Original
from hf_distill.student.kinship import activation, epsilon, position_offset, relative_config
from hf_distill.student.slicing import Origin, Place, inner_name, place

_HEADS = (
    "Model",
    "ForCausalLM",
    "ForMaskedLM",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    "ForSequenceClassification",
    "ForTokenClassification",
)

_SAME = {
    "words_bias": "lm_decoder.bias",
    "generator_dense": "lm_dense",
    "generator_norm": "lm_norm",
    "generator_decoder": "lm_decoder",
}
"""Role -> another name of it, where both are read alike."""

_DENSE_HEADS = {
    "bert": ("pooler", "classifier", "tanh"),
    "albert": ("pooler", "classifier", "tanh"),
    "roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", "tanh"),
    "mpnet": ("classifier.dense", "classifier.out_proj", "tanh"),
    "electra": ("classifier.dense", "classifier.out_proj", "gelu"),
    "distilbert": ("pre_classifier", "classifier", "relu"),
}
"""Family -> roles of the two projections that classify a sequence, and what lies between them."""

_CHOICE_HEADS = {
    **dict.fromkeys(_DENSE_HEADS, ("pooler", "classifier", "tanh")),
    "electra": ("summary", "classifier", "gelu"),
    "distilbert": ("pre_classifier", "classifier", "relu"),
}
"""The same, for choosing among sequences."""

_NEUTRAL = ("types.weight", "relative_bias.weight")
"""Tables of which zeros change nothing."""

Key = tuple[str, int | None, int]
"""What a tensor means, its stack and its layer."""


@dataclass(frozen=True)
class Trace:
    """What a tensor of the crossed teacher is made of."""

    shape: tuple[int, ...]
    meaning: str
    sources: tuple[str, ...] = ()
    """Names of the one tensor of the teacher that it is."""
    made: str = ""
    """As `Origin` has it."""
    note: str = ""


class Crossed(Mapping[str, Tensor]):
    """The teacher's tensors by the names of the student's family, each made when asked for."""

    def __init__(self, teacher: Original, config: PretrainedConfig, kind: Any, seed: int) -> None:
        """Of one teacher, as a model of the class `kind` in the teacher's sizes."""
        self.teacher, self.config, self.seed = teacher, config, seed
        self._shift = position_offset(config) - position_offset(teacher.config)
        self._held = _by_meaning(teacher)
        with torch.device("meta"):
            shapes = {name: each.shape for name, each in kind(config).state_dict().items()}
        inner = {inner_name(name, kind.base_model_prefix): each for name, each in shapes.items()}
        # A type table without a place is folded into the positions.
        homeless = not any(name.endswith("token_type_embeddings.weight") for name in inner)
        self._types = self._held.get(("types.weight", None, 0), ()) if homeless else ()
        meant = _Meanings(config, kind)
        traces = {
            name: self._trace(meant(name, where), where, tuple(shape))
            for name, shape in inner.items()
            if (where := place(name, anatomy(config))) is not None
        }
        # A base model does without a pooler rather than with a random one, and a decoder that no
        # file holds is tied to the embeddings.
        without = {"lm_decoder.weight"}
        if _head(config, kind) == "Model":
            without |= {"pooler.weight", "pooler.bias"}
        self.traces = {
            name: trace
            for name, trace in traces.items()
            if trace.sources or trace.meaning not in without
        }

    def __getitem__(self, name: str) -> Tensor:
        """The tensor, in the teacher's size."""
        trace = self.traces[name]
        if not trace.sources:
            return self._made(name, trace)
        tensor = self.teacher.weights[trace.sources[0]]
        return self._positions(tensor) if trace.meaning == "positions.weight" else tensor

    def __iter__(self) -> Iterator[str]:
        """In the order of the student's class."""
        return iter(self.traces)

    def __len__(self) -> int:
        """How many tensors there are."""
        return len(self.traces)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tensor; nothing is read."""
        return name in self.traces

    def retold(self, origins: tuple[Origin, ...]) -> tuple[Origin, ...]:
        """Origins with the teacher's own names."""
        return tuple(self._retold(each, self.traces[each.source]) for each in origins)

    def _retold(self, origin: Origin, trace: Trace) -> Origin:
        return replace(
            origin,
            source=next(iter(trace.sources), ""),
            made=trace.made,
            note=", ".join(filter(None, (trace.note, origin.note))),
        )

    def sources(self, read: set[str]) -> set[str]:
        """The teacher's names of tensors that were read."""
        found = {source for name in read for source in self.traces[name].sources}
        return found | set(self._types)

    def _trace(self, meaning: str, where: Place, shape: tuple[int, ...]) -> Trace:
        key = (meaning, where.stack, self._layer(where))
        sources = self._held.get(key, ())
        if sources:
            return Trace(shape, meaning, sources, note=self._note(meaning))
        weight = (re.sub("bias$", "weight", meaning), *key[1:])
        neutral = meaning in _NEUTRAL or (weight != key and weight in self._held)
        return Trace(shape, meaning, made="neutral" if neutral else "new")

    def _layer(self, where: Place) -> int:
        """The teacher's layer; one that is run several times is the source of several."""
        config: Any = self.teacher.config
        if where.stack is None or not anatomy(config).shared:
            return where.layer
        return where.layer * config.num_hidden_groups // config.num_hidden_layers

    def _note(self, meaning: str) -> str:
        if meaning != "positions.weight":
            return ""
        moved = f"rows moved by {self._shift}" if self._shift else ""
        return ", ".join(filter(None, (moved, "token type 0 added" if self._types else "")))

    def _positions(self, rows: Tensor) -> Tensor:
        """Rows at the student's places; tokens of type 0 where the student knows no types."""
        if self._types:
            rows = rows + self.teacher.weights[self._types[0]][0]
        if self._shift < 0:
            return rows[-self._shift :]
        return torch.cat([rows.new_zeros(self._shift, rows.shape[1]), rows])

    def _made(self, name: str, trace: Trace) -> Tensor:
        """Zeros, ones or small random numbers, as the family's own models begin."""
        options: Any = {"dtype": self.teacher.dtype, "device": self.teacher.device}
        module, _, leaf = trace.meaning.rpartition(".")
        if trace.made == "neutral" or leaf == "bias":
            return torch.zeros(trace.shape, **options)
        if module.endswith("norm"):
            return torch.ones(trace.shape, **options)
        chance = torch.Generator().manual_seed(Random(f"{self.seed}/{name}").getrandbits(63))
        spread = getattr(self.config, "initializer_range", 0.02)
        return torch.randn(trace.shape, generator=chance).mul(spread).to(**options)


def crossed(teacher: Original, asked: PretrainedConfig, seed: int) -> Original:
    """The teacher as a model of another family, in its own sizes and with its own head.

    Args:
        teacher: The teacher.
        asked: A config of the other family.
        seed: Of what has no source.

    Raises:
        ValueError: The families compute in other ways, or the other has no such head.
    """
    config = relative_config(teacher.config, asked)
    kind = _counterpart(teacher, config)
    return replace(teacher, kind=kind, config=config, weights=Crossed(teacher, config, kind, seed))


def differences(teacher: PretrainedConfig, config: PretrainedConfig, kind: Any) -> list[str]:
    """What a family computes in another way than the teacher, in words."""
    found = []
    if epsilon(teacher) != epsilon(config):
        found.append(
            f"Norms add {epsilon(config):g} to the variance, the teacher's {epsilon(teacher):g}: "
            f"{config.model_type} leaves no choice."
        )
    ours, theirs = (_lm_activation(each) for each in (config, teacher))
    if kind.__name__.endswith("ForMaskedLM") and ours != theirs:
        found.append(f"The head predicts words through {ours}, the teacher's through {theirs}.")
    if getattr(teacher, "type_vocab_size", 0) and not hasattr(config, "type_vocab_size"):
        found.append("All tokens are read as of type 0: pairs of texts as one text.")
    return found


def _lm_activation(config: PretrainedConfig) -> str:
    fixed = config.model_type in ("roberta", "xlm-roberta", "mpnet", "electra")
    return "gelu" if fixed else activation(config)


class _Meanings:
    """What tensors of a class do, by the same words in all families that compute alike."""

    def __init__(self, config: PretrainedConfig, kind: type[PreTrainedModel]) -> None:
        head = _head(config, kind)
        tables: dict[str, dict[str, tuple[str, str, str]]] = {
            "ForSequenceClassification": _DENSE_HEADS,
            "ForMultipleChoice": _CHOICE_HEADS,
        }
        self.same = dict(_SAME)
        if config.model_type in tables.get(head, {}):
            dense, labels, between = tables[head][config.model_type]
            self.same |= {dense: f"dense before {between}", labels: f"labels after {between}"}

    def __call__(self, name: str, where: Place) -> str:
        role = self.same.get(where.part.role, where.part.role)
        module, _, leaf = role.rpartition(".")
        return f"{self.same.get(module, module)}.{leaf}"


def _by_meaning(teacher: Original) -> dict[Key, tuple[str, ...]]:
    """The teacher's tensors; of those that are tied, the one that is used first."""
    meant = _Meanings(teacher.config, teacher.kind)
    found: dict[Key, tuple[str, ...]] = {}
    for name in teacher.weights:
        where = place(name, anatomy(teacher.config))
        if where is not None:
            key = (meant(name, where), where.stack, where.layer)
            found[key] = (name, *found.get(key, ()))
    return found


def _head(config: PretrainedConfig, kind: type[PreTrainedModel]) -> str:
    return kind.__name__.removeprefix(_family(config))


def _family(config: PretrainedConfig) -> str:
    return type(config).__name__.removesuffix("Config")


def _counterpart(teacher: Original, config: PretrainedConfig) -> Any:
    """The class of the other family with the teacher's head."""
    head = _head(teacher.config, teacher.kind)
    found = getattr(transformers, f"{_family(config)}{head}", None)
    if head not in _HEADS or found is None:
        raise ValueError(
            f"teacher must have a head that {config.model_type} has, too ({', '.join(_HEADS)}), "
            f"got {teacher.kind.__name__!r}. Cross its base model."
        )
    return found
