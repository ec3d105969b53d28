"""model_type -> what its tensors are."""

from __future__ import annotations

from typing import Any

from hf_distill.architectures.decoders import BART, GPT2, LLAMA, T5
from hf_distill.architectures.encoders import (
    ALBERT,
    BERT,
    DEBERTA_V2,
    DISTILBERT,
    ELECTRA,
    MODERNBERT,
    MPNET,
    ROBERTA,
)
from hf_distill.architectures.parts import Anatomy

ANATOMIES: dict[str, Anatomy] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
    "albert": ALBERT,
    "deberta-v2": DEBERTA_V2,
    "mpnet": MPNET,
    "modernbert": MODERNBERT,
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "t5": T5,
    "bart": BART,
}


def anatomy(config: Any) -> Anatomy:
    """The anatomy of a model's config.

    Raises:
        ValueError: Extraction does not know the family.
    """
    found = ANATOMIES.get(config.model_type)
    if found is None:
        raise ValueError(
            f"teacher must be of a family that extraction knows ({', '.join(ANATOMIES)}), "
            f"got model_type {config.model_type!r}. Take such a teacher, or build the student "
            "from a config of its own."
        )
    return found
