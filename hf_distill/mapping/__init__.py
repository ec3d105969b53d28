"""Which layer answers to which?

Pairs (student layer, teacher layer), counted from 1; 0 is the embedding output.
`MAPPINGS` is the registry of named mappings.
"""

from hf_distill.mapping.fixed import MAPPINGS, Pairs, explicit, first, last, resolve, top, uniform

__all__ = ["MAPPINGS", "Pairs", "explicit", "first", "last", "resolve", "top", "uniform"]
