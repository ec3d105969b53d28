"""Layer mappings that are found while training: the earth mover's plans, renewed every n steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hf_distill.mapping import flow, mean_layers
from hf_distill.objectives.mixture import Costs, Mixture, Term

Reduce = Callable[[Tensor], Tensor]

_log = logging.get_logger(__name__)


class Transports(nn.Module):
    """The plan of each term whose mapping is transported: buffers, saved and resumed."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        """No plan is known yet.

        Args:
            terms: Name -> term, of those that are transported.
        """
        super().__init__()
        self._names = list(terms)
        self._periods = {name: term.renewed_every for name, term in terms.items()}
        for number, term in enumerate(terms.values()):
            depths = [len({pair[side] for pair in term.pairs}) for side in (0, 1)]
            self.register_buffer(f"plan_{number}", torch.zeros(*depths))

    def plans(self) -> dict[str, Tensor]:
        """Term -> [pairs], the weights of its pairs in their order; they sum to 1."""
        return {name: self._plan(name).flatten() for name in self._names}

    def renew(self, step: int, costs: Callable[[str], Costs], reduce: Reduce) -> dict[str, float]:
        """Find the plans that are due at this optimizer step.

        Args:
            step: Optimizer steps done before this one.
            costs: Gives the costs of a term's pairs in this process's batch.
            reduce: Sums a tensor over all processes.

        Returns:
            For the log: `layer_<term>_<student layer>`, the mean teacher layer by the plan.
        """
        logs = {}
        for name in self._names:
            plan = self._plan(name)
            if step % self._periods[name] and plan.any():
                continue
            found = costs(name)
            totals = reduce(torch.stack([*found.sums, found.count]))
            means = (totals[:-1] / totals[-1].clamp(min=1)).view_as(plan)
            plan.copy_(torch.from_numpy(flow(means.cpu().numpy())))
            layers = mean_layers(plan.cpu().numpy())
            _log.info(f"plan of {name!r} at step {step}: {plan.tolist()}")
            logs.update({f"layer_{name}_{at}": float(n) for at, n in enumerate(layers, start=1)})
        return logs

    def _plan(self, name: str) -> Tensor:
        return self.get_buffer(f"plan_{self._names.index(name)}")


def transported(mixture: Mixture) -> dict[str, Term]:
    """The terms whose mapping is found while training."""
    return {name: term for name, term in mixture.terms.items() if term.renewed_every}
