"""Which of the teacher's layers a student starts from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from hf_distill.mapping import Pairs, first, top, uniform

SOURCES: dict[str, Callable[..., Pairs]] = {"uniform": uniform, "first": first, "last": top}
"""Name -> the mapping whose teacher layers are copied. `last` copies the teacher's last layers."""


def source_layers(
    layers: str | Sequence[int], student_layers: int, teacher_layers: int
) -> tuple[int, ...]:
    """The teacher layers that are copied, ascending: the m-th becomes student layer m.

    Args:
        layers: A name of `SOURCES`, or the teacher's layers themselves, counted from 1.
        student_layers: Depth of the student.
        teacher_layers: Depth of the teacher.

    Raises:
        ValueError: The name is unknown, or the layers are not `student_layers` different ones of
            the teacher in ascending order.
    """
    if isinstance(layers, str):
        if layers not in SOURCES:
            near = difflib.get_close_matches(layers.lower(), SOURCES, n=1, cutoff=0.5)
            remedy = f"Did you mean {near[0]!r}?" if near else "Or give the layers, from 1."
            raise ValueError(
                f"layers must be one of {', '.join(SOURCES)}, got {layers!r}. {remedy}"
            )
        return tuple(source for _, source in SOURCES[layers](student_layers, teacher_layers))
    found = tuple(layers)
    if len(found) != student_layers:
        raise ValueError(
            f"layers must be as many as the student has ({student_layers}), got {found!r}. "
            "Name one teacher layer for each, or another size."
        )
    if any(type(layer) is not int or not 1 <= layer <= teacher_layers for layer in found):
        raise ValueError(
            f"layers must be ints from 1 to {teacher_layers}, got {found!r}. "
            "Count the teacher's layers from 1."
        )
    if list(found) != sorted(set(found)):
        raise ValueError(
            f"layers must be different and ascending, got {found!r}. Sort them; name each once."
        )
    return found
