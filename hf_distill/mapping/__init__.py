"""Which layer answers to which?

Pairs (student layer, teacher layer), counted from 1; 0 is the embedding output: layer n is
`hidden_states[n]` and `attentions[n - 1]` of transformers' outputs. `MAPPINGS` is the registry of
named mappings, `resolve` turns a name into pairs, and `explain` says why they are the pairs.
"""

from hf_distill.mapping.explanation import Explanation, Match, explain
from hf_distill.mapping.fixed import blocks, first, last, skip, top, uniform
from hf_distill.mapping.names import MAPPINGS, check_mapping, parse, period, resolve
from hf_distill.mapping.pairs import Pairs, explicit
from hf_distill.mapping.transport import emd, flow, mean_layers

__all__ = [
    "MAPPINGS",
    "Explanation",
    "Match",
    "Pairs",
    "blocks",
    "check_mapping",
    "emd",
    "explain",
    "explicit",
    "first",
    "flow",
    "last",
    "mean_layers",
    "parse",
    "period",
    "resolve",
    "skip",
    "top",
    "uniform",
]
