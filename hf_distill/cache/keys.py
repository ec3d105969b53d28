"""What tells one example from another: a digest of all that a teacher is given of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import torch
from torch import Tensor

from hf_distill.signals.head import Targets

_DECODER = "decoder_"
"""What the names of a decoder's inputs begin with."""


def example_keys(
    inputs: Mapping[str, Tensor], targets: Targets, columns: Iterable[str], *, rows: bool
) -> Tensor:
    """The key of each example of a batch, whatever it was padded to and however it was ordered.

    Args:
        inputs: The batch; of an encoder-decoder with `decoder_input_ids`.
        targets: What the batch says.
        columns: The inputs that the teacher reads.
        rows: Whether logits are kept: of a language model it matters then which tokens predict.

    Returns:
        [B, 2] int64: two halves of a digest of 128 bits.

    Raises:
        ValueError: An input is not a whole number for each token.
    """
    mask = targets.mask.cpu()
    kept = None if targets.kept is None else targets.kept.cpu()
    parts = {"mask": mask}
    if rows and kept is not None:
        parts["kept"] = kept
    for name in sorted(set(columns).intersection(inputs) - {"attention_mask"}):
        parts[name] = _checked(name, inputs[name].cpu(), kept if _of_decoder(name) else mask)
    # What comes after the last token that counts is padding, and depends on the batch.
    ends = [_end(mask), _end(mask if kept is None else kept)]
    digests = [blake2b(digest_size=16) for _ in mask]
    for name, values in parts.items():
        numbers = values.to(torch.int64).numpy()
        end = ends[_of_decoder(name) or name == "kept"]
        for digest, line, stop in zip(digests, numbers, end, strict=True):
            digest.update(f"{name}:{stop}:".encode())
            digest.update(line[:stop].tobytes())
    joined = b"".join(digest.digest() for digest in digests)
    return torch.frombuffer(bytearray(joined), dtype=torch.int64).view(-1, 2)


class Places:
    """Where examples stand, by their keys."""

    def __init__(self, keys: Tensor) -> None:
        """Of the examples' keys [N, 2], in the order of their places."""
        self._order = keys[:, 0].argsort(stable=True)
        self._keys = keys[self._order]
        self._halves = self._keys[:, 0].contiguous()

    def find(self, keys: Tensor) -> Tensor:
        """[B, 2] -> [B] int64: of equal examples the first, -1 for those that are not there."""
        if not len(self._keys):
            return torch.full((len(keys),), -1)
        at = torch.searchsorted(self._halves, keys[:, 0].contiguous())
        at = at.clamp(max=len(self._keys) - 1)
        found = (self._keys[at] == keys).all(-1)
        return self._order[at].masked_fill(~found, -1)


def _of_decoder(name: str) -> bool:
    return name.startswith(_DECODER)


def _end(mask: Tensor) -> list[int]:
    """One past the last place that counts, of each row."""
    places = torch.arange(1, mask.shape[1] + 1)
    ends: list[int] = (mask * places).amax(-1).tolist()
    return ends


def _checked(name: str, values: Tensor, like: Tensor | None) -> Tensor:
    if like is None or values.shape != like.shape or values.is_floating_point():
        raise ValueError(
            f"inputs of a cached teacher must be whole numbers, one for each token, got {name} of "
            f"{values.dtype} and shape {tuple(values.shape)}. Use the teacher without a cache."
        )
    return values
