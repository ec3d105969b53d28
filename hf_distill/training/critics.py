"""Critics: learnt functions that score which state of the student belongs to which of the teacher.

Teacher states are gathered from all processes, and kept in the queue, as the teacher shows them:
each process passes all of them through its own copy of the critic. As copies are equal and DDP adds
up their gradients, the gradient is that of one big batch, without a gradient through the gathering.
"""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import gather, pad_across_processes
from torch import Tensor, nn
from torch.nn.functional import normalize

from hf_distill.objectives.base import Pairs
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.pooling import pooled
from hf_distill.objectives.precision import products, widened
from hf_distill.signals.signals import Scores


class LearntCritic(nn.Module):
    """The critic of one term, for all its pairs of layers; a queue for each pair.

    The queue's states are buffers: saved and resumed with the weights, the same on all processes.
    """

    def __init__(
        self,
        wanted: Critic,
        pairs: Pairs,
        student_width: int,
        teacher_width: int,
        *,
        baseline: bool,
    ) -> None:
        """Initialise at random.

        Args:
            wanted: What the objective asks for.
            pairs: (student layer, teacher layer).
            student_width: Of the student's hidden states.
            teacher_width: Of the teacher's.
            baseline: Whether log q of the student's state is learnt too.
        """
        super().__init__()
        self.wanted, self.pairs, self.teacher_width = wanted, tuple(pairs), teacher_width
        if wanted.kind == "bilinear":
            self.student: nn.Module = nn.Linear(student_width, teacher_width, bias=False)
            self.teacher: nn.Module = nn.Identity()
        else:
            self.student = _perceptron(student_width, wanted.hidden, wanted.width)
            self.teacher = _perceptron(teacher_width, wanted.hidden, wanted.width)
        self.baseline = _perceptron(student_width, wanted.hidden, 1) if baseline else None
        for place in range(len(self.pairs) if wanted.queue else 0):
            self.register_buffer(f"queue_{place}", torch.zeros(wanted.queue, teacher_width))
            self.register_buffer(f"filled_{place}", torch.zeros((), dtype=torch.long))

    @torch.compiler.disable  # Gathering, and candidates as many as there are tokens, break graphs.
    def score(self, place: int, student: Tensor, teacher: Tensor, mask: Tensor) -> Scores:
        """Scores of one layer pair, and its queue renewed.

        Args:
            place: The pair's place in `pairs`.
            student: [B, T, D of the student].
            teacher: [B, T, D of the teacher].
            mask: [B, T] bool, the real tokens.
        """
        dtype = next(self.parameters()).dtype
        mine, real = pooled(student, mask, self.wanted.pooling)
        theirs, _ = pooled(teacher.detach(), mask, self.wanted.pooling)
        mine, theirs = (
            side.masked_fill(~real.unsqueeze(-1), 0).to(dtype) for side in (mine, theirs)
        )
        own, units = _candidates(theirs, real, self.wanted.candidates)
        elsewhere = _of_other_processes(own) if self.wanted.gather else own[:0]
        # A copy of the queue: it changes before the backward pass that needs it.
        further = torch.cat([elsewhere, self._queued(place).to(dtype).clone()])
        another = torch.arange(real.numel(), device=units.device).view(*real.shape, 1) != units
        counts = torch.cat([another, another.new_ones(*real.shape, len(further))], -1)
        with torch.autocast(mask.device.type, enabled=False):
            left, right = self._met(self.student, mine), self._met(self.teacher, theirs)
            shown = Scores(
                positive=(widened(left) * widened(right)).sum(-1),
                negative=products(left, self._met(self.teacher, torch.cat([own, further]))),
                real=counts & real.unsqueeze(-1),
                baseline=self._log_q(mine),
            )
        self._enqueue(place, torch.cat([own, elsewhere]))
        return shown

    def _met(self, side: nn.Module, states: Tensor) -> Tensor:
        met: Tensor = side(states)
        return normalize(widened(met), dim=-1) if self.wanted.normalize else met

    def _log_q(self, states: Tensor) -> Tensor:
        if self.baseline is None:
            return widened(states.new_zeros(states.shape[:-1]))
        return widened(self.baseline(states).squeeze(-1))

    def _queued(self, place: int) -> Tensor:
        """[Q, D of the teacher]: the states kept of earlier batches, the newest first."""
        if not self.wanted.queue:
            return next(self.parameters()).new_zeros((0, self.teacher_width))
        return self.get_buffer(f"queue_{place}")[: int(self.get_buffer(f"filled_{place}"))]

    def _enqueue(self, place: int, newest: Tensor) -> None:
        if self.wanted.queue:
            kept = torch.cat([newest.detach(), self._queued(place)])[: self.wanted.queue]
            self.get_buffer(f"queue_{place}")[: len(kept)] = kept
            self.get_buffer(f"filled_{place}").fill_(len(kept))


def _perceptron(width: int, hidden: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, out),
    )


def _candidates(states: Tensor, real: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most so many real states, evenly spaced: [K, D], and [K], the units they belong to."""
    units = real.flatten().nonzero().squeeze(-1)
    if len(units) > most:
        units = units[torch.arange(most, device=units.device) * len(units) // most]
    return states.flatten(0, -2)[units], units


def _of_other_processes(own: Tensor) -> Tensor:
    """[K, D] of each process -> the states of all the others."""
    state = PartialState()
    if state.num_processes == 1:
        return own[:0]
    padded = pad_across_processes(own.contiguous())
    exists = pad_across_processes(own.new_ones(len(own)))
    everyone = gather(padded).view(state.num_processes, -1, own.shape[-1])
    exist = gather(exists).view(state.num_processes, -1).bool()
    exist[state.process_index] = False
    return everyone[exist]
