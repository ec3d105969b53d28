"""Layer mappings that need nothing but the two depths."""

from __future__ import annotations

from hf_distill.mapping.depths import check_depths, is_int
from hf_distill.mapping.pairs import Pairs


def uniform(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with teacher layers spread evenly up to the last one.

    Student layer m of M answers to teacher layer m * N / M of N, halves rounded up: the mapping
    of TinyBERT (Jiao et al. 2020) where M divides N.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=True)
    # Integers throughout: round() sends halves to the even neighbour, floats may miss a half.
    return tuple(
        (m, (2 * m * teacher_layers + student_layers) // (2 * student_layers))
        for m in range(0 if embeddings else 1, student_layers + 1)
    )


def skip(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with every (N / M)-th teacher layer, rounded down.

    Student layer m of M answers to teacher layer m * N / M of N, cut to a whole number: `uniform`
    where M divides N, and else now and then the layer below (Distiller, He et al. 2021).

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=True)
    # Multiplied first: with N / M as a float, 11 of 15 layers would never reach the last one.
    return tuple(
        (m, m * teacher_layers // student_layers)
        for m in range(0 if embeddings else 1, student_layers + 1)
    )


def first(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with the teacher layer of the same number.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=True)
    return tuple((m, m) for m in range(0 if embeddings else 1, student_layers + 1))


def top(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with the teacher's last layers: both ends aligned at the top.

    Student layer m of M answers to teacher layer N - M + m of N (XtremeDistilTransformers,
    Mukherjee et al. 2021).

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the student's embedding output too, as (0, N - M): with what
            stands below the teacher's last M layers.

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=True)
    below = teacher_layers - student_layers
    return tuple((m, below + m) for m in range(0 if embeddings else 1, student_layers + 1))


def last(
    student_layers: int, teacher_layers: int, layers: int = 1, *, embeddings: bool = False
) -> Pairs:
    """The last layer of both and no other; `last-4` the last 4 of both, in their order.

    MiniLM (Wang et al. 2020) distils the last pair alone; the student may then be of any depth.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        layers: How many of each: the number behind the name.
        embeddings: Whether to pair the embedding outputs too, as (0, 0). As they are no last
            layers, the name alone leaves them out.

    Raises:
        ValueError: A depth is not a positive int, or a model has fewer layers than are asked for.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=False)
    most = min(student_layers, teacher_layers)
    if not is_int(layers) or not 1 <= layers <= most:
        raise ValueError(
            f"mapping must ask for 1 to {most} last layers, as many as both models have, "
            f"got 'last-{layers}'. Change the number."
        )
    pairs = ((student_layers - d, teacher_layers - d) for d in reversed(range(layers)))
    return ((0, 0), *pairs) if embeddings else tuple(pairs)


def blocks(student_layers: int, teacher_layers: int, *, embeddings: bool = False) -> Pairs:
    """Every student layer, with each teacher layer of its block of N / M layers.

    The block of student layer m ends at the layer that `uniform` gives it and begins above the
    block before: sizes differ by one at most, and the last block ends at the last layer. A pair
    counts like any other, so that a student layer with a larger block weighs a little more.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        embeddings: Whether to pair the embedding outputs too, as (0, 0).

    Raises:
        ValueError: A depth is not a positive int, or the student is the deeper one.
    """
    ends = dict(uniform(student_layers, teacher_layers, embeddings=True))
    pairs = ((m, n) for m in ends if m for n in range(ends[m - 1] + 1, ends[m] + 1))
    return ((0, 0), *pairs) if embeddings else tuple(pairs)
