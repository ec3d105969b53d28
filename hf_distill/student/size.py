"""The numbers that make a transformer large or small: read, filled in, and checked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from hf_distill.architectures import Anatomy, anatomy
from hf_distill.architectures.parts import (
    CHANNEL,
    CONTEXT,
    EMBEDDING,
    FFN,
    HEADS,
    HIDDEN,
    KEY,
    QUERY,
    VALUE,
    sizes,
)


@dataclass(frozen=True)
class Size:
    """Depth and widths of a transformer. What is 0 follows from the others."""

    layers: int
    """Of the encoder, where there is a decoder beside it."""
    width: int
    """Units of the residual stream."""
    heads: int
    ffn: int
    """Feed-forward neurons of a layer."""
    head_size: int = 0
    """Channels of one attention head; width / heads in most families."""
    groups: int = 0
    """Heads of keys and values; as many as query heads in most families."""
    embedding: int = 0
    """Units of the embeddings; the width in most families."""
    decoder: int = 0
    """Layers of a decoder beside the encoder; 0 where there is none."""

    def __post_init__(self) -> None:
        """Fill in what follows."""
        filled = {
            "head_size": self.head_size or self.width // max(self.heads, 1),
            "groups": self.groups or self.heads,
            "embedding": self.embedding or self.width,
        }
        for name, number in filled.items():
            object.__setattr__(self, name, number)

    def __str__(self) -> str:
        """The size as a name: L6-H384-A12-F1536; what it leaves out follows as in BERT."""
        follows = Size(self.layers, self.width, self.heads, self.ffn)
        extra = "".join(
            f"-{letter}{getattr(self, name)}"
            for letter, name in _LETTERS.items()
            if getattr(self, name) != getattr(follows, name)
        )
        return f"L{self.layers}-H{self.width}-A{self.heads}-F{self.ffn}{extra}"

    @classmethod
    def of(cls, config: PretrainedConfig) -> Size:
        """The size that a config describes.

        Raises:
            ValueError: Extraction does not know its family.
        """
        read = {field: getattr(config, name, 0) for field, name in anatomy(config).sizes.items()}
        read["ffn"] = read["ffn"] or 4 * read["width"]  # GPT-2's, where it names none.
        if not config.is_encoder_decoder:
            read["decoder"] = 0
        return cls(**{field: number or 0 for field, number in read.items()})

    def extent(self, axis: str) -> int:
        """The length of an axis; those of a decoder's attention to the encoder are the same."""
        queries, keys = self.heads * self.head_size, self.groups * self.head_size
        lengths = {
            HIDDEN: self.width,
            EMBEDDING: self.embedding,
            QUERY: queries,
            KEY: keys,
            VALUE: keys,
            CONTEXT: queries,
            FFN: self.ffn,
            HEADS: self.heads,
            CHANNEL: self.head_size,
        }
        return lengths[axis.removeprefix("cross_")]


_LETTERS = {
    "L": "layers",
    "H": "width",
    "A": "heads",
    "F": "ffn",
    "K": "head_size",
    "G": "groups",
    "E": "embedding",
    "D": "decoder",
}
"""Letter in a name -> field of `Size`."""

PRESETS: dict[str, Size] = {
    "13M": Size(layers=6, width=256, heads=8, ffn=1024),
    "22M": Size(layers=6, width=384, heads=12, ffn=1536),
    "33M": Size(layers=12, width=384, heads=12, ffn=1536),
}
"""Sizes named by their parameters with BERT's uncased vocabulary: those of XtremeDistilTransformers
(Mukherjee et al. 2021)."""

_NAME = re.compile(r"L\d+(-[HAFKGED]\d+)*")
_PRESET_FIELDS = ("layers", "width", "heads", "ffn")


def fitting_size(
    size: str | Mapping[str, int] | PretrainedConfig, teacher_config: PretrainedConfig
) -> Size:
    """The size that is asked for, with what it leaves open filled in.

    Args:
        size: As `student_config` takes it.
        teacher_config: Of the teacher that a student of this size is cut out of.

    Raises:
        ValueError: The size cannot be read, or does not fit into the teacher.
    """
    teacher = Size.of(teacher_config)
    student = _filled(_named(size, teacher_config), teacher, teacher_config, size)
    _check_fits(student, teacher)
    _check_family(student, teacher, anatomy(teacher_config))
    return student


def write_size(size: Size, config: PretrainedConfig) -> None:
    """Set the sizes in a config, under its family's names."""
    family = anatomy(config)
    # What a config leaves open follows; its feed-forward neurons are then four times the width.
    follows = Size(size.layers, size.width, size.heads, 4 * size.width)
    for field, name in family.sizes.items():
        number = getattr(size, field)
        if field == "decoder" and not number:
            continue
        if getattr(config, name, None) is not None or number != getattr(follows, field):
            setattr(config, name, number)
    for name, field in family.also.items():
        if hasattr(config, name):
            setattr(config, name, getattr(size, field))


def _named(
    size: str | Mapping[str, int] | PretrainedConfig, teacher_config: PretrainedConfig
) -> dict[str, int]:
    """The fields of `Size` that `size` names."""
    if isinstance(size, PretrainedConfig):
        if size.model_type != teacher_config.model_type:
            raise ValueError(
                f"size must be a config of the teacher's family ({teacher_config.model_type}), "
                f"got model_type {size.model_type!r}. Weights are cut within one family."
            )
        return vars(Size.of(size)).copy()
    if isinstance(size, Mapping):
        return _read_mapping(size, teacher_config)
    if size in PRESETS:
        return {field: getattr(PRESETS[size], field) for field in _PRESET_FIELDS}
    if not isinstance(size, str) or not _NAME.fullmatch(size):
        near = difflib.get_close_matches(str(size).upper(), PRESETS, n=1)
        remedy = f" Did you mean {near[0]!r}?" if near else " All but L may be left out."
        raise ValueError(
            f"size must be one of {', '.join(PRESETS)} or like L6-H384-A12-F1536, "
            f"got {size!r}.{remedy}"
        )
    return {_LETTERS[part[0]]: int(part[1:]) for part in size.split("-")}


def _read_mapping(size: Mapping[str, Any], config: PretrainedConfig) -> dict[str, int]:
    family = {name: field for field, name in anatomy(config).sizes.items()}
    fields = {name: field for field, name in sizes().items() if field in family.values()} | family
    fields |= {own: fields[name] for name, own in config.attribute_map.items() if name in fields}
    for name, number in size.items():
        if name not in fields:
            near = difflib.get_close_matches(str(name), fields, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else "All else is the teacher's."
            raise ValueError(f"size must name {', '.join(fields)}, got {name!r}. {remedy}")
        if type(number) is not int:
            raise ValueError(f"{name} must be an int, got {number!r}. Give a whole number.")
    return {fields[name]: number for name, number in size.items()}


def _filled(named: dict[str, int], teacher: Size, config: PretrainedConfig, size: object) -> Size:
    """The whole size, with what is not named taken from the teacher."""
    for field, number in named.items():
        if number < 1 and not (field == "decoder" and isinstance(size, PretrainedConfig)):
            raise ValueError(f"{field} of size must be at least 1, got {number!r}. Raise it.")
        _check_most(field, number, teacher)
    width = named.get("width", teacher.width)
    heads, left = divmod(teacher.heads * width, teacher.width)
    if "heads" not in named and (left or not heads):
        raise ValueError(
            "size must name its heads where its width is no multiple of the teacher's head "
            f"size ({teacher.head_size}), got {size!r}. Add heads, as in L4-H312-A12."
        )
    filled = {
        "layers": teacher.layers,
        "width": width,
        "heads": heads,
        "ffn": max(teacher.ffn * width // teacher.width, 1),
        "embedding": width if teacher.embedding == teacher.width else teacher.embedding,
        **named,
    }
    if teacher.decoder:
        filled.setdefault("decoder", min(filled["layers"], teacher.decoder))
    filled.setdefault("head_size", _head_size(filled, named, teacher, config))
    filled.setdefault("groups", _groups(filled["heads"], teacher))
    return Size(**filled)


def _head_size(
    filled: dict[str, int], named: dict[str, int], teacher: Size, config: PretrainedConfig
) -> int:
    """Width over heads; where the family leaves it free, the teacher's unless both are named."""
    width, heads = filled["width"], filled["heads"]
    free = "head_size" in anatomy(config).sizes
    if free and (width == teacher.width or "heads" not in named or width % heads):
        return teacher.head_size
    if width % heads:
        raise ValueError(
            f"width of size must be divisible by its heads ({heads}), got {width!r}. "
            "Change one of the two."
        )
    return min(width // heads, teacher.head_size) if free else width // heads


def _groups(heads: int, teacher: Size) -> int:
    """As many query heads to a head of keys as the teacher has, or the most that fit below."""
    most = teacher.heads // teacher.groups
    fitting = [groups for groups in range(1, heads + 1) if not heads % groups]
    return next(groups for groups in fitting if heads // groups <= most)


_LIMITS = {
    "layers": "Take a shallower student.",
    "width": "Take a narrower student.",
    "ffn": "Name a smaller feed-forward width, as in L4-H312-A12-F1200.",
    "heads": "Name fewer heads: whole heads are taken from the teacher.",
    "head_size": "Name more heads: channels are taken from inside the teacher's heads.",
    "groups": "Name fewer heads of keys and values, as in L4-A8-G2.",
    "embedding": "Name a smaller embedding, as in L4-H128-A4-F512-E64.",
    "decoder": "Take a shallower decoder, as in L4-D2.",
}


def _check_most(name: str, got: int, teacher: Size) -> None:
    most = getattr(teacher, name)
    if got > most:
        raise ValueError(
            f"{name} of size must be at most the teacher's ({most}), got {got!r}. {_LIMITS[name]}"
        )


def _check_fits(student: Size, teacher: Size) -> None:
    for name in _LIMITS:
        _check_most(name, getattr(student, name), teacher)
    if student.heads % student.groups:
        raise ValueError(
            f"heads of size must be divisible by its groups ({student.groups}), "
            f"got {student.heads!r}. Change one of the two."
        )
    each, most = student.heads // student.groups, teacher.heads // teacher.groups
    if each > most:
        raise ValueError(
            f"groups of size must have at most as many query heads each as the teacher's ({most}), "
            f"got {each!r}. Name more groups, or fewer heads."
        )


def _check_family(student: Size, teacher: Size, family: Anatomy) -> None:
    if family.rotary and student.head_size % 2:
        raise ValueError(
            f"head_size of size must be even in a family that rotates pairs of channels, "
            f"got {student.head_size!r}. Change the width or the heads."
        )
    projected = [each.embedding != each.width for each in (student, teacher)]
    if projected[0] != projected[1] and not family.projects:
        raise ValueError(
            "embedding of size must be the width just where the teacher's is "
            f"({teacher.embedding} of {teacher.width}), got {student.embedding!r} of "
            f"{student.width}. Its projection would have no source, or no place."
        )
