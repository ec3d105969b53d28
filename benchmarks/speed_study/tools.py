"""The tools, in the order of the tables, and what each one's first loss is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DISTILLED = ("kl", "hidden")


@dataclass(frozen=True)
class Tool:
    """One way to do the work."""

    title: str
    runs: str
    """module:function; imported in a process of its own."""
    package: str | None = None
    """Whose version is told."""
    loss: tuple[str, ...] = ()
    """The parts that its loss is the sum of; see `parts_of_loss`."""
    rounding: float = 1e-5
    """How far its first loss may be from that sum, as a part of it."""
    why: str = ""
    """Why its loss has other parts than the loop's."""
    peer: bool = False
    """Whether it is imported from the folder of the other libraries."""
    counts: bool = True
    """Whether its operations can be counted: not what is compiled, or is no operator of torch."""


RAW, PLAIN, TEXTBREWER = "raw", "fine-tuning", "textbrewer"
CACHED, WRITING, MIXED = "ours-cached", "writing", "ours-mixed"
_HALF, _ROUNDED = 0.02, "bfloat16"

TOOLS: Mapping[str, Tool] = {
    RAW: Tool("loop by hand", "loops:raw_loop", "torch", DISTILLED),
    "ours": Tool("ours", "trainers:live", "hf-distill", DISTILLED),
    "ours-bfloat16": Tool(
        "ours, teacher in bfloat16",
        "trainers:live_bfloat16",
        "hf-distill",
        DISTILLED,
        rounding=0.01,
        why="the teacher is rounded",
    ),
    CACHED: Tool(
        "ours, teacher from a cache",
        "trainers:cached",
        "hf-distill",
        DISTILLED,
        rounding=0.01,
        why="what the teacher showed is rounded to bfloat16",
    ),
    "ours-cached-logits": Tool(
        "ours, from a cache, logits alone",
        "trainers:cached_logits",
        "hf-distill",
        ("kl",),
        rounding=0.01,
        why="hidden states are not compared",
    ),
    TEXTBREWER: Tool(
        "TextBrewer",
        "of_textbrewer:distil",
        "textbrewer",
        (*DISTILLED, "entropy"),
        why="its cross-entropy holds the teacher's entropy, which is constant",
        peer=True,
    ),
    "torchdistill": Tool(
        "torchdistill",
        "of_torchdistill:distil",
        "torchdistill",
        ("kl", "padded"),
        why="its MSE counts padding as if it were tokens",
        peer=True,
    ),
    PLAIN: Tool(
        "Trainer, fine-tuning without a teacher",
        "trainers:fine_tuning",
        "transformers",
        ("gold",),
        why="cross-entropy with labels",
    ),
}

ON_CUDA: Mapping[str, Tool] = {
    "raw-mixed": Tool(
        "loop by hand, bfloat16 autocast",
        "loops:raw_loop_mixed",
        "torch",
        DISTILLED,
        _HALF,
        _ROUNDED,
    ),
    MIXED: Tool(
        "ours, bfloat16 autocast",
        "trainers:live_mixed",
        "hf-distill",
        DISTILLED,
        _HALF,
        _ROUNDED,
    ),
}
ASKED_FOR: Mapping[str, Tool] = {
    "ours-compiled": Tool(
        "ours, bfloat16 autocast, compiled",
        "trainers:compiled",
        "hf-distill",
        DISTILLED,
        _HALF,
        _ROUNDED,
        counts=False,
    ),
    "ours-attention": Tool(
        "ours, bfloat16 autocast, other attention",
        "trainers:live_mixed",
        "hf-distill",
        DISTILLED,
        _HALF,
        _ROUNDED,
        counts=False,
    ),
}
"""By an option each."""

PARTS: Mapping[str, Tool] = {
    "teacher-float32": Tool("teacher, float32", "loops:teacher_float32"),
    "teacher-autocast": Tool("teacher, bfloat16 autocast", "loops:teacher_autocast"),
    "teacher-bfloat16": Tool("teacher, bfloat16 weights", "loops:teacher_bfloat16"),
    "student": Tool("student, logits alone", "loops:student_alone"),
    "student-hidden": Tool("student, logits and hidden states", "loops:student_with_states"),
}
"""Of the loop by hand, timed alone."""

ALL: Mapping[str, Tool] = {
    **TOOLS,
    **ON_CUDA,
    **ASKED_FOR,
    **PARTS,
    WRITING: Tool("writing of the cache", "trainers:write_cache", counts=False),
}
