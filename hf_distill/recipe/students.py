"""What a recipe may say of those who learn."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from typing_extensions import Self

from hf_distill.recipe.section import Section


class Embeddings(Section):
    """Word embeddings in two factors, or frozen, or both; the checkpoint has an ordinary table."""

    rank: PositiveInt | None = Field(
        None, description="Of the factors: a table [vocabulary, rank] and a projection."
    )
    center: bool = Field(True, description="Whether the mean is taken out of what is factorised.")
    freeze: bool = Field(False, description="Whether the table stays as it is.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.rank is None and not self.freeze:
            raise ValueError("must name a rank, or freeze: true, got neither. Leave it out.")
        if self.rank is None and "center" in self.model_fields_set:
            raise ValueError(
                f"must be free of center without a rank, got {self.center!r}. A table that is "
                "only frozen stays as it is."
            )
        return self


_CUT = {"how", "scored_on", "layers", "rescale_qk", "cut_from"}
"""Keys of a student that say how it is cut out of a model."""


class Student(Section):
    """Who learns, from what start."""

    size: str | dict[str, int] | None = Field(
        None, description="Such as 13M, L3-H384, or sizes by their names in a config."
    )
    model: str | None = Field(None, description="A path or Hub id, instead of a size.")
    init: Literal["extract", "random"] = Field(
        "extract", description="Weights cut out of the teacher, or random ones."
    )
    how: Literal["magnitude", "stride", "random", "importance"] = Field(
        "magnitude", description="How the teacher's weights are chosen."
    )
    scored_on: PositiveInt | None = Field(
        None, description="For importance: how many of the training examples it is taken from."
    )
    layers: str | list[int] = Field(
        "uniform", description="Which of the teacher's layers are copied."
    )
    rescale_qk: bool = Field(
        False, description="Whether queries of heads that are cut inside keep their scale."
    )
    cut_from: str | None = Field(
        None,
        description="A path or Hub id: whose weights are cut, where it is not who teaches; "
        "`teacher` in a chain, for the first one.",
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="The student's dropout; the teacher's without."
    )

    embeddings: Embeddings | None = Field(
        None, description="How the word embeddings are trained; like all else without."
    )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.size is None) == (self.model is None):
            got = {"size": self.size, "model": self.model}
            raise ValueError(
                f"must be given a size or a model, got {got!r}. Name exactly one of the two."
            )
        cut = _CUT & self.model_fields_set
        sized = (cut | {"init", "dropout"}) & self.model_fields_set
        if self.model is not None and sized:
            raise ValueError(
                f"must be free of {', '.join(sorted(sized))} beside a model, got {self.model!r}. "
                "They say how a student of some size begins."
            )
        if self.init == "random" and cut:
            raise ValueError(
                f"must be free of {', '.join(sorted(cut))} beside init random, got it. Random "
                "weights are cut from nobody."
            )
        if self.scored_on is not None and self.how != "importance":
            raise ValueError(
                f"must be free of scored_on beside how {self.how}, got {self.scored_on!r}. "
                "Importance alone looks at examples."
            )
        return self


LayerMapping = str | list[tuple[NonNegativeInt, NonNegativeInt]]


class Assistant(Student):
    """A teacher assistant: a student that goes on to teach."""

    training: dict[str, Any] | None = Field(
        None, description="Fields of TrainingArguments; the student's without."
    )
    objectives: dict[str, dict[str, Any]] | None = Field(
        None, description="As the recipe's, which are taken without."
    )
    mapping: LayerMapping | None = Field(
        None, description="As the recipe's, which is taken without."
    )
