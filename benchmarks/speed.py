"""The speed of a training step, ours and others', on the same work in one interleaved run.

    python -m pip install --no-deps --target PEERS -r benchmarks/speed-requirements.txt
    python benchmarks/speed.py --data FOLDER --peers PEERS

FOLDER holds sst2 and squad, each a folder with train.parquet as on the Hub. PEERS is any empty
folder: nothing that is installed changes, and only the processes of the other libraries look into
it. A tool that cannot be used is named in its row, and nothing else fails.

The work: a teacher of BERT-base's shape and the 13M student, random weights; KL on logits and the
distance of seven hidden states through learnt projections; fused AdamW, clipping, a linear
schedule. Every tool has a process of its own and does one step in each round, on the same batch as
the others and beginning with another tool each round. First losses are compared with what they
should be, and the operations of a step are counted.

All of it takes about 25 minutes of two idle cores, and 16 GB; --work and --json do it in parts, and
--read puts them together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from speed_study.child import command, work
from speed_study.hardware import rates
from speed_study.plots import plot
from speed_study.protocol import in_turns
from speed_study.report import merged, report
from speed_study.tools import ALL, ASKED_FOR, CACHED, ON_CUDA, PARTS, TOOLS, WRITING
from speed_study.work import WORKS, Task, examples_of
from studies.pages import write_between

from hf_distill.evaluation.speed import machine

BEGIN, END = "<!-- speed -->", "<!-- /speed -->"


def main() -> None:
    """Measure, or read what was measured; report, and plot and write where asked."""
    options = _options()
    if options.child is not None:
        task = Task.of(options.child)
        work(ALL[task.tool], task)
        return
    if options.read is None:
        measured = _measured(options)
    else:
        measured = merged([json.loads(each.read_text(encoding="utf-8")) for each in options.read])
    if options.json is not None:
        options.json.write_text(json.dumps(measured), encoding="utf-8")
    text = report(measured)
    print(text, end="")
    pictures = [] if options.plot is None else plot(measured, options.plot)
    if options.write is not None:
        write_between(options.write, BEGIN, END, text, pictures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the data's folders")
    parser.add_argument("--peers", type=Path, help="folder of the other libraries")
    parser.add_argument("--work", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--tools", nargs="+", choices=list(ALL), help="only these")
    parser.add_argument("--rounds", type=int, default=15, help="measured steps of each (15)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (2); at least 1")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--compile", action="store_true", help="one more row: compiled")
    parser.add_argument("--attention", help="one more row: an attention of transformers")
    parser.add_argument("--json", type=Path, help="write the raw timings into this file")
    parser.add_argument("--read", type=Path, nargs="+", help="files of --json; measure nothing")
    parser.add_argument("--plot", type=Path, help="write the bars into this folder")
    parser.add_argument("--write", type=Path, help=f"put the tables into a page, after {BEGIN}")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not (options.data or options.read or options.child):
        parser.error("--data is needed, unless timings are read (--read)")
    if options.warmup < 1 or options.rounds < 1:
        # Operations are counted in the first step, which takes longer for it.
        parser.error("--warmup and --rounds must be at least 1")
    return options


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    cuda = torch.device(options.device).type == "cuda"
    tools = [*TOOLS, *(ON_CUDA if cuda else ()), *_asked_for(options), *PARTS]
    chosen = [name for name in tools if options.tools is None or name in options.tools]
    works = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.work:
            _say(f"{name}:")
            works[name] = _of_work(options, name, chosen, Path(folder))
    told = {each.get("package") for found in works.values() for each in found["tools"].values()}
    return {
        "machine": machine(options.device),
        "versions": sorted(told - {None}),
        # Last: it is then as warm as it was.
        "rates": rates(options.device) if cuda else None,
        "works": works,
    }


def _asked_for(options: argparse.Namespace) -> list[str]:
    compiled, attention = ASKED_FOR
    return [compiled] * options.compile + [attention] * (options.attention is not None)


def _of_work(
    options: argparse.Namespace, name: str, chosen: Sequence[str], folder: Path
) -> dict[str, Any]:
    batch, steps = WORKS[name].batch, options.warmup + options.rounds + 1
    examples = examples_of(options.data, WORKS[name], batch * steps)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(examples), encoding="utf-8")
    told = Task("", str(file), batch, steps, options.threads, options.device)
    peers = None if options.peers is None else str(options.peers)
    told = replace(told, peers=peers, cache=str(folder / name))
    tasks = {tool: _task(options, told, tool) for tool in (*chosen, WRITING)}
    lengths = [len(example["input_ids"]) for example in examples]
    writing = {WRITING: tasks[WRITING]} if CACHED in chosen else {}
    written = in_turns(_commands(writing), rounds=0, warmup=0)
    return {
        "writing": written.get(WRITING),
        "tokens": [
            sum(lengths[at * batch : (at + 1) * batch]) for at in range(options.warmup, steps - 1)
        ],
        "tools": _turns(options, {tool: tasks[tool] for tool in chosen if tool not in PARTS}),
        "parts": _turns(options, {tool: tasks[tool] for tool in chosen if tool in PARTS}),
    }


def _task(options: argparse.Namespace, told: Task, tool: str) -> Task:
    other = options.attention if tool == "ours-attention" else told.attention
    return replace(told, tool=tool, counts=ALL[tool].counts, attention=other)


def _turns(options: argparse.Namespace, tasks: Mapping[str, Task]) -> dict[str, Any]:
    return in_turns(_commands(tasks), options.rounds, options.warmup, _say) if tasks else {}


def _commands(tasks: Mapping[str, Task]) -> dict[str, Sequence[str]]:
    return {tool: command(__file__, task) for tool, task in tasks.items()}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
