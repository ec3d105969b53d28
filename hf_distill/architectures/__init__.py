"""Where does each model family keep its layers, and what is each of its tensors? The one place."""

from hf_distill.architectures.families import ANATOMIES, anatomy
from hf_distill.architectures.parts import Anatomy, Part, Stack
from hf_distill.architectures.structure import (
    ARCHITECTURES,
    Architecture,
    architecture,
    base_model,
    decoder_layers,
    embeddings,
    forward_options,
    layers,
    plain_model,
)
from hf_distill.architectures.truncated import truncated, twin

__all__ = [
    "ANATOMIES",
    "ARCHITECTURES",
    "Anatomy",
    "Architecture",
    "Part",
    "Stack",
    "anatomy",
    "architecture",
    "base_model",
    "decoder_layers",
    "embeddings",
    "forward_options",
    "layers",
    "plain_model",
    "truncated",
    "twin",
]
