"""The earth mover's mapping: which layers answer to which is found from what a pair costs.

Every student layer has 1 / M of a mass of 1 to give, every teacher layer takes 1 / N of it; the
plan that moves it at the least total cost weighs the pairs (Li et al.: BERT-EMD: Many-to-Many
Layer Mapping for BERT Compression with Earth Mover's Distance. 2020. arXiv:2010.06133).
"""

from __future__ import annotations

from math import lcm
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_distill.mapping.depths import check_depths, is_int
from hf_distill.mapping.pairs import Pairs

STEPS = 100
"""Optimizer steps between two transports where the name says no number."""


def emd(
    student_layers: int, teacher_layers: int, steps: int = STEPS, *, embeddings: bool = False
) -> Pairs:
    """All pairs of layers, weighed by the earth mover's transport; `emd-50` anew every 50 steps.

    The weights are `flow` of what the pairs cost. Depths may be any.

    Args:
        student_layers: Depth M of the student.
        teacher_layers: Depth N of the teacher.
        steps: Optimizer steps between two transports: the number behind the name. The pairs are
            the same for all.
        embeddings: Must be false: embedding outputs are not transported.

    Returns:
        The M * N pairs, the teacher's layers running fastest: the order of `flow(cost).ravel()`.

    Raises:
        ValueError: A depth or `steps` is not a positive int, or `embeddings` is true.
    """
    check_depths(student_layers, teacher_layers, at_most_teacher=False)
    if not is_int(steps) or steps < 1:
        raise ValueError(f"steps must be a positive int, got {steps!r}. {STEPS} is usual.")
    if embeddings:
        raise ValueError(
            "mapping must be free of ':embeddings' for emd, got 'emd:embeddings'. Only layers "
            "are transported: give the embedding outputs a term of their own, with the pair (0, 0)."
        )
    return tuple((m, n) for m in range(1, student_layers + 1) for n in range(1, teacher_layers + 1))


def flow(cost: ArrayLike) -> NDArray[np.float64]:
    """The plan that transports uniform mass over the student's layers to the teacher's cheapest.

    Exact, and the same for the same costs. Only the costs' differences count: they may be
    negative, and of any scale.

    Args:
        cost: [M, N] finite numbers, what a unit of mass costs from student layer m to teacher
            layer n, rows and columns in the layers' order.

    Returns:
        [M, N] float64, at least 0, rows summing to 1 / M and columns to 1 / N. Where M = N, a
        permutation over N. Where several plans cost the least, one of them.

    Raises:
        ValueError: `cost` is not a matrix of finite numbers.
    """
    # A quarter of a second that only transported mappings need.
    from scipy.optimize import linear_sum_assignment

    costs = _checked(cost)
    student_layers, teacher_layers = costs.shape
    # Cut into units that divide both 1 / M and 1 / N, the mass is moved unit by unit: an
    # assignment, solved without the tolerances of a linear program.
    units = lcm(student_layers, teacher_layers)
    each, takes = units // student_layers, units // teacher_layers
    givers, takers = linear_sum_assignment(costs.repeat(each, axis=0).repeat(takes, axis=1))
    moved = np.zeros(costs.shape)
    np.add.at(moved, (givers // each, takers // takes), 1)
    return moved / units


def mean_layers(plan: ArrayLike) -> NDArray[np.float64]:
    """For each student layer the mean teacher layer, counted from 1, by the plan's weights.

    Args:
        plan: [M, N], what `flow` gives.

    Returns:
        [M] float64, from 1 to N.

    Raises:
        ValueError: `plan` is not a matrix of finite numbers, is negative somewhere, or has a row
            without mass.
    """
    weights = _checked(plan, "plan")
    mass = weights.sum(1)
    if weights.min() < 0 or mass.min() <= 0:
        raise ValueError(
            f"plan must be at least 0, with mass in every row, got rows summing to {mass.tolist()}."
            " Give what flow returned."
        )
    layers = np.arange(1, weights.shape[1] + 1)
    mean: NDArray[np.float64] = weights @ layers / mass
    return mean


def _checked(values: Any, name: str = "cost") -> NDArray[np.float64]:
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be a matrix of numbers, got {values!r}. "
            "Give a row for each student layer, a column for each teacher layer."
        ) from error
    if found.ndim != 2 or not found.size:
        raise ValueError(
            f"{name} must be a matrix, got shape {found.shape!r}. "
            "Give a row for each student layer, a column for each teacher layer."
        )
    if not np.isfinite(found).all():
        raise ValueError(
            f"{name} must be finite, got {found[~np.isfinite(found)][0]!r}. "
            "Look for overflow in what the layers show."
        )
    return found
