"""A child process: one tool, told what to do by its parent."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version

import torch
from studies import memory

from speed_study.protocol import Gate, Stopped
from speed_study.tools import Tool
from speed_study.work import Task


def work(tool: Tool, task: Task) -> None:
    """Do steps until the parent wants no more; then tell what is to be told at the end."""
    torch.set_num_threads(task.threads)
    gate = gate_to_parent(task.device, counts=task.counts)
    try:
        if task.peers is not None and tool.peer:
            # Last, so that of what both have this environment's is taken.
            sys.path.append(task.peers)
        pkgutil.resolve_name(f"speed_study.{tool.runs}")(task, gate)
        gate.reply(failed="had nothing more to do")
    except Stopped:
        package = {} if tool.package is None else {"package": _told(tool.package)}
        gate.reply(**gate.facts, **package, peak=memory.peak(task.device))
    except Exception as error:  # noqa: BLE001 (an import or a step of another library)
        gate.reply(failed=f"{type(error).__name__}: {error}".replace("\n", " "))


def gate_to_parent(device: str, *, counts: bool = False) -> Gate:
    """This process's gate; from now on what is printed goes to the standard error."""
    # What libraries print must not be taken for an answer.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return Gate(sys.stdin, replies, device, counts=counts)


def command(script: str, task: Task) -> Sequence[str]:
    """What starts it."""
    return [sys.executable, script, "--child", task.as_text()]


def _told(package: str) -> str:
    return f"{package} {version(package)}"
