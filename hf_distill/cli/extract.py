"""`hf-distill extract`: a student cut out of its teacher, as an ordinary checkpoint."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hf_distill.cli.cutting import Asked, carry_out
from hf_distill.cli.errors import Debug, user_errors


class How(str, Enum):
    """How units are chosen."""

    magnitude = "magnitude"
    stride = "stride"
    random = "random"
    importance = "importance"


class Loss(str, Enum):
    """What importance is measured by."""

    auto = "auto"
    hidden = "hidden"
    masked_lm = "masked-lm"
    causal_lm = "causal-lm"


class Hidden(str, Enum):
    """How the effects of a hidden unit on all layers are put together."""

    layers = "layers"
    shared = "shared"


class Dtype(str, Enum):
    """Of the student's weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def extract(
    teacher: Annotated[str, typer.Option(metavar="MODEL", help="A folder or a Hub id.")],
    student: Annotated[
        str,
        typer.Option(
            metavar="SIZE_OR_CONFIG",
            help="13M, 22M, 33M, a size such as L4-H312-A12-F1200, or a config.json: of the "
            "teacher's family, or of another that computes alike.",
        ),
    ],
    how: Annotated[How, typer.Option(help="How heads, neurons and units are chosen.")] = (
        How.magnitude
    ),
    layers: Annotated[
        str, typer.Option(help="uniform, first, last, or the teacher's layers: 1,4,8,12.")
    ] = "uniform",
    decoder_layers: Annotated[
        str, typer.Option(help="The same of a decoder beside the encoder.")
    ] = "uniform",
    seed: Annotated[int, typer.Option(help="Of --how random, and of what is new.")] = 0,
    rescale_qk: Annotated[
        bool, typer.Option("--rescale-qk", help="Make up for the scale of smaller heads.")
    ] = False,
    dropout: Annotated[
        float | None, typer.Option(help="The student's; the teacher's without.")
    ] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="Texts to score by: a line each, or a table's column text. Repeatable."),
    ] = None,
    loss: Annotated[Loss, typer.Option(help="What importance is measured by.")] = Loss.auto,
    hidden: Annotated[
        Hidden,
        typer.Option(
            help="How a hidden unit's effects are summed: each layer's for itself, or as of one "
            "mask shared by all, where layers may cancel."
        ),
    ] = Hidden.layers,
    scored_on: Annotated[
        int, typer.Option(min=1, help="How many of the texts, drawn by seed.")
    ] = 2048,
    scores: Annotated[
        Path | None, typer.Option(help="File of scores: read if it is there, else written.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the scores into this file.")] = None,
    trim_to: Annotated[
        list[Path] | None,
        typer.Option(help="Keep of the vocabulary what these texts use. Repeatable."),
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="The teacher's without.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder; without, it is only shown what is done.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Cut a smaller model out of a teacher: every weight a slice of the teacher's own.

    The teacher is read one tensor at a time, and loaded only to score it.
    """
    with user_errors(debug):
        asked = Asked(
            teacher=teacher,
            student=student,
            how=how.value,
            layers=layers,
            decoder_layers=decoder_layers,
            seed=seed,
            rescale_qk=rescale_qk,
            dropout=dropout,
            texts=texts or (),
            loss=loss.value,
            hidden=hidden.value,
            scored_on=scored_on,
            scores=scores,
            plot=plot,
            trim_to=trim_to or (),
            dtype=dtype and dtype.value,
            out=out,
        )
        asked.check()
        for line in carry_out(asked):
            typer.echo(line)
