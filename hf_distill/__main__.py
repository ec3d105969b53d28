"""`python -m hf_distill`: the command line, in a form that `accelerate launch -m` can start."""

from hf_distill.cli.main import app

app()
