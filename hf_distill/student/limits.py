"""What of a teacher cannot be cut, or not in the direction that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import transformers
from packaging.version import Version
from transformers import PretrainedConfig, PreTrainedModel

from hf_distill.architectures import anatomy
from hf_distill.student.depth import source_layers
from hf_distill.student.size import Size

_ROTATIONS = ("default", "linear", "dynamic", "llama3")
"""Kinds of rotary positions that turn pair i of a head of d channels by i / d alone (`dynamic`: up
to the trained length), so that evenly spaced pairs turn in a smaller head as they did."""


def check_model(name: str, model: Any) -> None:
    """Refuse whatever is not a transformers model as such.

    Raises:
        ValueError: It is wrapped, adapted, or something else; `name` is the argument's.
    """
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"{name} must be a transformers model, got {type(model).__name__!r}. "
            "Merge adapters first (merge_and_unload), unwrap what is compiled or parallel."
        )


def check_cut(student: Size, teacher_config: PretrainedConfig, layers: str | Sequence[int]) -> None:
    """Refuse what would silently be another computation than the teacher's.

    Args:
        student: What is asked for; it fits into the teacher.
        teacher_config: The teacher's.
        layers: As `extract` takes it.

    Raises:
        ValueError: The teacher cannot be cut so.
    """
    teacher, family = Size.of(teacher_config), anatomy(teacher_config)
    faults = list(_whole(teacher, teacher_config))
    if family.shared and layers != "uniform":
        faults.append(
            f"layers must be 'uniform' where one layer is run several times, got {layers!r}. "
            "Leave it out."
        )
    if "head_size" not in family.sizes and student.head_size * student.heads != student.width:
        faults.append(
            f"head_size of size must be width over heads in a {teacher_config.model_type}, "
            f"got {student.head_size!r}. Leave it out."
        )
    if student.width != teacher.width and getattr(teacher_config, "scale_embedding", False):
        faults.append(
            "width of size must be the teacher's where embeddings are multiplied by the root of "
            f"the width (scale_embedding), got {student.width!r}: words would weigh less against "
            "positions. Cut heads and feed-forward neurons alone."
        )
    if student.head_size != teacher.head_size:
        faults += _smaller_heads(teacher_config)
    faults += _windows(student, teacher, teacher_config, layers)
    if faults:
        raise ValueError(faults[0])


def _whole(teacher: Size, config: Any) -> Iterator[str]:
    """What speaks against any cut."""
    family = anatomy(config)
    if len(family.stacks) > 1 and config.is_decoder and not config.is_encoder_decoder:
        yield (
            f"teacher must have its encoder, got the decoder of a {config.model_type} alone. "
            "Extract from the whole model, and take the student's decoder."
        )
    for name in ("num_hidden_groups", "inner_group_num", "conv_groups"):
        if getattr(config, name, 1) != 1:
            yield (
                f"{name} of the teacher must be 1, got {getattr(config, name)!r}: its parts would "
                "be cut as one. Take another teacher, or build the student from its own config."
            )
    for name, field in family.also.items():
        number = getattr(config, name, getattr(teacher, field))
        if number != getattr(teacher, field):
            yield (
                f"{name} of the teacher must be its {field} ({getattr(teacher, field)}), "
                f"got {number!r}. Take another teacher, or build the student from its own config."
            )


def _smaller_heads(config: Any) -> Iterator[str]:
    """What speaks against fewer channels in a head."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(each for each in rope.values() if isinstance(each, dict))]
    for kind in {each.get("rope_type", "default") for each in kinds} - set(_ROTATIONS):
        yield (
            f"rope_type of the teacher must be one of {', '.join(_ROTATIONS)} where its heads "
            f"become smaller, got {kind!r}, which turns channels otherwise in smaller heads. "
            "Keep the head size: name fewer heads, or none."
        )


def _windows(
    student: Size, teacher: Size, config: Any, layers: str | Sequence[int]
) -> Iterator[str]:
    """What speaks against layers that would look through other windows than they did."""
    early = Version(transformers.__version__) < Version("5.1")
    if config.model_type != "modernbert" or not early:
        return
    sources = source_layers(layers, student.layers, teacher.layers)
    every = config.global_attn_every_n_layers
    # This version goes by a layer's place, not by layer_types.
    if any(bool((old - 1) % every) != bool(new % every) for new, old in enumerate(sources)):
        yield (
            f"layers must keep their windows where transformers {transformers.__version__} gives "
            f"ModernBERT's by place alone (every {every} from the first is global), "
            f"got {sources!r}. Take transformers 5.1 or later, or layers='first'."
        )
