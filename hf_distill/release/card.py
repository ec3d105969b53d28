"""The model card: a README that says what was made, how, and how good it is, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_distill.release.facts import (
    STUDENT,
    TEACHER,
    CardFacts,
    DataFacts,
    Measured,
    ModelFacts,
    Number,
    TermFacts,
    TrainingFacts,
)
from hf_distill.release.metadata import metadata, value_of
from hf_distill.release.usage import snippet

__all__ = [
    "CardFacts",
    "DataFacts",
    "Measured",
    "ModelFacts",
    "TermFacts",
    "TrainingFacts",
    "render",
]


_KINDS = {
    "encoder": "An encoder",
    "masked-lm": "A masked language model",
    "causal-lm": "A causal language model",
    "seq2seq-lm": "An encoder-decoder language model",
}


def render(facts: CardFacts) -> str:
    """The text of README.md. A section without facts is left out."""
    sections = {
        "": _summary(facts),
        "Scores and size": _measured(facts),
        "How it was made": _made(facts),
        "How to use it": f"```python\n{snippet(facts.head, facts.name)}```",
        "Versions": "\n".join(f"- {name} {each}" for name, each in facts.versions.items()),
        "The command that made it": f"```bash\n{facts.command}\n```" if facts.command else "",
        "Limits": "\n".join(f"- {each}" for each in _limits(facts)),
    }
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text]
    header = metadata(facts).to_yaml()
    return "\n\n".join([f"---\n{header}\n---", f"# {facts.name}", *body]) + "\n"


def _summary(facts: CardFacts) -> str:
    kind = _KINDS.get(facts.head, f"A model for {facts.head.replace('-', ' ')}")
    lines = [f"{kind}, distilled from {facts.teacher_name} with hf_distill.", ""]
    lines.append(f"- Student: {_size(facts.student)}")
    if facts.teacher:
        lines.append(f"- Teacher: {_size(facts.teacher)}")
        share = facts.student.parameters / facts.teacher.parameters
        lines.append(f"- The student has {share:.1%} of the teacher's parameters.")
    return "\n".join(lines)


def _size(model: ModelFacts) -> str:
    parts = [f"{model.parameters:,} parameters"]
    if model.megabytes is not None:
        parts.append(f"{_rounded(model.megabytes)} MB")
    for count, what in (
        (model.layers, "encoder layers" if model.decoder_layers else "layers"),
        (model.decoder_layers, "decoder layers"),
        (model.width, "hidden units"),
        (model.heads, "attention heads"),
    ):
        parts += [f"{count} {what if count != 1 else what[:-1]}"] if count else []
    return ", ".join(parts)


def _measured(facts: CardFacts) -> str:
    """The table of all models, and what its numbers were measured on."""
    sized = {STUDENT: facts.student, **({TEACHER: facts.teacher} if facts.teacher else {})}
    sized |= facts.baselines
    metrics = dict.fromkeys(name for each in facts.scores.values() for name in each)
    batches = dict.fromkeys(size for each in facts.speeds.values() for size in each)
    rows = []
    for label in dict.fromkeys([*facts.scores, *facts.speeds, *sized]):
        model, scores, speeds = sized.get(label), facts.scores.get(label), facts.speeds.get(label)
        rows.append(
            {
                "Model": _shown_label(label, facts),
                "Parameters": f"{model.parameters:,}" if model else "",
                "MB": _rounded(model.megabytes) if model and model.megabytes is not None else "",
                **{name: _score((scores or {}).get(name)) for name in metrics},
                **{
                    f"Sentences/s, batch {size}": _speed((speeds or {}).get(size))
                    for size in batches
                },
            }
        )
    notes = []
    if facts.scores and facts.evaluated_on:
        notes.append(f"Scores are on {_data(facts.evaluated_on)}.")
    if facts.speeds:
        notes.append(f"Speeds were measured on: {facts.machine}.")
    return "\n\n".join([_table(rows), *notes])


def _shown_label(label: str, facts: CardFacts) -> str:
    names = {STUDENT: f"**{facts.name}** (student)", TEACHER: f"{facts.teacher_name} (teacher)"}
    return names.get(label, label)


def _made(facts: CardFacts) -> str:
    run = f", run in {facts.teacher_dtype}" if facts.teacher_dtype else ""
    read = f", read from a cache ({facts.teacher_cache})" if facts.teacher_cache else ""
    lines = [f"- Teacher: {facts.teacher_name}{run}{read}"]
    if facts.teachers:
        lines.append(f"- Teachers: {', '.join(facts.teachers)}")
    if facts.assistants:
        chain = " → ".join(["the teacher", *facts.assistants, "this student"])
        lines.append(f"- Teacher assistants, each distilled from the one before it: {chain}")
    if facts.initialisation:
        lines.append(f"- Student at the start: {facts.initialisation}")
    lines += [f"- Data: {_data(each)}" for each in facts.data]
    if training := _training(facts.training):
        lines.append(f"- Training: {training}")
    blocks = ["\n".join(lines)]
    if facts.terms:
        blocks.append("The loss is the weighted sum of:")
        blocks.append(_table([_term(each) for each in facts.terms]))
        sources = dict.fromkeys(each.citation for each in facts.terms if each.citation)
        blocks.append("\n".join(f"- {source}" for source in sources))
    return "\n\n".join(block for block in blocks if block)


def _term(term: TermFacts) -> dict[str, str]:
    settings = ", ".join(f"{name}={value}" for name, value in term.settings.items())
    return {
        "Term": term.name,
        "Objective": term.objective,
        "Weight": f"{term.weight:g}" if isinstance(term.weight, float) else term.weight,
        "Settings": settings,
        "Layers (student → teacher)": _pairs(term),
    }


def _pairs(term: TermFacts) -> str:
    if term.renewed_every:
        return f"all, by the earth mover's plan, anew every {term.renewed_every} steps"
    return ", ".join(f"{here} → {there}" for here, there in term.pairs)


def _training(training: TrainingFacts) -> str:
    parts: Mapping[str, float | None] = {
        "{:g} epochs": training.epochs,
        "{:,} steps": training.steps,
        "batch size {:,}": training.batch_size,
        "learning rate {:g}": training.learning_rate,
        "seed {}": training.seed,
        "{:,.0f} s": training.seconds,
    }
    return ", ".join(text.format(value) for text, value in parts.items() if value is not None)


def _data(data: DataFacts) -> str:
    origin = data.dataset if data.dataset != data.name else None
    details = [each for each in (origin, data.config, data.split) if each]
    if data.examples is not None:
        details.append(f"{data.examples:,} examples")
    return f"{data.name} ({', '.join(details)})" if details else data.name


def _limits(facts: CardFacts) -> list[str]:
    """What was not measured."""
    scored = {label for label, scores in facts.scores.items() if scores}
    limits = []
    if STUDENT not in scored:
        limits.append("The quality of this model was not measured.")
    else:
        if TEACHER not in scored:
            limits.append("The teacher was not measured beside it.")
        if not scored - {STUDENT, TEACHER, *facts.assistants}:
            limits.append("No baseline was measured: what the teacher added is not known.")
        if all(_runs(score) == 1 for score in facts.scores[STUDENT].values()):
            limits.append(
                "Its scores are of one run: how far they move with the seed is not known."
            )
    if STUDENT not in facts.speeds:
        limits.append("Its speed was not measured.")
    limits.append("Robustness, fairness, and other data or languages were not measured.")
    return limits


def _runs(number: Number) -> int:
    return number.runs if isinstance(number, Measured) else 1


def _score(number: Number | None) -> str:
    return "" if number is None else _with_spread(number, "{:.4g}".format)


def _speed(number: Number | None) -> str:
    return "" if number is None else _with_spread(number, _rounded)


def _with_spread(number: Number, shown: Any) -> str:
    text = str(shown(value_of(number)))
    if not isinstance(number, Measured) or number.runs == 1:
        return text
    spread = [f"{number.runs} runs"]
    if number.low is not None and number.high is not None:
        spread.insert(0, f"{shown(number.low)} to {shown(number.high)}")
    return f"{text} ({', '.join(spread)})"


def _rounded(number: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table of the columns that say something; all rows have the same keys."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    lines = [columns, ["---"] * len(columns), *([row[name] for name in columns] for row in rows)]
    return "\n".join(_line(cells) for cells in lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
