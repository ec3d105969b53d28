"""Tables of what grew, and the laws beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from studies.quartiles import quartiles

from growth_study.fits import exponent, line, parabola
from growth_study.measuring import Cost
from growth_study.settings import GROWTHS, Growth, Setting

Costs = Mapping[int, Sequence[Cost]]
"""By how many there were: one cost of each process."""


Column = Callable[[Sequence[Cost]], float]
"""What is told of the processes of one setting."""
STEP = "s/step"
COLUMNS: Mapping[str, Column] = {
    "construction, s": lambda costs: statistics.median(each.construction for each in costs),
    "first step, s": lambda costs: statistics.median(each.first for each in costs),
    STEP: lambda costs: statistics.median(_steps(costs)),
    "peak, MB": lambda costs: statistics.median(each.peak for each in costs) / 1e6,
}
OF_CACHES: Mapping[str, Column] = {
    "writing, s": lambda costs: costs[0].written,
    "on disk, MB": lambda costs: costs[0].kept / 1e6,
}


def columns_of(growth: Growth) -> Mapping[str, Column]:
    """What is told of one growth, by the head of the column."""
    cached = any(setting.cached for setting in growth.settings.values())
    return {**COLUMNS, **(OF_CACHES if cached else {})}


def report(found: Mapping[str, Costs]) -> str:
    """All tables, each with the laws that its columns follow.

    Args:
        found: By the name of the growth.
    """
    return "\n\n".join("\n".join(_table(GROWTHS[name], costs)) for name, costs in found.items())


def _table(growth: Growth, costs: Costs) -> Iterator[str]:
    told = columns_of(growth)
    yield f"**{growth.what}, {growth.how}**\n"
    yield f"| {growth.unit} | {' | '.join(told)} | quartiles of steps |"
    yield "| ---: |" + " ---: |" * (len(told) + 1)
    for at, each in costs.items():
        low, _, high = quartiles(_steps(each))
        cells = [f"{of(each):.4g}" for of in told.values()]
        yield f"| {at:,} | {' | '.join(cells)} | {low:.4g} to {high:.4g} |"
    x = list(costs)
    columns = {name: [of(each) for each in costs.values()] for name, of in told.items()}
    # Plus 0: no -0.00.
    exponents = (f"{round(exponent(x, y), 2) + 0:.2f}" for y in columns.values())
    yield f"| exponent | {' | '.join(exponents)} | |"
    lines = (line(x, y) for y in columns.values())
    slopes = (f"{each.slope:.2g} (R² {each.explained:.3f})" for each in lines)
    yield f"| slope | {' | '.join(slopes)} | |"
    if growth.quadratic:
        yield f"\n{_quadratic(growth, x, columns[STEP])}"


def _steps(costs: Sequence[Cost]) -> list[float]:
    return [seconds for each in costs for seconds in each.steps]


def _quadratic(growth: Growth, x: Sequence[int], steps: Sequence[float]) -> str:
    longest = max(x)
    share = parabola(x, steps).quadratic_share(longest)
    return (
        f"At {longest} {growth.unit} {share:.0%} of a step grows with the square, by the parabola "
        f"through these points. Of the models' multiplications attention's are "
        f"{attention_share(growth.settings[longest]):.0%}."
    )


def attention_share(setting: Setting) -> float:
    """Of the multiplications of a step, those whose number is the square of the length.

    The teacher runs forward; the student forward and backward, three times as much. A token takes
    12 width^2 in a layer (four projections, and feed-forward layers four times as wide), and
    2 length * width in attention: scores and sums.
    """
    linear = square = 0
    for shape, times in ((setting.student, 3), (setting.teacher, 1)):
        linear += times * shape.layers * 12 * shape.width**2
        square += times * shape.layers * 2 * setting.length * shape.width
    return square / (linear + square)
