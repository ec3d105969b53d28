"""Encodings: exact, in half, in a byte, or the likeliest classes alone; and what that costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hf_distill.cache.encoding import Error, Storage, decode, decode_top, encode, encode_top, error

TINY = torch.finfo(torch.float32).tiny


def rows(count: int = 40, width: int = 16, scale: float = 1.0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(3)) * scale


def test_float32_is_exact() -> None:
    """A storage that is called exact and rounds makes cached training another one."""
    found = decode(encode(rows(), "float32"))
    assert found.dtype == torch.float32
    assert torch.equal(found, rows())
    narrow = rows().bfloat16()
    assert torch.equal(decode(encode(narrow, "float32")), narrow.float())


def test_bfloat16_rounds_to_nearest() -> None:
    """Truncated bits lean towards 0: every stored state is a little too small."""
    parts = encode(rows(), "bfloat16")
    assert {name: each.dtype for name, each in parts.items()} == {"": torch.bfloat16}
    found = decode(parts).float()
    assert ((found - rows()).abs() <= rows().abs() * 2**-8).all()
    assert abs((found - rows()).sign().sum()) < rows().numel() / 4


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-42, 1e-38, 1e-30, 1e30, 1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_int8_is_within_half_a_step_of_each_row(scale: float, dtype: torch.dtype) -> None:
    """One scale for all rows leaves small rows at 0; a scale of 0 makes a row of zeros NaN."""
    given = rows(scale=scale).clamp(-3e38, 3e38).to(dtype).float()
    given[3] = 0
    given[5] *= 1e-4
    parts = encode(given, "int8")
    assert parts[""].dtype == torch.int8
    # What is divided by 0 is no number, and as a byte whatever the device makes of it.
    assert (parts["scale"] > 0).all()
    assert parts[""].abs().max() <= 127
    found = decode(parts)
    assert found.isfinite().all()
    for index, row in enumerate(given.double()):
        step = max(row.abs().max().item() / 127, TINY)
        lost = (found[index].double() - row).abs().max().item()
        assert lost <= step / 2 * (1 + 1e-5), index
    assert (found[3] == 0).all()


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("count", [1, 3, 16])
def test_kept_classes_keep_their_probabilities(storage: Storage, count: int) -> None:
    """Without the rest's mass the kept classes share 1: the teacher looks far more certain."""
    logits = rows(scale=2.0)
    parts = encode_top(logits, count, storage)
    found = decode_top(parts, 16)
    assert found.shape == logits.shape
    tolerance = {"float32": 1e-6, "bfloat16": 0.05, "int8": 0.05}[storage]
    for index, row in enumerate(logits.tolist()):
        total = sum(map(math.exp, row))
        exact = [math.exp(one) / total for one in row]
        told = found[index].double().softmax(-1).tolist()
        kept = sorted(range(16), key=lambda c: -row[c])[:count]
        for each in kept:
            assert told[each] == pytest.approx(exact[each], abs=tolerance), index
        rest = 1 - sum(exact[each] for each in kept)
        others = [told[each] for each in range(16) if each not in kept]
        assert sum(others) == pytest.approx(rest, abs=tolerance)
        if others:
            assert max(others) == pytest.approx(min(others))
    if storage == "float32" and count == 16:
        torch.testing.assert_close(found, logits, rtol=0, atol=0)


def test_top_of_large_and_equal_logits() -> None:
    """An exponential that overflows makes the rest inf, and with it the row."""
    logits = torch.stack([torch.full((6,), 3e4), torch.tensor([-3e4, 0, 0, 3e4, 1, 1])])
    for count in (1, 2, 6):
        found = decode_top(encode_top(logits, count, "float32"), 6)
        assert found.isfinite().all()
        torch.testing.assert_close(found.softmax(-1), logits.softmax(-1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_errors_are_those_of_the_loop(storage: Storage) -> None:
    """What a user decides by is measured: a number of half the rows, or of the decoded alone."""
    given = rows()
    parts = encode(given, storage)
    lost = whole = 0.0
    for mine, theirs in zip(given.tolist(), decode(parts).float().tolist(), strict=True):
        for exact, stored in zip(mine, theirs, strict=True):
            lost += (exact - stored) ** 2
            whole += exact**2
    found = error(given, parts)
    assert found == pytest.approx((lost, whole), rel=1e-9)
    assert found.relative == pytest.approx(math.sqrt(lost / whole))
    assert (found.relative > 0) == (storage != "float32")


def test_errors_of_the_likeliest_are_divergences() -> None:
    """Squares of logits say nothing of what a distribution lost."""
    given = rows(scale=2.0)
    parts = encode_top(given, 3, "bfloat16")
    told = decode_top(parts, 16).double().log_softmax(-1).tolist()
    lost = 0.0
    for row, kept in zip(given.double().log_softmax(-1).tolist(), told, strict=True):
        for exact, stored in zip(row, kept, strict=True):
            lost += math.exp(exact) * (exact - stored)
    found = error(given, parts)
    assert found == pytest.approx((lost, 40.0))
    assert found.nats == pytest.approx(lost / 40)
    assert found.nats > 0


def test_errors_add_up() -> None:
    """A mean of means weighs the shards alike, however many rows they hold."""
    given = rows()
    parts = [encode(half, "int8") for half in (given[:10], given[10:])]
    both = error(given[:10], parts[0]).plus(error(given[10:], parts[1]))
    assert both == pytest.approx(error(given, encode(given, "int8")))
    assert Error().relative == Error().nats == 0
