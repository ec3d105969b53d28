"""What a card is made of: plain data that was measured or decided elsewhere.

Names and texts are made fit for the public as they come in: no absolute path, no secret.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

from hf_distill.release.names import cleaned, published_name, shown_name

Text = Annotated[str, BeforeValidator(cleaned)]
"""Words that are shown, without absolute paths and secrets."""
Name = Annotated[str, BeforeValidator(shown_name)]
"""A model or data set: its id on the Hub, or the last part of its path."""
PublishedName = Annotated[str | None, BeforeValidator(published_name)]
"""An id on the Hub; None where a local name was given."""

Head = Literal[
    "sequence-classification",
    "token-classification",
    "question-answering",
    "masked-lm",
    "causal-lm",
    "seq2seq-lm",
    "encoder",
]

STUDENT, TEACHER = "student", "teacher"
"""Labels of these two in `CardFacts.scores` and `CardFacts.speeds`; others are baselines."""


class Facts(BaseModel):
    """Plain data: fixed, and without fields that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(Facts):
    """A number with its spread over several runs."""

    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    runs: PositiveInt = 1


Number = FiniteFloat | Measured
"""What was measured once, or several times."""


class ModelFacts(Facts):
    """The size of a model; what is not known is left out."""

    parameters: PositiveInt
    megabytes: FiniteFloat | None = None
    layers: PositiveInt | None = None
    decoder_layers: PositiveInt | None = None
    """Of a decoder beside the encoder, whose layers are `layers`."""
    width: PositiveInt | None = None
    heads: PositiveInt | None = None


class TermFacts(Facts):
    """One term of the loss."""

    name: Text
    objective: Text
    weight: FiniteFloat | Text
    """A number, or words where a schedule moves it."""
    settings: Annotated[dict[str, Any], BeforeValidator(cleaned)] = {}
    pairs: list[tuple[NonNegativeInt, NonNegativeInt]] = []
    """(student layer, teacher layer), counted from 1."""
    renewed_every: NonNegativeInt = 0
    """Steps between two earth mover's plans that weigh the pairs; 0: they count alike."""
    citation: Text = ""


class DataFacts(Facts):
    """Data that was learnt from, or measured on."""

    name: Name
    dataset: PublishedName = None
    """Its id on the Hub. Without one it is named in the text only, not in the metadata."""
    config: Text | None = None
    split: Text | None = None
    examples: NonNegativeInt | None = None


class TrainingFacts(Facts):
    """How it was trained; what is not known is left out."""

    epochs: FiniteFloat | None = None
    steps: NonNegativeInt | None = None
    batch_size: PositiveInt | None = None
    """Sequences per optimiser step, over all processes."""
    learning_rate: FiniteFloat | None = None
    seed: int | None = None
    seconds: FiniteFloat | None = None


class CardFacts(Facts):
    """All that a card says. What is left out here is left out there, or named as not measured."""

    name: Name
    head: Head
    student: ModelFacts
    teacher_name: Name
    teacher: ModelFacts | None = None
    teachers: list[Name] = []
    """Where several taught together, all of them: `teacher_name` says how, `teacher` their sum."""
    teacher_dtype: Text | None = None
    """What the teacher was run in, where that was asked for."""
    teacher_cache: Text | None = None
    """How its signals were stored, as in "bfloat16", where they were read from a cache."""
    assistants: list[Text] = []
    """The teacher assistants between teacher and student, in the order of their training."""
    baselines: dict[Text, ModelFacts] = {}
    """Sizes of other models in `scores` and `speeds`, by label."""
    initialisation: Text | None = None
    """Where the student's weights came from, as in "random weights"."""
    base_model: PublishedName = None
    """The published model whose weights the student began with; a local name is left out."""
    terms: list[TermFacts] = []
    data: list[DataFacts] = []
    training: TrainingFacts = TrainingFacts()
    evaluated_on: DataFacts | None = None
    scores: dict[Text, dict[Text, Number]] = {}
    """Label -> metric -> score; shown in this order. Labels: "student", "teacher", baselines."""
    speeds: dict[Text, dict[str, Number]] = {}
    """Label -> batch size -> sentences per second."""
    machine: Text | None = None
    """What the speeds were measured on."""
    versions: dict[str, Text] = {}
    command: Text | None = None
    license: Text | None = None
    language: Text | list[Text] | None = None
    tags: list[Text] = []

    @model_validator(mode="after")
    def _measurements_are_complete(self) -> Self:
        for name, labels in (("scores", list(self.scores)), ("speeds", list(self.speeds))):
            if labels and STUDENT not in labels:
                raise ValueError(
                    f"{name} must have the label {STUDENT!r}, got {labels!r}. "
                    f"Label the student {STUDENT!r} and the teacher {TEACHER!r}."
                )
        if self.speeds and not self.machine:
            raise ValueError(
                f"machine must be named where speeds are given, got {self.machine!r}. "
                "Say in one line what they were measured on."
            )
        return self
