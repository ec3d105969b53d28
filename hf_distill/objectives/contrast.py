"""Contrast of hidden states: a sentence's own teacher state among those of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize as unit_length

from hf_distill.objectives.divergence import log_probabilities
from hf_distill.objectives.precision import products, wide_pair
from hf_distill.objectives.schedule import Number, fixed
from hf_distill.objectives.sentence import AmongSentences
from hf_distill.objectives.settings import check_temperature


def hidden_info_nce(
    student: Tensor, teacher: Tensor, real: Tensor, temperature: float = 0.07
) -> Tensor:
    """-log softmax_j(cos(student i, teacher j) / temperature) at j = i.

    Args:
        student: [B, D].
        teacher: [B, D].
        real: [B] bool, the sentences that are not empty: the others are no candidates.
        temperature: Divides the cosines.

    Returns:
        [B], from 0; log of the number of candidates where nothing is told apart.
    """
    mine, theirs = (unit_length(side, dim=-1) for side in wide_pair(student, teacher))
    own = log_probabilities(products(mine, theirs) / temperature, real).diagonal()
    return -own.masked_fill(~real, 0)


@dataclass(frozen=True)
class HiddenInfoNCE(AmongSentences):
    """InfoNCE of sentences' states: the own teacher state against the rest of the batch's.

    The contrastive layer matching of CoDIR, layer by layer, with negatives of the batch instead of
    a memory bank. It is a bound on mutual information whose score is a cosine and not learnt;
    InfoNCE learns it. More sentences in the batch of a process make it harder.

    Args:
        temperature: Divides the cosines; > 0. Lower looks at the hardest negatives only.
        pooling: "mean" over a sentence's tokens, or its "first" token.
    """

    temperature: Number = 0.07

    equal_width: ClassVar[bool] = True
    default_mapping: ClassVar[str] = "uniform"
    zero_when_equal: ClassVar[bool] = False
    citation: ClassVar[str] = (
        "Sun et al.: Contrastive Distillation on Intermediate Representations for Language Model "
        "Compression. 2020. arXiv:2009.14167"
    )

    def __post_init__(self) -> None:
        """Raise ValueError on a choice that is none, or a temperature that is none."""
        super().__post_init__()
        check_temperature(self.temperature)

    def compare(self, student: Tensor, teacher: Tensor, real: Tensor) -> Tensor:
        """[B]."""
        return hidden_info_nce(student, teacher, real, fixed(self.temperature))
