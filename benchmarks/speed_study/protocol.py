"""Tools in processes of their own that do a step when they are told to, one after the other.

A child's training loop is stopped where one step ends and the next begins. There it says what the
step took, and waits. So a tool may own its loop, load its data ahead or not: from the word to the
next stop it has done one step, and while it waits it takes no time from the others.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from torch import Tensor

from speed_study.hardware import Counted, wait_for

STEP, STOP = "step", "stop"

B = TypeVar("B")


class Stopped(Exception):  # noqa: N818 (it is an end, not a fault)
    """The parent wants no more steps."""


class Gate:
    """The child's end: stops its loop between two steps."""

    def __init__(
        self, orders: TextIO, replies: TextIO, device: str = "cpu", *, counts: bool = False
    ) -> None:
        """Take both ends of the line.

        Args:
            orders: Where the parent's words are read.
            replies: Where answers are written, a line of JSON each.
            device: That is waited for before a clock is read.
            counts: Whether operations and bytes of the first step are counted.
        """
        self._orders, self._replies, self._device = orders, replies, device
        self._began: tuple[float, float] | None = None
        self._loss: float | None = None
        self._counted = Counted() if counts else None
        self.facts: dict[str, Any] = {}
        """What else the parent is told at the end."""

    def wait(self) -> None:
        """Say what the step took that ends here, if one does, and wait for the word.

        Raises:
            Stopped: There is no next step.
        """
        now = self._clock()
        took = {} if self._began is None else _took(self._began, now)
        self._count(begins=self._began is None)
        self.reply(**took, loss=self._loss)
        if self._orders.readline().strip() != STEP:
            raise Stopped
        self._began = self._clock()

    def _count(self, *, begins: bool) -> None:
        """Count from the first stop to the second."""
        if self._counted is None:
            return
        if begins:
            self._counted.__enter__()
            return
        self.facts.update(self._counted.facts())
        self._counted.close()
        self._counted = None

    def note(self, loss: Tensor) -> None:
        """Remember the step's loss."""
        self._loss = loss.item()

    @contextmanager
    def timed(self) -> Iterator[dict[str, float]]:
        """Fills what it gives with the seconds that were spent inside, as a step's."""
        began, took = self._clock(), dict[str, float]()
        yield took
        took.update(_took(began, self._clock()))

    def reply(self, **told: Any) -> None:
        """Answer the parent."""
        print(json.dumps(told), file=self._replies, flush=True)

    def _clock(self) -> tuple[float, float]:
        wait_for(self._device)
        return time.perf_counter(), time.process_time()


class Gated(Iterable[B]):
    """A loader of batches that stops at the gate before each; made for loops that are not ours."""

    def __init__(self, gate: Gate, batches: Iterable[B]) -> None:
        """Stand before the batches."""
        self._gate, self._batches = gate, batches

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._batches) if isinstance(self._batches, Sized) else 0

    def __iter__(self) -> Iterator[B]:
        """Each batch when it is wanted; what it takes to get it is part of the step."""
        batches = iter(self._batches)
        while True:
            self._gate.wait()
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch


def _took(began: Sequence[float], ended: Sequence[float]) -> dict[str, float]:
    wall, cpu = (last - first for first, last in zip(began, ended, strict=True))
    return {"wall": wall, "cpu": cpu}


class Failed(Exception):  # noqa: N818 (of the tool, and no fault of ours)
    """A tool cannot be used, or broke; says why."""


class Child:
    """The parent's end of one tool."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start the process; it loads while others do."""
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def answer(self) -> dict[str, Any]:
        """The next thing that it says.

        Raises:
            Failed: It says that it cannot go on, or says nothing more.
        """
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise Failed(f"ended without an answer, exit status {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        if "failed" in told:
            raise Failed(told["failed"])
        return told

    def ask(self, order: str) -> dict[str, Any]:
        """Give a word and wait for the answer."""
        if self._process.stdin is not None:
            try:
                print(order, file=self._process.stdin, flush=True)
            except BrokenPipeError as error:
                raise Failed("is gone") from error
        return self.answer()

    def end(self) -> None:
        """Let the process go, however it is."""
        self._process.kill()
        self._process.communicate()


def in_turns(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    warmup: int,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Let all tools do a step in each round, beginning with another tool each time.

    Args:
        commands: Tool -> what starts its process.
        rounds: Measured steps of each.
        warmup: Steps of each before them.
        say: Is told of each round.

    Returns:
        Tool -> `wall` and `cpu`, seconds of each measured step, `losses` of all steps, and what
        the child says at its end; or `failed`, why it was of no use.
    """
    children = {name: Child(command) for name, command in commands.items()}
    found: dict[str, dict[str, Any]] = {name: _empty() for name in commands}

    def told(name: str, give: Callable[[Child], dict[str, Any]]) -> dict[str, Any]:
        try:
            return give(children[name])
        except Failed as reason:
            children.pop(name).end()
            found[name] = {"failed": str(reason)}
            return {}

    try:
        for name in list(children):
            told(name, Child.answer)
        for turn in range(warmup + rounds):
            names = list(children)
            first = turn % max(len(names), 1)
            for name in names[first:] + names[:first]:
                step = told(name, lambda child: child.ask(STEP))
                _add(found[name], step, measured=turn >= warmup)
            say(f"round {turn + 1} of {warmup + rounds}")
        for name in list(children):
            found[name].update(told(name, lambda child: child.ask(STOP)))
    finally:
        for child in children.values():
            child.end()
    return found


def _empty() -> dict[str, Any]:
    return {"wall": [], "cpu": [], "losses": []}


def _add(found: dict[str, Any], step: Mapping[str, Any], *, measured: bool) -> None:
    """Keep what a step took; nothing of one that failed."""
    if not step:
        return
    found["losses"].append(step["loss"])
    if measured:
        found["wall"].append(step["wall"])
        found["cpu"].append(step["cpu"])
