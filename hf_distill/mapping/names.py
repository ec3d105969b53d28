"""What a mapping is called: a name, for some a number, and whether embedding outputs take part.

    uniform    last-4    emd-50    uniform:no-embeddings    last:embeddings

With nothing said, embedding outputs (layer 0 of both) are paired where an objective can compare
them, as it can hidden states; `last` and `emd` leave them out. `:no-embeddings` leaves them out of
any mapping. `:embeddings` asks for them, and is an error where they cannot be compared.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hf_distill.mapping.fixed import blocks, first, last, skip, top, uniform
from hf_distill.mapping.pairs import Pairs, explicit, given_pairs
from hf_distill.mapping.transport import STEPS, emd

Mapping = str | Sequence[Sequence[int]]
"""A name, or (student layer, teacher layer) pairs."""

MAPPINGS: dict[str, Callable[..., Pairs]] = {
    "uniform": uniform,
    "skip": skip,
    "first": first,
    "top": top,
    "last": last,
    "blocks": blocks,
    "emd": emd,
}
"""Name -> function of (student_layers, teacher_layers, *, embeddings), and of a number behind the
depths for the names of `NUMBERED`.

The first line of the function's docstring explains the mapping.
"""

NUMBERED = frozenset({"last", "emd"})
"""Names that a number may follow: how many layers, how many steps."""
_TRANSPORTED = frozenset({"emd"})
_INSIDE = frozenset({"last", "emd"})
"""Names that leave embedding outputs out where nothing is said of them."""
_ENDINGS = {"embeddings": True, "no-embeddings": False}


@dataclass(frozen=True)
class Named:
    """What a mapping is called, taken apart."""

    name: str
    """A key of `MAPPINGS`."""
    number: int | None = None
    """What follows the dash."""
    embeddings: bool | None = None
    """What follows the colon; None where nothing is said."""


def parse(mapping: str) -> Named:
    """Take a mapping's name apart.

    Raises:
        ValueError: The name is unknown, takes no number, or ends in something else.
    """
    head, colon, ending = mapping.partition(":")
    name, dash, number = head.partition("-")
    if name not in MAPPINGS:
        near = difflib.get_close_matches(name.lower(), MAPPINGS, n=1, cutoff=0.5)
        meant = f"Did you mean {near[0] + mapping.removeprefix(name)!r}?" if near else ""
        raise ValueError(
            f"mapping must be one of {', '.join(MAPPINGS)}, got {mapping!r}. "
            f"{meant or 'Choose one of these, or give pairs.'}"
        )
    if dash and name not in NUMBERED:
        raise ValueError(
            f"mapping must be {name!r} alone or with a colon, got {mapping!r}. Only "
            f"{' and '.join(sorted(NUMBERED))} take a number; embedding outputs are left out by "
            f"'{name}:no-embeddings'."
        )
    if dash and not (number.isascii() and number.isdecimal() and int(number)):
        raise ValueError(
            f"mapping must have a whole number above 0 behind the dash, got {mapping!r}. "
            f"Write one, as in '{name}-4'."
        )
    if colon and ending not in _ENDINGS:
        raise ValueError(
            f"mapping must end in ':embeddings' or ':no-embeddings' where it has a colon, got "
            f"{mapping!r}. Correct the ending."
        )
    return Named(name, int(number) if dash else None, _ENDINGS.get(ending))


def check_mapping(mapping: Mapping) -> None:
    """Raise ValueError where a mapping could fit no two models, whatever their depths."""
    if isinstance(mapping, str):
        parse(mapping)
    else:
        given_pairs(mapping)


def resolve(
    mapping: Mapping, student_layers: int, teacher_layers: int, *, embeddings: bool
) -> Pairs:
    """The pairs that a recipe's mapping stands for.

    Args:
        mapping: A name as `parse` takes it, or (student layer, teacher layer) pairs counted
            from 1.
        student_layers: Depth of the student.
        teacher_layers: Depth of the teacher.
        embeddings: Whether layer 0, the embedding output, can be compared.

    Returns:
        At least one pair, none of them twice.

    Raises:
        ValueError: The name is unknown, the mapping does not fit the depths, or it asks for layer
            0 although `embeddings` is false.
    """
    if not isinstance(mapping, str):
        return explicit(mapping, student_layers, teacher_layers, embeddings=embeddings)
    named = parse(mapping)
    if named.embeddings and not embeddings:
        raise ValueError(
            f"mapping must be free of ':embeddings' here, got {mapping!r}. "
            "What is compared exists only inside layers: leave the ending out."
        )
    paired = embeddings and named.name not in _INSIDE
    numbers = () if named.number is None else (named.number,)
    return MAPPINGS[named.name](
        student_layers,
        teacher_layers,
        *numbers,
        embeddings=paired if named.embeddings is None else named.embeddings,
    )


def period(mapping: Mapping) -> int | None:
    """Optimizer steps after which a transported mapping's pairs are weighed anew.

    None for a mapping whose pairs stay as they are: all but `emd`.

    Raises:
        ValueError: The name is unknown.
    """
    named = parse(mapping) if isinstance(mapping, str) else None
    if named is None or named.name not in _TRANSPORTED:
        return None
    return named.number or STEPS
