"""The comparison as tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from studies.quartiles import Quartiles, quartiles

from speed_study.tools import ALL, DISTILLED, MIXED, PLAIN, RAW, TEXTBREWER, Tool
from speed_study.work import WORKS

Times = Mapping[str, Any]
"""What is known of a tool: `wall`, `cpu`, `losses`, `peak`; or `failed`."""


def ratios(above: Times | None, below: Times | None) -> Quartiles | None:
    """Of the steps that two tools took in the same rounds; None where one did not run."""
    if above is None or below is None or not above.get("wall") or not below.get("wall"):
        return None
    pairs = zip(above["wall"], below["wall"], strict=True)
    return quartiles([first / second for first, second in pairs])


def report(measured: Mapping[str, Any]) -> str:
    """All tables, and on what they were measured; of what `speed.py --json` writes."""
    return "\n\n".join([*_works(measured), _ground(measured)]) + "\n"


def merged(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several runs as one, each of other works, on one machine.

    Raises:
        ValueError: They ran on several machines.
    """
    machines = {each["machine"] for each in measured}
    if len(machines) != 1:
        raise ValueError(f"runs must be of one machine, got {sorted(machines)}.")
    return {
        **measured[0],
        "versions": sorted({version for each in measured for version in each["versions"]}),
        "works": {name: found for each in measured for name, found in each["works"].items()},
    }


def _works(measured: Mapping[str, Any]) -> Iterator[str]:
    for name, found in measured["works"].items():
        steps, tokens = len(found["tokens"]), statistics.mean(found["tokens"])
        yield f"**{WORKS[name].title}**: {tokens:,.0f} tokens a step, {steps} steps"
        yield _table(_tools(found))
        if measured["rates"] is not None:
            yield _table(_shares(found["tools"], measured["rates"]))
        if found["parts"]:
            yield _table(_parts(found["parts"]))
        if found["writing"]:
            yield _writing(found["writing"])
        yield _check(found["tools"])


def _table(lines: Iterable[Sequence[str]]) -> str:
    """Markdown; the first line is the head, and all columns but the first are numbers."""
    head, *rows = lines
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, marks, *rows))


def _tools(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    times = found["tools"]
    yield (
        "",
        "s/step",
        "CPU s",
        "time / loop by hand",
        "speed / TextBrewer",
        "time / fine-tuning",
        "tokens/s",
        "peak, MB",
    )
    for name, each in times.items():
        title = ALL[name].title
        if "failed" in each:
            yield (title, f"not measured: {each['failed']}", *[""] * 6)
            continue
        compared = (
            ratios(each, times.get(RAW)),
            ratios(times.get(TEXTBREWER), each),
            ratios(each, times.get(PLAIN)),
        )
        yield (
            title,
            quartiles(each["wall"]).shown(3),
            f"{statistics.median(each['cpu']):.2f}",
            *("" if ratio is None else ratio.shown(2) for ratio in compared),
            f"{sum(found['tokens']) / sum(each['wall']):,.0f}",
            f"{each['peak'] / 1e6:,.0f}",
        )


def _shares(times: Mapping[str, Times], rates: Mapping[str, float]) -> Iterator[Sequence[str]]:
    """Of what the device can do; a tool that could not be counted does as much as ours."""
    flops, bandwidth = rates["flops"] / 1e12, rates["bytes"] / 1e12
    yield (
        "",
        f"% of {flops:.0f} Tflop/s (bfloat16 product)",
        f"% of {bandwidth:.2f} TB/s (copy; bytes that operators read and write)",
    )
    for name, each in times.items():
        asked = {**times.get(MIXED, {}), **each}
        if "wall" in each and "flops" in asked:
            seconds = statistics.median(each["wall"])
            shares = (100 * asked[kind] / seconds / rates[kind] for kind in ("flops", "bytes"))
            yield ALL[name].title, *(f"{share:.1f}" for share in shares)


def _parts(times: Mapping[str, Times]) -> Iterator[Sequence[str]]:
    yield "part of the loop by hand, alone", "s/step", "CPU s"
    for name, each in times.items():
        if "failed" in each:
            yield ALL[name].title, f"not measured: {each['failed']}", ""
        else:
            wall, cpu = quartiles(each["wall"]).shown(3), statistics.median(each["cpu"])
            yield ALL[name].title, wall, f"{cpu:.2f}"


def _writing(found: Mapping[str, Any]) -> str:
    if "failed" in found:
        return f"The cache was not written: {found['failed']}"
    took, bare = found["took"], found["bare"]
    wall, cpu = (bare[kind] / took[kind] for kind in ("wall", "cpu"))
    return (
        f"Writing the cache, {found['bytes'] / 1e6:,.0f} MB: {took['wall']:.1f} s; the same "
        f"{found['passes']} forward passes of the teacher alone {bare['wall']:.1f} s: "
        f"it writes at {wall:.2f} of their speed ({cpu:.2f} by CPU seconds)."
    )


def _check(times: Mapping[str, Times]) -> str:
    """Whether the first losses are what they should be."""
    loop = times.get(RAW, {})
    if "parts" not in loop:
        return "First losses were not compared: the loop by hand did not run."
    parts = loop["parts"]
    lines = [
        f"- {checked(ALL[name], each, loop)}" for name, each in times.items() if "wall" in each
    ]
    shown = ", ".join(f"{name} {value:.6f}" for name, value in parts.items())
    return "\n".join([f"First losses, of the parts {shown}:", "", *lines])


def checked(tool: Tool, times: Times, loop: Times) -> str:
    """One tool's first loss beside what it should be; all losses and its work beside the loop's."""
    first, expected = times["losses"][0], sum(loop["parts"][part] for part in tool.loss)
    gap = _apart(first, expected)
    verdict = "as expected" if gap <= tool.rounding else "NOT AS EXPECTED"
    why = f" ({tool.why})" if tool.why else ""
    said = [f"{tool.title}: {first:.6f}, {' + '.join(tool.loss)}{why}: {verdict}, gap {gap:.0e}"]
    if tool.loss == DISTILLED:
        most = max(map(_apart, times["losses"], loop["losses"]))
        said.append(f"in all steps at most {most:.0e} from the loop's")
    if "flops" in times:
        flops, moved = (times[kind] / loop[kind] for kind in ("flops", "bytes"))
        said.append(f"{flops:.3f} of its floating-point operations, {moved:.3f} of its bytes")
    return "; ".join(said)


def _apart(value: float, expected: float) -> float:
    return abs(value - expected) / abs(expected)


def _ground(measured: Mapping[str, Any]) -> str:
    return (
        "Medians and, in parentheses, quartiles; ratios are of steps of the same round. "
        f"Machine: {measured['machine']}. Versions: {', '.join(measured['versions'])}."
    )
