"""What the quickstart shows and writes: figures, curves, the card and the student."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import nn

from hf_distill.evaluation.speed import machine, sentences_per_second
from hf_distill.release.card import DataFacts, ModelFacts, render
from hf_distill.release.tokenizer import save_tokenizer
from hf_distill.teacher.embedded import PACKAGE, PUBLISHED_AS
from hf_distill.training.card import model_facts
from hf_distill.training.trainer import DistillationTrainer

Results = dict[str, Any]
Curve = Sequence[tuple[int, float]]

RESULTS = "results.json"
"""Its presence says that a run is finished."""
LABELS = {
    "teacher": "teacher",
    "student": "student",
    "student_before": "student before training",
    "control": "control (random start)",
}
BATCH_SIZES = (1, 32)
TIMED_SENTENCES = {1: 64, 32: 256}
ROUNDS = 5


@dataclass(frozen=True)
class Asked:
    """What the user asked for."""

    teacher: str
    text: str | None
    student: str
    steps: int
    seed: int
    sentences: int
    """The number of sentences trained on."""

    def command(self) -> str:
        """The command that does it again."""
        text = "" if self.text is None else f" --text {self.text}"
        return (
            f"hf-distill quickstart --teacher {self.teacher}{text} --student {self.student} "
            f"--steps {self.steps} --seed {self.seed}"
        )


def measure(
    models: Mapping[str, nn.Module],
    tokenizer: Any,
    held_out: Sequence[str],
    fidelity: Callable[[nn.Module], float],
) -> Results:
    """Size, speed and fidelity of each model, by its name."""
    speeds = {
        size: sentences_per_second(
            models, tokenizer, held_out[: TIMED_SENTENCES[size]], size, rounds=ROUNDS
        )
        for size in BATCH_SIZES
    }
    results: Results = {}
    for name, model in models.items():
        facts = model_facts(model)
        results[name] = {
            "parameters": facts.parameters,
            "megabytes": round(facts.megabytes or 0, 1),
            **{
                f"sentences_per_second_{size}": round(speeds[size][name].median, 1)
                for size in BATCH_SIZES
            },
            "fidelity": round(fidelity(model), 4),
        }
    device = next(models["teacher"].parameters()).device
    return {**results, "machine": machine(device)}


def print_table(results: Results) -> None:
    """The figures, a row for each model."""
    table = Table(title=f"{results['steps']} steps, seed {results['seed']}, {results['machine']}")
    for heading in ("", "parameters", "MB", "sentences/s at 1", "at 32", "fidelity", "training s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, label in LABELS.items():
        row = results[name]
        table.add_row(
            label,
            f"{row['parameters']:,}",
            f"{row['megabytes']:.1f}",
            *(f"{row[f'sentences_per_second_{size}']:.0f}" for size in BATCH_SIZES),
            f"{row['fidelity']:.3f}",
            f"{row['training_seconds']:.0f}" if "training_seconds" in row else "",
        )
    Console().print(table)
    print(
        "Fidelity: Spearman correlation of a model's and the teacher's cosine similarities over "
        "all pairs of held-out sentences."
    )


def write(
    folder: Path,
    results: Results,
    curves: Mapping[str, Curve],
    trainer: DistillationTrainer,
    tokenizer: Any,
    asked: Asked,
) -> None:
    """Write student/, README.md, curves.png and results.json into an existing folder."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.save_pretrained(folder / "student")
    save_tokenizer(tokenizer, folder / "student")
    card = render(trainer.describe(**_card_facts(results, asked)))
    (folder / "README.md").write_text(card, encoding="utf-8")
    plot_curves(folder / "curves.png", curves)
    (folder / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _card_facts(results: Results, asked: Asked) -> dict[str, Any]:
    embedded = asked.teacher == PACKAGE
    labels = {name: label for name, label in LABELS.items() if name not in ("teacher", "student")}
    shown = {"student": "student", "teacher": "teacher", **labels}
    text = asked.text or "docstrings and help topics of the Python standard library"
    return {
        "name": f"{asked.student}-quickstart",
        "teacher_name": PUBLISHED_AS if embedded else asked.teacher,
        "base_model": PUBLISHED_AS if embedded else asked.teacher,
        "baselines": {
            label: ModelFacts(
                parameters=results[name]["parameters"], megabytes=results[name]["megabytes"]
            )
            for name, label in labels.items()
        },
        "initialisation": "extracted from the teacher (hidden units, neurons and heads by "
        "magnitude, layers uniformly)",
        "data": [DataFacts(name=text, examples=asked.sentences)],
        "evaluated_on": DataFacts(name=f"held-out sentences of {text}"),
        "scores": {label: {"fidelity": results[name]["fidelity"]} for name, label in shown.items()},
        "speeds": {
            label: {
                str(size): results[name][f"sentences_per_second_{size}"] for size in BATCH_SIZES
            }
            for name, label in shown.items()
        },
        "machine": results["machine"],
        "command": asked.command(),
        "language": "en" if asked.text is None else None,
        "license": "apache-2.0" if embedded else None,
    }


def plot_curves(path: Path, curves: Mapping[str, Curve]) -> None:
    """Fidelity against steps, the student's beside the control's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, marker="o", label=LABELS[name])
    axes.axhline(1.0, color="grey", linestyle=":", label="teacher")
    axes.set(xlabel="steps", ylabel="fidelity (Spearman)", ylim=(min(0, *_values(curves)), 1.05))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def _values(curves: Mapping[str, Curve]) -> list[float]:
    return [value for curve in curves.values() for _, value in curve]
