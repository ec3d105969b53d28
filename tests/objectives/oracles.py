"""The same mathematics in plain Python loops, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

Numbers = Sequence[float]


def softmax(scores: Numbers) -> list[float]:
    top = max(scores)
    powers = [math.exp(score - top) for score in scores]
    return [power / sum(powers) for power in powers]


def kl(teacher: Numbers, student: Numbers) -> float:
    """KL(teacher || student) of two distributions."""
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True) if p)


def inner(left: Numbers, right: Numbers) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))


def unit(vector: Numbers) -> list[float]:
    length = math.sqrt(inner(vector, vector))
    return [x / length for x in vector]


def squared_distance(left: Numbers, right: Numbers) -> float:
    return sum((x - y) ** 2 for x, y in zip(left, right, strict=True))


def mean(values: Numbers) -> float:
    return sum(values) / len(values)
