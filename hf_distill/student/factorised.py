"""Word embeddings of two factors, which are an ordinary table in every state dict.

A state dict of a factorised model is that of the same model with an ordinary table: whatever saves
it, `save_pretrained`, a Trainer or accelerate, writes an ordinary checkpoint. The factors
themselves, which an exact resume needs, are kept in a file beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from hf_distill.student.embeddings import Factors

FACTORS_FILE = "_embedding_factors.safetensors"
"""Beside a checkpoint's weights. The Trainer uploads no file that begins with an underscore."""


class _Folded(nn.Module):
    """A module that is written as an ordinary one with the weight `product()`, and read so."""

    weight: nn.Parameter

    def product(self) -> Tensor:
        """The ordinary weight: [V, D]."""
        raise NotImplementedError

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        product = self.product().detach()
        # Tied weights are told by their memory: where several places write one table, it is shared.
        same = (tensor for tensor in destination.values() if _equal(tensor, product))
        # Whoever keeps variables counts parameters.
        destination[f"{prefix}weight"] = next(
            same, nn.Parameter(product, requires_grad=False) if keep_vars else product
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = f"{prefix}weight"
        rest = {name: value for name, value in state_dict.items() if name != key}
        super()._load_from_state_dict(rest, prefix, local_metadata, False, [], [], error_msgs)
        if key not in state_dict:
            missing_keys.append(key)
        elif not _close(state_dict[key], self.product()):
            error_msgs.append(
                f"{key} must be the product of the factors that the model holds, got another "
                "table. Read its factors first: load_factors(model, folder); or load it before "
                "the model is factorised."
            )


class FactorisedEmbedding(_Folded):
    """Word embeddings: weight [V, E] times projection [E, D], plus a bias [D].

    The row of the padding token is kept beside and is not learnt, as in an ordinary embedding.
    """

    padding: Tensor | None
    projection_bias: nn.Parameter | None
    padding_idx: Any

    def __init__(self, factors: Factors, ordinary: nn.Embedding, *, center: bool) -> None:
        """Take vocabulary, padding, dtype and device from an ordinary embedding.

        Args:
            factors: Of its table.
            ordinary: The embedding that is replaced.
            center: Whether there is a bias, the mean at first.
        """
        super().__init__()
        like = ordinary.weight.detach()
        self.num_embeddings, self.embedding_dim = ordinary.weight.shape
        self.padding_idx = ordinary.padding_idx
        # Under this name transformers ties it. A bias it would pad, as that of an output head.
        self.weight = nn.Parameter(factors.matrix.to(like))
        self.projection = nn.Parameter(factors.projection.to(like))
        self.projection_bias = nn.Parameter(factors.mean.to(like)) if center else None
        row = None if self.padding_idx is None else like[self.padding_idx].clone()
        self.register_buffer("padding", row, persistent=False)
        self.weight.requires_grad_(ordinary.weight.requires_grad)
        self.train(ordinary.training)

    def forward(self, tokens: Tensor) -> Tensor:
        """The embeddings of tokens: [...] -> [..., D]."""
        scores = embedding(tokens, self.weight)
        # Autocast multiplies in half precision; an ordinary embedding is not touched by it.
        found = linear(scores, self.projection.T, self.projection_bias).to(self.weight.dtype)
        if self.padding is None:
            return found
        return torch.where(tokens.eq(self.padding_idx).unsqueeze(-1), self.padding, found)

    def logits(self, states: Tensor) -> Tensor:
        """What an output head tied to this table says: [..., D] -> [..., V], without its bias."""
        found = linear(linear(states, self.projection), self.weight)
        if self.projection_bias is not None:
            found = found + (states @ self.projection_bias)[..., None]
        if self.padding is not None:
            found[..., self.padding_idx] = (states @ self.padding).to(found.dtype)
        return found

    def product(self) -> Tensor:
        """The ordinary table: [V, D]."""
        table = linear(self.weight, self.projection.T, self.projection_bias)
        if self.padding is not None:
            table[self.padding_idx] = self.padding
        return table

    def ordinary(self, weight: nn.Parameter) -> nn.Embedding:
        """The embedding that this one replaces, with its table."""
        made = nn.Embedding(
            self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta"
        )
        made.weight = weight
        return made.train(self.training)

    def extra_repr(self) -> str:
        """What is printed."""
        return f"{self.num_embeddings}, {self.embedding_dim}, rank={self.weight.shape[1]}"


class FactorisedHead(_Folded):
    """An output head whose weight is tied to factorised embeddings."""

    bias: nn.Parameter | None

    def __init__(self, embeddings: FactorisedEmbedding, ordinary: nn.Linear) -> None:
        """Share the embeddings' factors and the ordinary head's bias.

        Args:
            embeddings: What the head is tied to.
            ordinary: The head that is replaced.
        """
        super().__init__()
        self.weight, self.bias = embeddings.weight, ordinary.bias
        self.in_features, self.out_features = ordinary.in_features, ordinary.out_features
        # In a tuple it is no submodule: that it is already, where tokens are looked up.
        self._embeddings = (embeddings,)
        self.train(ordinary.training)

    def forward(self, states: Tensor) -> Tensor:
        """Logits over the vocabulary: [..., D] -> [..., V]."""
        found = self._embeddings[0].logits(states)
        return found if self.bias is None else found + self.bias

    def product(self) -> Tensor:
        """The embeddings' ordinary table: [V, D]."""
        return self._embeddings[0].product()

    def ordinary(self, weight: nn.Parameter) -> nn.Linear:
        """The head that this one replaces, with its weight."""
        made = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        made.weight = weight
        made.register_parameter("bias", self.bias)
        return made.train(self.training)

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.bias is not None:
            destination[f"{prefix}bias"] = self.bias if keep_vars else self.bias.detach()


def factorised(model: nn.Module) -> FactorisedEmbedding | None:
    """The factorised embeddings of a model, None where it has none."""
    return next((each for each in model.modules() if isinstance(each, FactorisedEmbedding)), None)


def save_factors(model: nn.Module, folder: str | Path) -> None:
    """Write the factors beside a checkpoint, for an exact resume; nothing for an ordinary model."""
    found = factorised(model)
    if found is not None:
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in _held(found).items()}
        save_file(held, Path(folder) / FACTORS_FILE)


def load_factors(model: nn.Module, folder: str | Path) -> None:
    """Read what `save_factors` wrote, before the checkpoint itself; nothing for an ordinary model.

    Raises:
        FileNotFoundError: The model is factorised, and the checkpoint holds no factors.
        ValueError: They have other shapes than the model's.
    """
    found = factorised(model)
    if found is None:
        return
    path = Path(folder) / FACTORS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint must hold {FACTORS_FILE}, got {str(folder)!r} without it. Resume from a "
            "checkpoint that DistillationTrainer or save_factors wrote."
        )
    held, read = _held(found), load_file(path)
    expected, got = (
        {name: tuple(each.shape) for name, each in one.items()} for one in (held, read)
    )
    if expected != got:
        raise ValueError(
            f"{FACTORS_FILE} must hold factors of the shapes {expected}, got {got}. Factorise the "
            "model as it was: the same rank and center."
        )
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(read[name])


def _held(module: FactorisedEmbedding) -> dict[str, Tensor]:
    """What a factorised embedding consists of, by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _equal(found: Any, product: Tensor) -> bool:
    """Whether something is the same table: shape, type, device and every number."""
    kinds = [(each.shape, each.dtype, each.device) for each in (found, product)]
    return kinds[0] == kinds[1] and torch.equal(found, product)


def _close(found: Tensor, product: Tensor) -> bool:
    """Whether a table is the product, up to what another machine may round otherwise."""
    if found.shape != product.shape:
        return False
    rough = torch.finfo(min(found.dtype, product.dtype, key=lambda kind: kind.itemsize)).eps
    difference = (found.to(product.device, torch.float64) - product.double()).abs().max()
    return bool(difference <= 16 * rough * product.abs().max())
