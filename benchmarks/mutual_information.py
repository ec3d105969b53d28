"""Bounds of mutual information where the truth is known: 20-dimensional correlated Gaussians.

    python benchmarks/mutual_information.py [--plot docs/mutual_information.png]

x and y have correlation rho in each dimension, so that they share -10 log(1 - rho^2) nats. The
critic is the best one, log p(y|x) / p(y), with baseline q = 1: what remains is the bound's own bias
and variance. Prints mean and standard deviation over batches, beside the truth and the caps.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path

import torch
from torch import Tensor

from hf_distill.objectives.bounds import mutual_information
from hf_distill.signals.signals import Scores

DIMENSIONS = 20
NATS = (2, 4, 6, 8, 10)
ALPHAS = (1.0, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001, 0.0)
BATCHES = {64: 800, 128: 400}
SATURATED = 60.0
"""So many nats that every bound is at its cap."""


def best_scores(nats: float, size: int, make: torch.Generator) -> Scores:
    """Scores of the best critic for one batch, in float64."""
    rho = math.sqrt(1 - math.exp(-2 * nats / DIMENSIONS))
    x, noise = torch.randn(2, size, DIMENSIONS, generator=make, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * noise
    squares = (y - rho * x[:, None]) ** 2 / (2 * (1 - rho**2))
    scores = (y**2 / 2 - squares).sum(-1) + nats
    real = ~torch.eye(size, dtype=torch.bool)
    return Scores(scores.diagonal(), scores, real, torch.zeros(size, dtype=torch.float64))


def estimates(nats: float, size: int, exact: bool, seed: int = 0) -> dict[float, Tensor]:
    """Alpha -> [batches], the bound's value."""
    make = torch.Generator().manual_seed(seed)
    batches = [best_scores(nats, size, make) for _ in range(BATCHES[size])]
    return {
        alpha: torch.stack([mutual_information(each, alpha, exact).mean() for each in batches])
        for alpha in ALPHAS
    }


def cap(alpha: float, size: int, exact: bool) -> float:
    """What the bound cannot exceed; the fast form counts the positive among the candidates."""
    if alpha == 0:
        return math.inf
    count = size - 1 if exact else size
    return math.log(count) if alpha == 1 else 1 + math.log(count / alpha)


def name(alpha: float) -> str:
    """As the literature calls it."""
    return {1.0: "InfoNCE", 0.0: "NWJ"}.get(alpha, f"alpha {alpha:g}")


def table(size: int, exact: bool) -> dict[float, dict[float, tuple[float, float]]]:
    """Print the table of one batch size; nats -> alpha -> mean and standard deviation."""
    form = "exact" if exact else "fast"
    print(f"\nBatch {size}, {BATCHES[size]} batches, {form} form\n")
    print("| nats | " + " | ".join(name(alpha) for alpha in ALPHAS) + " |")
    print("|---" * (len(ALPHAS) + 1) + "|")
    found: dict[float, dict[float, tuple[float, float]]] = {}
    for nats in NATS:
        values = estimates(nats, size, exact)
        found[nats] = {a: (each.mean().item(), each.std().item()) for a, each in values.items()}
        cells = [f"{mean:.2f} ({std:.2f})" for mean, std in found[nats].values()]
        print(f"| {nats} | " + " | ".join(cells) + " |", flush=True)
    caps = [f"{cap(alpha, size, exact):.3f}" for alpha in ALPHAS]
    print("| cap | " + " | ".join(caps) + " |")
    make = torch.Generator().manual_seed(0)
    apart = best_scores(SATURATED, size, make)
    reached = [mutual_information(apart, alpha, exact).mean().item() for alpha in ALPHAS]
    cells = [f"{value:.3f}" for value in reached]
    print(f"| reached at {SATURATED:g} | " + " | ".join(cells) + " |")
    return found


def plot(path: Path, found: dict[float, dict[float, tuple[float, float]]], size: int) -> None:
    """Estimate against truth, with one standard deviation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    axes.plot(NATS, NATS, color="black", linewidth=1, label="truth")
    for alpha in (1.0, 0.9, 0.5, 0.1, 0.01):
        means = torch.tensor([found[nats][alpha][0] for nats in NATS])
        spread = torch.tensor([found[nats][alpha][1] for nats in NATS])
        (line,) = axes.plot(NATS, means, marker="o", label=name(alpha))
        axes.fill_between(NATS, means - spread, means + spread, color=line.get_color(), alpha=0.15)
    axes.axhline(math.log(size), linestyle=":", color="grey", label=f"log {size}")
    axes.set_xlabel("mutual information (nats)")
    axes.set_ylabel(f"bound (nats), batches of {size}")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print the tables, and plot them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--exact", action="store_true", help="the exact leave-one-out form")
    parser.add_argument("--plot", type=Path, help="write a plot here (batches of 64)")
    given = parser.parse_args()
    print(f"{platform.machine()}, torch {torch.__version__}, float64, seed 0")
    tables = {size: table(size, given.exact) for size in BATCHES}
    if given.plot:
        plot(given.plot, tables[64], 64)


if __name__ == "__main__":
    main()
