"""The command line: `hf-distill`, or `python -m hf_distill`."""

from __future__ import annotations

import typer

from hf_distill.cli.cache import cache
from hf_distill.cli.extract import extract
from hf_distill.cli.layers import layers
from hf_distill.cli.list import list_
from hf_distill.cli.quickstart import quickstart
from hf_distill.cli.train import train

app = typer.Typer(
    name="hf-distill",
    help="Small transformers out of large ones, inside the Hugging Face Trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train)
app.command("cache")(cache)
app.command("extract")(extract)
app.command("quickstart")(quickstart)
app.command("layers")(layers)
app.command("list")(list_)
