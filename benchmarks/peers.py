"""Losses of other libraries beside ours, on the same random tensors: values and gradients.

    python -m pip install --no-deps --target PEERS -r benchmarks/peers-requirements.txt
    PYTHONPATH=PEERS python benchmarks/peers.py [--peers NAME ...]

PEERS is any empty folder: nothing that is installed changes, and without dependencies torch stays
what it is. What cannot be imported is skipped and named. Nothing is downloaded, no model is loaded:
each loss is called on tensors, drawn from one seed in float64, with and without padding.

Each row says why theirs is not ours, and the reason is checked: a factor, or our own parts with the
one change that it names, must give their value and their gradient. Where it does not, the row says
UNEXPLAINED and the exit status is 1. Stand-ins: tensorboardX for TextBrewer's import where there is
none; for losses that call a model, one that gives the tensors.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import torch
from peer_losses import (
    of_encoders,
    of_language_models,
    of_sentence_transformers,
    of_textbrewer,
    of_torchdistill,
)
from peer_losses.comparison import Comparison, Outcome, Peer, apart, measured, name_of

from hf_distill import objectives

PEERS: tuple[Peer, ...] = (
    *of_textbrewer.PEERS,
    *of_torchdistill.PEERS,
    *of_sentence_transformers.PEERS,
    *of_encoders.PEERS,
    *of_language_models.PEERS,
)
UNEXPLAINED = "UNEXPLAINED"
HEADER = (
    "| theirs | ours | padding | value of ours | of theirs | theirs / ours | gradient gap "
    "| verdict | why | left over |\n|---|---|---|---:|---:|---:|---:|---|---|---:|"
)


def main() -> int:
    """Compare what is installed, and report."""
    options = _options()
    # Before any of them is imported.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    verdicts: Counter[str] = Counter()
    compared: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for peer in PEERS:
            if not options.peers or peer.package in options.peers:
                _tell(peer, verdicts, compared)
    print(_summary(verdicts, compared))
    return 1 if verdicts[UNEXPLAINED] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [peer.package for peer in PEERS]
    parser.add_argument("--peers", nargs="+", choices=names, help="only these")
    return parser.parse_args()


def _tell(peer: Peer, verdicts: Counter[str], compared: set[str]) -> None:
    """Print what one library has; count the verdicts and name our objectives."""
    try:
        module = peer.load()
        rows = peer.comparisons(module)
    except Exception as error:  # noqa: BLE001 (an import of another library fails in any way)
        print(f"{peer.package}: skipped, cannot be used here ({type(error).__name__}: {error}).\n")
        return
    print(f"## {peer.package} {_version(peer.package)}\n\n{HEADER}")
    for row in rows:
        verdict, line = described(row)
        verdicts[verdict] += 1
        compared.update(type(objective).__name__ for _, objective in row.terms)
        print(line, flush=True)
    left = left_out(peer, peer.registered(module), rows)
    print(f"\nNot compared: {left}.\n" if left else "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def described(row: Comparison) -> tuple[str, str]:
    """The verdict, and the line of the table."""
    try:
        outcome = measured(row)
    except Exception as error:  # noqa: BLE001 (another library's loss fails in any way)
        reason = f"raises {type(error).__name__}: {error}".replace("\n", " ")
        return UNEXPLAINED, _line(row, ["", "", "", "", UNEXPLAINED, reason, ""])
    verdict = outcome.verdict if outcome.explained else UNEXPLAINED
    return verdict, _line(row, _cells(outcome, verdict, row.reason))


def _cells(outcome: Outcome, verdict: str, reason: str) -> list[str]:
    return [
        f"{outcome.ours.value:.6g}",
        f"{outcome.theirs.value:.6g}",
        f"{outcome.ratio:.4g}",
        f"{outcome.gradient_gap:.0e}",
        verdict,
        reason,
        f"{apart(outcome.theirs, outcome.rebuilt):.0e}",
    ]


def _line(row: Comparison, cells: Sequence[str]) -> str:
    shown = [f"`{row.theirs}`", f"`{name_of(row)}`", row.padding, *cells]
    return "| " + " | ".join(shown).replace("||", "\\|\\|") + " |"


def left_out(peer: Peer, registered: Collection[str], rows: Sequence[Comparison]) -> str:
    """The library's losses that no row names, and what they are."""
    named = {row.theirs.partition("(")[0].partition(",")[0] for row in rows}
    return "; ".join(
        f"{name} ({peer.elsewhere.get(name, 'not looked at yet')})"
        for name in sorted(set(registered) - named)
    )


def _summary(verdicts: Counter[str], compared: set[str]) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
    alone = ", ".join(name for name in objectives.__all__ if name not in compared)
    return "\n".join(_ends(counts or "none", alone))


def _ends(counts: str, alone: str) -> Iterator[str]:
    yield f"{verdict_note()}\n"
    yield f"Rows: {counts}.\n"
    yield f"Ours that no row has: {alone or 'none'}.\n"
    yield (
        f"Python {sys.version.split()[0]}, torch {torch.__version__}, "
        f"transformers {_version('transformers')}; float64, one thread."
    )


def verdict_note() -> str:
    """What the columns mean."""
    return (
        "Gradient gap: the largest difference of one entry of the gradients of all the student's "
        "tensors. Left over: the larger relative difference, of values and of gradients, between "
        "theirs and what the reason gives."
    )


if __name__ == "__main__":
    sys.exit(main())
