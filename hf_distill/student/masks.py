"""Masks of ones on a model's units: their gradient says what each unit does to a loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hf_distill.architectures import Part, anatomy, base_model
from hf_distill.architectures.parts import EMBEDDING, HIDDEN
from hf_distill.student.size import Size
from hf_distill.student.slicing import place

_READ = {"ffn_out", "output", "cross_output"}
"""Roles of the projections that read what can be cut: neurons after their activation, and the
values that each head has gathered."""
_WRITTEN = {
    "query",
    "key",
    "query_key_value",
    "position_query",
    "position_key",
    "cross_query",
    "cross_key",
}
"""Roles of the projections that write it. Those of relative positions lose the same channels, so
these count in their scores."""


class Units(NamedTuple):
    """One set of units that can be cut."""

    stack: int | None
    """Number of its stack in the anatomy; None for the units of the residual stream, and for those
    of embeddings before a projection, which are the same throughout."""
    layer: int
    """In its stack, from 0."""
    axis: str


@dataclass(frozen=True)
class Site:
    """A module that writes or reads units."""

    module: nn.Module
    units: tuple[Units, ...]
    """Along its last dimension, one behind the other."""
    reads: bool


Gradients = Mapping[Units, list[Tensor]]
"""Units -> the gradient of each mask that was on them, in the order of execution."""


def sites(teacher: nn.Module) -> list[Site]:
    """Where units that can be cut are to be seen.

    Those of the residual stream are seen after every norm of the base model, and after the
    projection that follows the embeddings.
    """
    base = base_model(teacher)
    family, size = anatomy(base.config), Size.of(base.config)
    alike = size.embedding == size.width and not family.projects
    found = []
    for name in base.state_dict():
        where = place(name, family)
        axes = () if where is None else _axes(where.part)
        if where is None or not axes:
            continue
        units = tuple(
            Units(None, 0, HIDDEN if alike else axis)
            if axis in (HIDDEN, EMBEDDING)
            else Units(where.stack, where.layer, axis)
            for axis in axes
        )
        role = where.part.role.removesuffix(".weight")
        module = base.get_submodule(name.removesuffix(".weight"))
        found.append(Site(module, units, role in _READ))
    return found


def _axes(part: Part) -> tuple[str, ...]:
    """Of a norm, its axis; of a projection, those on the side where its units are; () of others."""
    role = part.role.removesuffix(".weight")
    if role == "embedding_projection":
        return (HIDDEN,)
    if role in _READ | _WRITTEN:
        return next(run for run in part.runs if run != (HIDDEN,))
    if role.endswith("_norm") and part.axes in ((HIDDEN,), (EMBEDDING,)):
        return part.runs[0]
    return ()


class Masks:
    """The masks of one forward pass."""

    def __init__(self, found: list[Site], size: Size) -> None:
        """Of one model.

        Args:
            found: Its `sites`.
            size: Says how many units an axis has.
        """
        self._sites, self._size = found, size
        self._made: list[tuple[Site, Tensor]] = []

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The model with its units multiplied by ones."""
        handles: list[Any] = []
        try:
            for site in self._sites:
                handles.append(self._attach(site))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _attach(self, site: Site) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (self._masked(site, args[0]), *args[1:])

        def written(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            return self._masked(site, output)

        if site.reads:
            return site.module.register_forward_pre_hook(read)
        return site.module.register_forward_hook(written)

    def _masked(self, site: Site, shown: Tensor) -> Tensor:
        # In half precision, the sum over tokens would be rounded.
        dtype = torch.promote_types(shown.dtype, torch.float32)
        mask = torch.ones(shown.shape[-1], dtype=dtype, device=shown.device, requires_grad=True)
        # A new one each time: a layer may run several times, and units of the stream count in each.
        self._made.append((site, mask))
        return (shown.to(dtype) * mask).to(shown.dtype)

    def gradients(self, loss: Tensor) -> Gradients:
        """The loss's gradient in every mask, in float64 on the CPU; 0 where it depends on none.

        Raises:
            ValueError: There were no masks on some units: their layer was not run, or not by its
                modules, as when it is compiled.
        """
        self._check_run()
        masks = [mask for _, mask in self._made]
        # Nothing is accumulated: no tensor has a .grad, before or after.
        found = torch.autograd.grad(loss, masks, allow_unused=True, materialize_grads=True)
        gathered: dict[Units, list[Tensor]] = {}
        for (site, _), gradient in zip(self._made, found, strict=True):
            lengths = [self._size.extent(units.axis) for units in site.units]
            parts = gradient.detach().to("cpu").double().split(lengths)
            for units, part in zip(site.units, parts, strict=True):
                gathered.setdefault(units, []).append(part)
        return gathered

    def _check_run(self) -> None:
        ran = {units for site, _ in self._made for units in site.units}
        missing = {units for site in self._sites for units in site.units} - ran
        if missing:
            names = ", ".join(
                sorted({f"{units.axis} of layer {units.layer + 1}" for units in missing})
            )
            raise ValueError(
                f"batches must run through every layer of the teacher, got none for {names}. "
                "Load the teacher anew if it is compiled, and let the loss run all of it."
            )
