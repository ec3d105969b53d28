"""The student's config: the teacher's, with smaller sizes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from transformers import PretrainedConfig

from hf_distill.student.depth import source_layers
from hf_distill.student.limits import check_cut
from hf_distill.student.size import Size, fitting_size, write_size


def student_config(
    size: str | Mapping[str, int] | PretrainedConfig,
    teacher_config: PretrainedConfig,
    *,
    layers: str | Sequence[int] = "uniform",
    dropout: float | None = None,
) -> PretrainedConfig:
    """A copy of the teacher's config with new sizes; family, vocabulary and labels stay.

    A size that is not named is the teacher's. Where the width is another than the teacher's, heads
    and feed-forward neurons that are not named shrink with it, so that heads keep their size.

    Args:
        size: A name of `PRESETS`; a name such as L6, L3-H384 or L4-H312-A12-F1200 (L layers,
            H width, A heads, F feed-forward neurons, K channels of a head, G heads of keys and
            values, E embedding, D layers of the decoder); sizes under their names in a config; or
            another config of the family, of which the sizes are read and nothing else.
        teacher_config: The teacher's config. It is not changed.
        layers: Which of the teacher's layers are copied, as `extract` takes it. Counts only where
            the config lists its layers one by one.
        dropout: Of hidden states, attention and head; the teacher's where it is None. A small
            student rarely overfits: 0 often learns more in the same number of steps.

    Raises:
        ValueError: The family cannot be cut, the size cannot be read, or such a student cannot be
            cut out of the teacher: it is deeper or wider, has more or larger heads or more
            feed-forward neurons, its width is not divisible by its heads, or what the teacher
            computes would be another thing at such a size.
    """
    student, teacher = fitting_size(size, teacher_config), Size.of(teacher_config)
    check_cut(student, teacher_config, layers)
    config = copy.deepcopy(teacher_config)
    write_size(student, config)
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
    named = {name for name in vars(config) if "drop" in name and "layerdrop" not in name}
    # Classifiers of decoders drop a tenth where their config says nothing.
    for name in named | {"classifier_dropout"}:
        setattr(config, name, dropout)
