"""What grows with the number of examples, their length, and the layers that are compared.

    python benchmarks/growth.py

Each setting is trained for a few steps, in a process of its own whose peak of memory is read at its
end. All of them are run once, then again in the opposite order, and so on. The data are read from
disk, as those of the Hub are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import disable_progress_bars
from growth_study.measuring import Cost, Place, measure, write
from growth_study.plots import plot
from growth_study.report import report
from growth_study.settings import GROWTHS, Setting
from studies.trainers import random_tokens

from hf_distill.evaluation.speed import machine

Found = dict[str, dict[int, list[Cost]]]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        found = costs(options, Path(folder))
    print(report(found))
    print(
        "\nThe first step is counted from train() on; a peak is above what the process held "
        f"before. Medians of {options.rounds} processes each, and of all their steps. Exponents: "
        "0 does not grow, 1 grows in proportion. Slopes: for one more. "
        f"Machine: {machine(options.device)}."
    )
    if options.plot:
        plot(found, options.plot)


def costs(options: argparse.Namespace, folder: Path) -> Found:
    """What every setting took, round by round."""
    asked = [(name, at) for name in options.only for at in GROWTHS[name].settings]
    found: Found = {name: {at: [] for at in GROWTHS[name].settings} for name in options.only}
    # The server imports once, and each child is a copy of it: no more than imports is shared.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_distill.training.trainer", "datasets"])
    with context.Pool(1, maxtasksperchild=1) as children:
        written: dict[Setting, tuple[float, int]] = {}
        for turn in range(options.rounds):
            for name, at in asked if turn % 2 == 0 else reversed(asked):
                setting = GROWTHS[name].settings[at]
                place = _place(setting, folder, options)
                if setting.cached and setting not in written:
                    written[setting] = children.apply(write, (setting, place))
                given = (setting, place, written.get(setting, (0, 0)))
                found[name][at].append(children.apply(measure, given))
        children.close()
        children.join()
    return found


def _place(setting: Setting, folder: Path, options: argparse.Namespace) -> Place:
    """The folders of the examples, of which those of one number and length are written once."""
    examples = folder / f"{setting.examples}-{setting.length}"
    if not examples.exists():
        random_tokens(setting.examples, setting.length).save_to_disk(examples)
    cache = folder / f"{examples.name}-{len(setting.pairs)}-layers"
    return Place(str(examples), str(cache), options.device, options.threads)


def _options(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2, help="processes of each setting (2)")
    parser.add_argument("--only", nargs="+", choices=list(GROWTHS), default=list(GROWTHS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--plot", type=Path, help="a file that a picture is written to")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
