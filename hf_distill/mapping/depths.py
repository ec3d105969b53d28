"""The two depths that every mapping is between."""

from __future__ import annotations


def is_int(value: object) -> bool:
    """Whether a value is an int; a bool, which YAML writes as `yes`, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_depths(student_layers: int, teacher_layers: int, *, at_most_teacher: bool) -> None:
    """Raise ValueError unless both are positive ints, and where asked the student's the lesser."""
    for name, depth in (("student_layers", student_layers), ("teacher_layers", teacher_layers)):
        if not is_int(depth) or depth < 1:
            raise ValueError(
                f"{name} must be a positive int, got {depth!r}. Give the model's depth."
            )
    if at_most_teacher and student_layers > teacher_layers:
        raise ValueError(
            f"student_layers must be at most teacher_layers ({teacher_layers}), "
            f"got {student_layers!r}. Take a shallower student, or map 'last' or explicit pairs."
        )
