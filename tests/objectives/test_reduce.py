"""The one place where a loss is divided."""

from __future__ import annotations

import pytest
import torch

from hf_distill.objectives.reduce import masked_mean, mean_over_pairs


def test_mean_is_over_what_counts() -> None:
    """Dividing by all positions makes the loss a matter of padding."""
    values = torch.tensor([[1.0, 2.0, 30.0], [4.0, 50.0, 60.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert masked_mean(values, mask).item() == pytest.approx(7 / 3)


def test_values_that_do_not_count_may_be_anything() -> None:
    """NaN * 0 is NaN: a mask must choose, not multiply."""
    values = torch.tensor([1.0, float("nan"), float("inf")], requires_grad=True)
    loss = masked_mean(values, torch.tensor([True, False, False]))
    loss.backward()
    assert loss.item() == 1
    assert values.grad is not None
    assert values.grad.tolist() == [1, 0, 0]


def test_nothing_that_counts_gives_zero() -> None:
    """A micro-batch without labels gives 0 / 0."""
    values = torch.ones(3, requires_grad=True)
    loss = masked_mean(values, torch.zeros(3).bool())
    loss.backward()
    assert loss.item() == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [8, 8.0, torch.tensor(8)])
def test_global_count_replaces_the_batchs_own(count: torch.Tensor | float) -> None:
    """Means of micro-batches of different sizes do not add up to the mean."""
    assert masked_mean(torch.full((4,), 2.0), torch.ones(4).bool(), count).item() == 1


def test_global_count_of_zero_gives_zero() -> None:
    """No process has a label in this step."""
    assert masked_mean(torch.ones(2), torch.zeros(2).bool(), torch.tensor(0)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_wide(dtype: torch.dtype) -> None:
    """A float16 sum of 4000 values of 30 is inf; bfloat16 stops counting at 256."""
    mean = masked_mean(torch.full((4000,), 30.0, dtype=dtype), torch.ones(4000).bool())
    assert mean.dtype == torch.float32
    assert mean.item() == pytest.approx(30)


def test_wide_values_stay_wide() -> None:
    """Oracles compare in float64."""
    assert masked_mean(torch.ones(2).double(), torch.ones(2).bool()).dtype == torch.float64


def test_shapes_must_agree() -> None:
    """[B, 1] values broadcast against a [B, T] mask, and are counted T times."""
    with pytest.raises(ValueError, match=r"mask's shape \(2, 3\), got \(2, 1\)\. Return"):
        masked_mean(torch.ones(2, 1), torch.ones(2, 3).bool())


def test_pairs_are_averaged() -> None:
    """A sum over pairs grows with the number of mapped layers."""
    assert mean_over_pairs(iter([torch.ones(2), torch.full((2,), 3.0)])).tolist() == [2, 2]
    with pytest.raises(ValueError, match="pairs must hold at least one pair of layers"):
        mean_over_pairs([])
