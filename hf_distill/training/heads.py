"""What is learnt beside the student: projections of its hidden states to the teacher's width.

They are a submodule of the student, called inside its forward pass: the one way that holds under
DDP, torch.compile and ZeRO. So the Trainer optimises, clips and resumes them; they are left out of
what `save_pretrained` writes and kept in a file of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_distill.objectives.base import Shape
from hf_distill.objectives.mixture import Mixture
from hf_distill.signals.capture import Features

NAME = "distillation_heads"
"""The submodule's name in the student."""
FILE = "_distillation_heads.safetensors"
"""Beside a checkpoint's weights. The Trainer uploads no file that begins with an underscore."""
Projected = dict[int, Tensor]
"""layer -> [B, T, teacher's width]."""


class DistillationHeads(nn.Module):
    """One linear projection per student layer that is compared at the teacher's width."""

    def __init__(
        self, layers: frozenset[int], student_width: int, teacher_width: int, seed: int
    ) -> None:
        """Initialise without touching the global random state."""
        super().__init__()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            self.projections = nn.ModuleDict(
                {str(layer): nn.Linear(student_width, teacher_width) for layer in sorted(layers)}
            )

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def forward(self, features: Features) -> Features:
        """The features, with `projected.<layer>` [B, T, teacher's width] added."""
        added = {
            # Hooks run outside autocast: the feature may be narrower than the weights.
            f"projected.{layer}": projection(features[f"hidden.{layer}"].to(self.dtype))
            for layer, projection in self.projections.items()
        }
        return {**features, **added}

    def projected(self, features: Features) -> Projected:
        """What `forward` added, by layer."""
        return {int(layer): features[f"projected.{layer}"] for layer in self.projections}


def heads_for(mixture: Mixture, student: Shape, teacher: Shape, seed: int) -> DistillationHeads:
    """Projections of the layers that some objective compares coordinate by coordinate.

    There are none where the widths are equal.
    """
    layers = frozenset(
        layer
        for term in mixture.terms.values()
        if term.objective.equal_width and student.width != teacher.width
        for layer, _ in term.pairs
    )
    return DistillationHeads(layers, student.width, teacher.width, seed)


def save(heads: DistillationHeads, folder: str, state: Mapping[str, Tensor] | None) -> None:
    """Write the heads' weights beside a checkpoint; the student's gathered `state` has them."""
    prefix = f"{NAME}."
    weights = (
        heads.state_dict()
        if state is None
        else {key.split(prefix, 1)[1]: value for key, value in state.items() if prefix in key}
    )
    if weights:
        held = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        save_file(held, Path(folder) / FILE)


def load(heads: DistillationHeads, folder: str) -> None:
    """Read what `save` wrote.

    Raises:
        FileNotFoundError: The heads have weights, and the checkpoint holds none for them.
    """
    if not heads.state_dict():
        return
    path = Path(folder) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint must hold {FILE}, got {folder!r} without it. Resume from a checkpoint "
            "that DistillationTrainer wrote."
        )
    heads.load_state_dict(load_file(path))
