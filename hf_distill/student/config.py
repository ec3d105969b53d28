"""The student's config: the teacher's, with smaller sizes."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from hf_distill.architectures import ARCHITECTURES
from hf_distill.student.depth import source_layers


@dataclass(frozen=True)
class Size:
    """The four numbers that make a transformer encoder large or small."""

    layers: int
    width: int
    heads: int
    ffn: int

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    def __str__(self) -> str:
        """The size as a name that `student_config` reads: L6-H384-A12-F1536."""
        return f"L{self.layers}-H{self.width}-A{self.heads}-F{self.ffn}"

    @classmethod
    def of(cls, config: PretrainedConfig) -> Size:
        """The size that a config describes."""
        return cls(**{field: getattr(config, name) for name, field in _FIELDS.items()})


_FIELDS = {
    "num_hidden_layers": "layers",
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "intermediate_size": "ffn",
}
"""Name in a config -> field of `Size`."""

PRESETS: dict[str, Size] = {
    "13M": Size(layers=6, width=256, heads=8, ffn=1024),
    "22M": Size(layers=6, width=384, heads=12, ffn=1536),
    "33M": Size(layers=12, width=384, heads=12, ffn=1536),
}
"""Sizes named by their parameters with BERT's uncased vocabulary: those of XtremeDistilTransformers
(Mukherjee et al. 2021)."""

_NAME = re.compile(r"L(?P<layers>\d+)(-H(?P<width>\d+))?(-A(?P<heads>\d+))?(-F(?P<ffn>\d+))?")


def student_config(
    size: str | Mapping[str, int] | PretrainedConfig,
    teacher_config: PretrainedConfig,
    *,
    layers: str | Sequence[int] = "uniform",
    dropout: float | None = None,
) -> PretrainedConfig:
    """A copy of the teacher's config with new sizes; family, vocabulary and labels stay.

    A size that is not named is the teacher's. Where the width is another than the teacher's, heads
    that are not named keep the teacher's head size, and the feed-forward width is four times it.

    Args:
        size: A name of `PRESETS`; a name such as L6, L3-H384 or L4-H312-A12-F1200 (layers, width,
            heads, feed-forward width); sizes under their names in a config; or another config of
            the family, of which the four sizes are read and nothing else.
        teacher_config: The teacher's config. It is not changed.
        layers: Which of the teacher's layers are copied, as `extract` takes it. Counts only where
            the config lists its layers one by one.
        dropout: Of hidden states, attention and head; the teacher's where it is None. A small
            student rarely overfits: 0 often learns more in the same number of steps.

    Raises:
        ValueError: The family cannot be cut, the size cannot be read, or such a student cannot be
            cut out of the teacher: it is deeper or wider, has more or larger heads or more
            feed-forward neurons, or its width is not divisible by its heads.
    """
    _check_family(teacher_config)
    teacher = Size.of(teacher_config)
    student = _filled(_named_sizes(size, teacher_config.model_type), teacher, size)
    _check_fits(student, teacher)
    config = copy.deepcopy(teacher_config)
    for name, field in _FIELDS.items():
        setattr(config, name, getattr(student, field))
    if dropout is not None:
        _set_dropout(config, dropout)
    if getattr(config, "layer_types", None) is not None:
        kept = source_layers(layers, student.layers, teacher.layers)
        config.layer_types = [teacher_config.layer_types[layer - 1] for layer in kept]
    # Model cards name the checkpoint that a model was fine-tuned from by this path; the student is
    # no fine-tuned teacher.
    config.name_or_path = ""
    return config


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}. 0 is none.")
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    # Without a value of its own, a head takes that of the hidden states.
    config.classifier_dropout = None


def _check_family(config: PretrainedConfig) -> None:
    supported = [name for name, family in ARCHITECTURES.items() if family.layer_tensors]
    if config.model_type not in supported:
        raise ValueError(
            f"teacher must be of a family that extraction knows ({', '.join(supported)}), "
            f"got model_type {config.model_type!r}. Take such a teacher, or build the student "
            "from a config of its own."
        )


def _named_sizes(
    size: str | Mapping[str, int] | PretrainedConfig, model_type: str
) -> dict[str, int]:
    """The fields of `Size` that `size` names."""
    if isinstance(size, PretrainedConfig):
        if size.model_type != model_type:
            raise ValueError(
                f"size must be a config of the teacher's family ({model_type}), "
                f"got model_type {size.model_type!r}. Weights are cut within one family."
            )
        return vars(Size.of(size)).copy()
    if isinstance(size, Mapping):
        return _read_mapping(size)
    if size in PRESETS:
        return vars(PRESETS[size]).copy()
    match = _NAME.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        near = difflib.get_close_matches(str(size).upper(), PRESETS, n=1)
        remedy = f" Did you mean {near[0]!r}?" if near else " -H, -A and -F may be left out."
        raise ValueError(
            f"size must be one of {', '.join(PRESETS)} or like L6-H384-A12-F1536, "
            f"got {size!r}.{remedy}"
        )
    return {field: int(number) for field, number in match.groupdict().items() if number}


def _read_mapping(size: Mapping[str, Any]) -> dict[str, int]:
    for name, number in size.items():
        if name not in _FIELDS:
            near = difflib.get_close_matches(str(name), _FIELDS, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else "All else is the teacher's."
            raise ValueError(f"size must name {', '.join(_FIELDS)}, got {name!r}. {remedy}")
        if type(number) is not int:
            raise ValueError(f"{name} must be an int, got {number!r}. Give a whole number.")
    return {_FIELDS[name]: number for name, number in size.items()}


def _filled(named: dict[str, int], teacher: Size, size: object) -> Size:
    """The whole size, with what is not named taken from the teacher."""
    for field, number in named.items():
        if number < 1:
            raise ValueError(f"{field} of size must be at least 1, got {number!r}. Raise it.")
    width = named.get("width", teacher.width)
    sizes = {"layers": teacher.layers, "width": width, "heads": teacher.heads, "ffn": teacher.ffn}
    if width != teacher.width:
        if "heads" not in named and width % teacher.head_size:
            raise ValueError(
                "size must name its heads where its width is no multiple of the teacher's head "
                f"size ({teacher.head_size}), got {size!r}. Add heads, as in L4-H312-A12."
            )
        sizes |= {"heads": width // teacher.head_size, "ffn": 4 * width}
    return Size(**sizes | named)


def _check_fits(student: Size, teacher: Size) -> None:
    if student.width % student.heads:
        raise ValueError(
            f"width of size must be divisible by its heads ({student.heads}), "
            f"got {student.width!r}. Change one of the two."
        )
    limits = {
        "layers": "Take a shallower student.",
        "width": "Take a narrower student.",
        "ffn": "Name a smaller feed-forward width, as in L4-H312-A12-F1200.",
        "heads": "Name fewer heads: whole heads are taken from the teacher.",
        "head_size": "Name more heads: channels are taken from inside the teacher's heads.",
    }
    for name, remedy in limits.items():
        got, most = getattr(student, name), getattr(teacher, name)
        if got > most:
            raise ValueError(
                f"{name} of size must be at most the teacher's ({most}), got {got!r}. {remedy}"
            )
