"""What is learnt beside the student: projections to the teacher's width, critics, layer plans.

They are a submodule of the student, called inside its forward pass: the one way that holds under
DDP, torch.compile and ZeRO. So the Trainer optimises, clips and resumes them; they are left out of
what `save_pretrained` writes and kept in a file of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_distill.objectives.base import Shape
from hf_distill.objectives.mixture import Learnt, Mixture, Term
from hf_distill.signals.capture import Features
from hf_distill.signals.signals import Scores, Signals
from hf_distill.training.critics import LearntCritic
from hf_distill.training.transports import Transports, transported

NAME = "distillation_heads"
"""The submodule's name in the student."""
FILE = "_distillation_heads.safetensors"
"""Beside a checkpoint's weights. The Trainer uploads no file that begins with an underscore."""


class DistillationHeads(nn.Module):
    """One projection per student layer that is compared at the teacher's width; a term's critic."""

    def __init__(
        self,
        layers: frozenset[int],
        student_width: int,
        teacher_width: int,
        seed: int,
        critics: Mapping[str, Term] | None = None,
        transports: Mapping[str, Term] | None = None,
    ) -> None:
        """Initialise without touching the global random state.

        Args:
            layers: Student layers whose hidden states are projected.
            student_width: Of the student's hidden states.
            teacher_width: Of the teacher's.
            seed: Of the weights.
            critics: Name -> term, of those whose objective wants a critic.
            transports: Name -> term, of those whose layer mapping is found while training.
        """
        super().__init__()
        wanted = critics or {}
        self._terms = list(wanted)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            self.projections = nn.ModuleDict(
                {str(layer): nn.Linear(student_width, teacher_width) for layer in sorted(layers)}
            )
            self.critics = nn.ModuleList(
                LearntCritic(
                    term.objective.critic,
                    term.pairs,
                    student_width,
                    teacher_width,
                    baseline=term.objective.learns_baseline,
                )
                for term in wanted.values()
                if term.objective.critic is not None
            )
        self.transports = Transports(transports or {})

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def _critics(self) -> list[LearntCritic]:
        return [critic for critic in self.critics if isinstance(critic, LearntCritic)]

    def forward(self, features: Features, teacher: Signals) -> Features:
        """The features, and what is learnt of them.

        Args:
            features: Of the student, `hidden.<layer>` [B, T, student's width] among them.
            teacher: What the teacher shows of the same batch.

        Returns:
            `projected.<layer>` [B, T, teacher's width] and `scores.<critic>.<pair>.<field>` are
            added: plain tensors, that DDP follows.
        """
        added = {
            # Hooks run outside autocast: the feature may be narrower than the weights.
            f"projected.{layer}": projection(features[f"hidden.{layer}"].to(self.dtype))
            for layer, projection in self.projections.items()
        }
        for number, critic in enumerate(self._critics()):
            for place, (mine, theirs) in enumerate(critic.pairs):
                found = critic.score(
                    place, features[f"hidden.{mine}"], teacher.hidden[theirs], teacher.mask
                )
                for field in fields(Scores):
                    added[f"scores.{number}.{place}.{field.name}"] = getattr(found, field.name)
        return {**features, **added}

    def learnt(self, features: Features) -> Learnt:
        """What `forward` added, in the form that a mixture reads."""
        projected = {int(layer): features[f"projected.{layer}"] for layer in self.projections}
        scores: dict[str, dict[tuple[int, int], Scores]] = {}
        for number, (term, critic) in enumerate(zip(self._terms, self._critics(), strict=True)):
            scores[term] = {
                pair: Scores(
                    **{
                        field.name: features[f"scores.{number}.{place}.{field.name}"]
                        for field in fields(Scores)
                    }
                )
                for place, pair in enumerate(critic.pairs)
            }
        return Learnt(projected, scores)


def heads_for(mixture: Mixture, student: Shape, teacher: Shape, seed: int) -> DistillationHeads:
    """Projections of the layers that are compared coordinate by coordinate, and the critics.

    There are no projections where the widths are equal.
    """
    layers = frozenset(
        layer
        for term in mixture.terms.values()
        if term.objective.equal_width and student.width != teacher.width
        for layer, _ in term.pairs
    )
    critics = {name: term for name, term in mixture.terms.items() if term.objective.critic}
    return DistillationHeads(
        layers, student.width, teacher.width, seed, critics, transported(mixture)
    )


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
