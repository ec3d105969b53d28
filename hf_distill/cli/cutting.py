"""What `hf-distill extract` does: score, cut, trim, write."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hf_distill.cli.tables import aligned
from hf_distill.cli.texts import batches, read_texts

IMPORTANCE = "importance"


@dataclass(frozen=True)
class Asked:
    """What a user wants cut."""

    teacher: str
    student: str
    how: str = "magnitude"
    layers: str = "uniform"
    decoder_layers: str = "uniform"
    seed: int = 0
    rescale_qk: bool = False
    dropout: float | None = None
    texts: Sequence[Path] = ()
    loss: str = "auto"
    hidden: Literal["layers", "shared"] = "layers"
    scored_on: int = 2048
    scores: Path | None = None
    plot: Path | None = None
    trim_to: Sequence[Path] = ()
    dtype: str | None = None
    out: Path | None = None

    @property
    def held_scores(self) -> bool:
        """Whether importance was scored before."""
        return self.scores is not None and self.scores.is_file()

    def check(self) -> None:
        """Refuse what would be found out only after the teacher was scored."""
        if self.how == IMPORTANCE:
            if not self.texts and not self.held_scores:
                raise ValueError(
                    "--texts must name files where --how is importance, got none. The teacher is "
                    "scored by what it does on texts: name some, or scores that were saved by "
                    "--scores."
                )
            return
        for key, value in {"texts": self.texts, "scores": self.scores, "plot": self.plot}.items():
            if value:
                raise ValueError(
                    f"--{key} must be left out where --how is {self.how}, got {str(value)!r}. "
                    "Add --how importance."
                )


def carry_out(asked: Asked) -> Iterator[str]:
    """Cut, show what came of it, and write it if a folder is named.

    Raises:
        ValueError: Something that was asked for cannot be done.
    """
    from hf_distill.recipe.models import located
    from hf_distill.student import extract as cut_out
    from hf_distill.student.saving import check_free

    if asked.out is not None:
        check_free(asked.out)
    source = located(asked.teacher)
    size = _size(asked.student)
    tokenizer = _tokenizer(source, needed=bool(asked.texts or asked.trim_to))
    if tokenizer is None:
        yield "There is no tokenizer beside the teacher, and none is written."
    with warnings.catch_warnings():
        # It stands in the report.
        warnings.filterwarnings("ignore", message="nothing in the teacher")
        cut = cut_out(
            source,
            size,
            how=_chosen_by(asked, source, tokenizer, size),
            layers=_layers(asked.layers, "--layers"),
            decoder_layers=_layers(asked.decoder_layers, "--decoder-layers"),
            seed=asked.seed,
            rescale_qk=asked.rescale_qk,
            dropout=asked.dropout,
        )
    model, tokenizer = _finished(asked, cut.model, tokenizer)
    facts = _facts(asked, cut, model)
    yield aligned([_row("teacher", *_teacher(source)), _row("student", model.config, model)])
    yield "\n".join(["", *facts, cut.report.summary(), ""])
    yield _written(asked, cut, model, tokenizer, facts)


def _written(asked: Asked, cut: Any, model: Any, tokenizer: Any, facts: Sequence[str]) -> str:
    from hf_distill.student.saving import save_student

    if asked.out is None:
        return "Nothing was written: name a folder by --out."
    text = cut.report.markdown(f"{asked.out.name}: where its weights come from", facts)
    save_student(asked.out, model, cut.indices, text, tokenizer)
    return f"The student is in {asked.out}, with extraction.json and report.md."


def _size(student: str) -> Any:
    """A size by name; a config where a file or a folder is named."""
    from hf_distill.recipe.models import load_config

    if student.endswith(".json") or "/" in student:
        return load_config(student, "--student")
    return student


def _layers(asked: str, key: str) -> str | tuple[int, ...]:
    parts = asked.split(",")
    if not any(part.strip().isdecimal() for part in parts):
        return asked
    if not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"{key} must be a name or numbers, got {asked!r}. Write 1,4,8,12.")
    return tuple(int(part) for part in parts)


def _tokenizer(source: str, *, needed: bool) -> Any:
    """The teacher's; None where it has none and none is needed."""
    from hf_distill.recipe.models import load_config
    from hf_distill.release.tokenizer import load_tokenizer

    config = load_config(source, "--teacher")
    try:
        found = load_tokenizer(source, config)
        told = "" if _is_held(found, source) else "it holds no vocabulary"
    except (OSError, ValueError) as error:
        found, told = None, str(error).rstrip(".")
    if not told:
        return found
    if needed:
        raise ValueError(
            "--teacher must have a tokenizer beside it to read texts, got none that can be loaded "
            f"in {source!r}: {told}. Save it into the folder."
        )
    return None


def _is_held(tokenizer: Any, source: str) -> bool:
    """Whether there is a vocabulary; without one, transformers gives a tokenizer of no words."""
    from transformers.utils import cached_file

    missing = {"_raise_exceptions_for_missing_entries": False}
    names = ("tokenizer.json", *tokenizer.vocab_files_names.values())
    return any(cached_file(source, name, **missing) for name in names)


def _chosen_by(asked: Asked, source: str, tokenizer: Any, size: Any) -> Any:
    """A name, or scores of importance."""
    from hf_distill.student import Importance

    if asked.how != IMPORTANCE:
        return asked.how
    if asked.held_scores:
        found = Importance.load(str(asked.scores))
    elif asked.out is None:
        return "stride"  # Only shown: what is copied and what is new does not hang on scores.
    else:
        found = _scored(asked, source, tokenizer, size)
    if asked.plot is not None and asked.out is not None:
        from hf_distill.student.importance_plot import plot_importance

        asked.plot.parent.mkdir(parents=True, exist_ok=True)
        plot_importance(found, asked.plot)
    return found


def _scored(asked: Asked, source: str, tokenizer: Any, size: Any) -> Any:
    from hf_distill.student.checkpoint import Original
    from hf_distill.student.config import student_config
    from hf_distill.student.importance import importance

    original = Original.of(source)
    if isinstance(size, str):
        student_config(size, original.config)  # A size that does not fit is refused first.
    texts = read_texts(asked.texts, "--texts")
    drawn = random.Random(asked.seed).sample(texts, min(asked.scored_on, len(texts)))
    loss = _loss(asked.loss, original.kind.__name__)
    model = original.kind.from_pretrained(source)
    found = importance(
        model,
        batches(drawn, tokenizer, loss),
        loss="task" if loss == "causal-lm" else loss,
        hidden=asked.hidden,
        seed=asked.seed,
    )
    if asked.scores is not None:
        asked.scores.parent.mkdir(parents=True, exist_ok=True)
        found.save(asked.scores)
    return found


def _loss(asked: str, kind: str) -> str:
    """What plain texts, which have no labels, can be scored by."""
    heads = {"ForMaskedLM": "masked-lm", "ForCausalLM": "causal-lm", "LMHeadModel": "causal-lm"}
    own = next((loss for head, loss in heads.items() if kind.endswith(head)), "hidden")
    if asked not in ("auto", "hidden", own):
        raise ValueError(
            f"--loss must be one of a {kind} on texts without labels (hidden"
            f"{'' if own == 'hidden' else f', {own}'}), got {asked!r}. Or score it by "
            "hf_distill.student.importance, and give the saved scores by --scores."
        )
    return own if asked == "auto" else asked


def _finished(asked: Asked, model: Any, tokenizer: Any) -> tuple[Any, Any]:
    """Trimmed and cast, where it is asked for."""
    import torch

    from hf_distill.student.vocabulary import trim_vocabulary

    if asked.trim_to:
        texts = read_texts(asked.trim_to, "--trim-to")
        model, tokenizer, _ = trim_vocabulary(model, tokenizer, texts)
    if asked.dtype is not None:
        model = model.to(getattr(torch, asked.dtype))
    return model, tokenizer


def _teacher(source: str) -> tuple[Any, Any]:
    """Its config, and the model without its weights."""
    import torch

    from hf_distill.student.checkpoint import Original

    original = Original.of(source)
    with torch.device("meta"):
        return original.config, original.kind(original.config)


def _row(name: str, config: Any, model: Any) -> dict[str, str]:
    from hf_distill.student import Size

    return {
        "": name,
        "class": type(model).__name__,
        "size": str(Size.of(config)),
        "tokens": f"{config.vocab_size:,}",
        "parameters": f"{model.num_parameters():,}",
    }


def _facts(asked: Asked, cut: Any, model: Any) -> list[str]:
    from hf_distill.release.names import shown_name

    seed = f", seed {asked.seed}" if asked.how == "random" else ""
    found = [
        f"Cut out of {shown_name(asked.teacher)}, chosen by {asked.how}{seed}.",
        f"The teacher's layers {', '.join(map(str, cut.indices.sources))} were taken, in order.",
    ]
    if cut.indices.decoder:
        decoder = ", ".join(str(layer.source) for layer in cut.indices.decoder)
        found.append(f"Of its decoder, layers {decoder}.")
    if asked.trim_to:
        found.append(
            f"Then its vocabulary was trimmed from {cut.model.config.vocab_size:,} tokens to "
            f"{model.config.vocab_size:,}; below, tensors have their shapes before that."
        )
    return found
