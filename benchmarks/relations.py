"""What relations cost by captured projections, beside asking both models for attention maps.

    python benchmarks/relations.py

MiniLMv2 compares how the queries, keys and values of one layer resemble each other. They are the
outputs of three linear layers, so attention may stay fused. What asks a model for its attentions
(`output_attentions=True`) leaves fused attention in all layers, and holds the maps of all layers.
The same loss is computed in three ways, and beside them the last layer's maps are compared instead.
Each way has a process of its own; they take turns, one step each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from speed_study.child import gate_to_parent
from speed_study.protocol import Gate, Stopped, in_turns
from speed_study.report import ratios
from speed_study.trainers import run_at_gate
from studies import memory
from studies.quartiles import quartiles
from studies.trainers import arguments
from torch import Tensor, nn
from torch.nn.functional import kl_div
from transformers import BertConfig, BertModel, get_linear_schedule_with_warmup

from hf_distill import DistillationTrainer
from hf_distill.evaluation.speed import machine
from hf_distill.objectives import MiniLMv2

RATE, CLIP = 1e-4, 1.0
PARTS = ("query", "key", "value")
OURS = "ours"
TITLES = {
    OURS: "DistillationTrainer, MiniLMv2",
    "hand": "the same loss by hand, hooks, fused attention",
    "hand-maps": "the same loss by hand, hooks, `output_attentions=True`",
    "maps": "maps of the last layer instead, `output_attentions=True`",
}
SAME_LOSS = (OURS, "hand", "hand-maps")


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.only:
        _child(options)
        return
    for length in options.lengths:
        print(table(length, options), flush=True)
    print(
        f"\nTeacher L12-H768-A12, student L6-H256-A8 (13M), random weights, float32, "
        f"{options.heads} relation heads, the last layer of both; medians of {options.rounds} "
        "steps with quartiles, ratios of steps of the same round. Peaks are of processes that do "
        "nothing else. Maps of 12 and 8 heads are compared as means over heads. "
        f"Machine: {machine(options.device)}."
    )


def table(length: int, options: argparse.Namespace) -> str:
    """One length's."""
    found = in_turns(
        {name: _command(name, length, options) for name in TITLES}, options.rounds, options.warmup
    )
    check_same(found)
    size = f"{max(options.tokens // length, 1)} x {length} tokens"
    lines = [f"\n| {size} | s/step | CPU s | time / ours | peak, MB | peak / ours |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    ours = found[OURS]
    for name, each in found.items():
        compared = ratios(each, ours)
        cells = [
            TITLES[name],
            quartiles(each["wall"]).shown(3),
            f"{statistics.median(each['cpu']):.2f}",
            "" if compared is None else compared.shown(2),
            f"{each['peak'] / 1e6:,.0f}",
            f"{each['peak'] / ours['peak']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def check_same(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ValueError where a way broke, or those of the same loss do not have the same one."""
    broken = {name: each["failed"] for name, each in found.items() if "failed" in each}
    if broken:
        raise ValueError(f"every way must run, got {broken}.")
    first = [found[name]["losses"][0] for name in SAME_LOSS]
    if max(first) - min(first) > 1e-4 * max(first):
        raise ValueError(f"{', '.join(SAME_LOSS)} must begin with one loss, got {first}.")


def _command(name: str, length: int, options: argparse.Namespace) -> list[str]:
    steps = options.rounds + options.warmup + 1
    given = {"only": name, "lengths": length, "rounds": steps}
    kept = {key: getattr(options, key) for key in ("tokens", "heads", "threads", "device")}
    return [sys.executable, __file__, *(f"--{key}={each}" for key, each in (given | kept).items())]


def _child(options: argparse.Namespace) -> None:
    """Do steps in one way until there are no more."""
    gate = gate_to_parent(options.device)
    run = ours if options.only == OURS else by_hand
    try:
        run(options, gate)
    except Stopped:
        gate.reply(peak=memory.peak(options.device))


def models(options: argparse.Namespace) -> tuple[BertModel, BertModel]:
    """Student and teacher of one way: random weights, the same ones for all."""
    maps = options.only.endswith("maps")

    def built(layers: int, width: int, heads: int) -> BertModel:
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            # So that losses can be compared.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            max_position_embeddings=max(512, *options.lengths),
            attn_implementation="eager" if maps else "sdpa",
        )
        return BertModel(config, add_pooling_layer=False).to(options.device)

    torch.manual_seed(0)
    return built(6, 256, 8), built(12, 768, 12).eval().requires_grad_(False)


def examples(options: argparse.Namespace) -> list[dict[str, Tensor]]:
    """One batch of random tokens for each step, full length."""
    (length,) = options.lengths
    draw = torch.Generator().manual_seed(0)
    count = max(options.tokens // length, 1) * options.rounds
    rows = torch.randint(1000, 30000, (count, length), generator=draw)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]


def ours(options: argparse.Namespace, gate: Gate) -> None:
    """The trainer."""
    student, teacher = models(options)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments(
            folder,
            max(options.tokens // options.lengths[0], 1),
            options.rounds,
            learning_rate=RATE,
            max_grad_norm=CLIP,
            use_cpu=options.device == "cpu",
            dataloader_pin_memory=options.device != "cpu",
        )
        trainer = DistillationTrainer(
            student,
            given,
            teacher=teacher,
            objectives={"relations": (1.0, MiniLMv2(options.heads))},
            train_dataset=examples(options),
        )
        run_at_gate(trainer, gate)


def by_hand(options: argparse.Namespace, gate: Gate) -> None:
    """A loop, with or without maps."""
    student, teacher = models(options)
    asked = {"output_attentions": options.only.endswith("maps")}
    shown, taught = (hooked(model) for model in (student, teacher))
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, options.rounds)
    batch = max(options.tokens // options.lengths[0], 1)
    for inputs in torch.utils.data.DataLoader(examples(options), batch):
        gate.wait()
        inputs = {name: each.to(options.device) for name, each in inputs.items()}
        with torch.no_grad():
            theirs = teacher(**inputs, **asked).attentions
        mine = student(**inputs, **asked).attentions
        if options.only == "maps":
            loss = maps_kl(mine[-1], theirs[-1])
        else:
            loss = relations_kl(shown, taught, options.heads)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        gate.note(loss)


def hooked(model: BertModel) -> dict[str, Tensor]:
    """Where each forward pass leaves the last layer's queries, keys and values, [B, T, D] each."""
    found: dict[str, Tensor] = {}

    def keeping(part: str) -> Callable[[Any, Any, Tensor], None]:
        def keep(_: Any, given: Any, states: Tensor) -> None:
            found[part] = states

        return keep

    attention = model.encoder.layer[-1].attention.self
    for part in PARTS:
        getattr(attention, part).register_forward_hook(keeping(part))
    return found


def relations_kl(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], heads: int) -> Any:
    """Sum over queries, keys and values of KL(teacher || student), a mean over heads and tokens."""
    return sum(maps_kl(*_log_relations((student[p], teacher[p]), heads), logs=True) for p in PARTS)


def _log_relations(sides: Sequence[Tensor], heads: int) -> Iterator[Tensor]:
    for states in sides:
        cut = states.unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = cut @ cut.transpose(-1, -2) / cut.shape[-1] ** 0.5
        yield scores.log_softmax(-1)


def maps_kl(student: Tensor, teacher: Tensor, *, logs: bool = False) -> Tensor:
    """KL(teacher || student) of [B, H, T, T], a mean over the first three.

    Args:
        student: Probabilities, or their logarithms.
        teacher: The same.
        logs: Whether they are logarithms; else means over heads are compared.
    """
    if not logs:
        student, teacher = (each.mean(1, keepdim=True).log() for each in (student, teacher))
    total = kl_div(student, teacher, reduction="sum", log_target=True)
    return total / student[..., 0].numel()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="measured steps of each (9)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (2)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--tokens", type=int, default=1024, help="of a batch (1024)")
    parser.add_argument("--heads", type=int, default=16, help="relation heads (16)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", choices=TITLES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
