"""What became of every tensor: of the student where it came from, of the teacher what was left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hf_distill.student.slicing import Origin

REPORT_FILE = "report.md"

KINDS = {
    "copied": "whole, as the teacher has them",
    "cut": "a slice of the teacher's",
    "neutral": "a value that changes nothing, where the teacher's family has no such tensor",
    "new": "newly initialised: random until it is trained",
}
"""Kind of origin -> what it means."""


@dataclass(frozen=True)
class Report:
    """How a student came about, tensor by tensor."""

    origins: tuple[Origin, ...]
    """Of each tensor of the student; of tensors that are tied, once."""
    left_out: tuple[str, ...] = ()
    """Tensors of the teacher outside the layers that were not taken, and of which nothing is in
    the student."""
    layers_left_out: tuple[int, ...] = ()
    """The teacher's layers that were not taken, from 1."""
    decoder_layers_left_out: tuple[int, ...] = ()
    """Those of its decoder."""
    differences: tuple[str, ...] = ()
    """What the student's family computes in another way than the teacher's."""

    def of_kind(self, kind: str) -> tuple[Origin, ...]:
        """The origins of one of `KINDS`."""
        return tuple(origin for origin in self.origins if origin.kind == kind)

    @property
    def parameters(self) -> int:
        """Of the whole student, tied ones counted once."""
        return sum(origin.parameters for origin in self.origins)

    def summary(self) -> str:
        """Some lines: how many of each kind, and by name whatever is neither copied nor cut."""
        lines = []
        for kind, meaning in KINDS.items():
            found = self.of_kind(kind)
            if found:
                count = sum(origin.parameters for origin in found)
                lines.append(f"{kind}: {_tensors(found)}, {count:,} parameters ({meaning})")
            if kind in ("neutral", "new"):
                lines += [f"  {origin.name} {_shape(origin.shape)}" for origin in found]
        noted = [origin for origin in self.origins if origin.note]
        lines += [f"{origin.name}: {origin.note}" for origin in noted]
        gone = {
            "layers ": self.layers_left_out,
            "layers of its decoder ": self.decoder_layers_left_out,
            "": self.left_out,
        }
        for what, names in gone.items():
            if names:
                lines.append(f"left out of the teacher: {what}{', '.join(map(str, names))}")
        return "\n".join([*lines, *self.differences])

    def markdown(self, heading: str, facts: Iterable[str] = ()) -> str:
        """The summary and a table of all tensors.

        Args:
            heading: The title.
            facts: Lines that stand before all else.
        """
        rows = [
            f"| `{each.name}` | {_shape(each.shape)} | {each.kind} | "
            f"{f'`{each.source}`' if each.source else ''} | "
            f"{_shape(each.whole) if each.source else ''} | {each.note} |"
            for each in self.origins
        ]
        return "\n".join(
            [
                f"# {heading}",
                "",
                *(f"- {fact}" for fact in facts),
                "",
                "```",
                self.summary(),
                "```",
                "",
                "| tensor | shape | kind | of the teacher | its shape | note |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
            ]
        )


def _tensors(found: tuple[Origin, ...]) -> str:
    return f"{len(found)} tensor{'s' if len(found) > 1 else ''}"


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
