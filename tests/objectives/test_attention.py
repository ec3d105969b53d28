"""Attention-map losses against plain loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import AttentionKL, AttentionMSE, AttentionScoresMSE, MiniLM
from hf_distill.objectives.attention import attention_kl, attention_mse, attention_scores_mse
from hf_distill.objectives.base import Objective, Shape
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

B, A, T = 2, 3, 4
MASKS = {
    "right": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
    "left": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]).bool(),
    "holes": torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]]).bool(),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


def maps(mask: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.randn(2, B, A, T, T, dtype=torch.float64)
    student, teacher = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    return student, teacher


def per_query(compare: Any, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """One real query and head at a time, over the real keys only."""
    values = torch.zeros(B, T, dtype=torch.float64)
    for b in range(B):
        real = mask[b].nonzero().flatten().tolist()
        for t in real:
            values[b, t] = oracles.mean(
                [
                    compare(
                        [student[b, a, t, k].item() for k in real],
                        [teacher[b, a, t, k].item() for k in real],
                    )
                    for a in range(A)
                ]
            )
    return values


@every_mask
def test_attention_mse_sums_over_real_keys(mask: Tensor) -> None:
    """A mean over all keys shrinks with the padding of the batch."""
    student, teacher = maps(mask)
    expected = per_query(oracles.squared_distance, student, teacher, mask)
    garbage = torch.where(mask[:, None, None], student, 0.7)
    torch.testing.assert_close(attention_mse(garbage, teacher, mask)[mask], expected[mask])


@every_mask
def test_attention_kl_takes_probabilities_as_they_are(mask: Tensor) -> None:
    """Softmax of probabilities is nearly uniform: the loss collapses a thousandfold."""
    student, teacher = maps(mask)
    expected = per_query(lambda s, t: oracles.kl(t, s), student, teacher, mask)
    garbage = torch.where(mask[:, None, None], student, 0.7)
    torch.testing.assert_close(attention_kl(garbage, teacher, mask)[mask], expected[mask])
    assert not torch.allclose(
        attention_kl(student, teacher, mask)[mask], attention_kl(teacher, student, mask)[mask]
    )


@every_mask
def test_attention_scores_mse_is_the_mean_over_real_keys(mask: Tensor) -> None:
    """Masked scores are hugely negative: one padded key outweighs all that is compared."""
    student, teacher = torch.randn(2, B, A, T, T, dtype=torch.float64)
    expected = per_query(
        lambda s, t: oracles.squared_distance(s, t) / len(s), student, teacher, mask
    )
    garbage = student.masked_fill(~mask[:, None, None], -1e9)
    torch.testing.assert_close(attention_scores_mse(garbage, teacher, mask)[mask], expected[mask])


def test_attention_by_hand() -> None:
    """Two heads that look at one key each; their mean looks at both alike."""
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[0.5, 0.5]], [[0.5, 0.5]]]])
    mask = torch.ones(1, 2).bool()
    assert attention_mse(student, teacher, mask).item() == 0.5
    assert attention_mse(student, teacher, mask, "mean").item() == 0
    assert attention_scores_mse(4 * student, 4 * teacher, mask).item() == 4
    assert attention_scores_mse(4 * student, 4 * teacher, mask, "mean").item() == 0
    assert attention_kl(teacher, student, mask).item() == pytest.approx(math.log(2))
    assert attention_kl(teacher, student, mask, "mean").item() == pytest.approx(0)


every_objective = pytest.mark.parametrize("kind", [AttentionMSE, AttentionKL, AttentionScoresMSE])


@every_objective
def test_mean_over_heads_compares_any_numbers_of_heads(kind: Any) -> None:
    """A mean of the heads' losses is no loss of the heads' mean, and needs as many heads."""
    objective = kind(heads="mean")
    objective.check(Shape(layers=2, width=8, heads=6), Shape(layers=4, width=16, heads=12))
    student = collate(batch((4, 2), 0, objective.needs, heads=2, width=8), garbage=3.0)
    teacher = collate(batch((4, 2), 9, objective.needs, heads=3, width=9), garbage=3.0)
    (signal,) = objective.needs
    mine, theirs = getattr(student, signal)[1], getattr(teacher, signal)[2]
    averaged = [
        torch.stack([side[:, head] for head in range(side.shape[1])]).sum(0) / side.shape[1]
        for side in (mine, theirs)
    ]
    compare = {
        AttentionMSE: attention_mse,
        AttentionKL: attention_kl,
        AttentionScoresMSE: attention_scores_mse,
    }[kind]
    expected = compare(*(side.unsqueeze(1) for side in averaged), student.mask)
    found = objective.forward(student, teacher, ((1, 2),))
    torch.testing.assert_close(found[student.mask], expected[student.mask])


@pytest.mark.parametrize("compare", [attention_mse, attention_kl, attention_scores_mse])
def test_mean_over_heads_is_wide(compare: Any) -> None:
    """A mean rounded to half precision has lost what tells it from the teacher's."""
    mask = MASKS["right"]
    student, teacher = (side.bfloat16() for side in maps(mask))
    exact = compare(student.double(), teacher.double(), mask, "mean")[mask]
    found = compare(student, teacher, mask, "mean")[mask]
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-6)


@every_objective
def test_heads_must_be_known(kind: Any) -> None:
    """An unknown choice that falls back to the other compares something else than was asked."""
    with pytest.raises(ValueError, match="heads must be one of each, mean, got 12"):
        kind(heads=12)


@pytest.mark.parametrize("heads", ["each", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_attention_kl_is_finite_where_probabilities_vanish(dtype: torch.dtype, heads: Any) -> None:
    """Half precision rounds small probabilities to 0, whose logarithm is -inf."""
    scores = torch.tensor([[0.0, -300.0, -9.0, -12.0], [-300.0, 0.0, -9.0, -12.0]])
    raw = scores.clone().requires_grad_()
    student = raw.softmax(-1).to(dtype)[None, None]
    teacher = scores.flip(0).softmax(-1).to(dtype)[None, None]
    loss = attention_kl(student, teacher, torch.ones(1, 4).bool(), heads).sum()
    loss.backward()
    assert loss.isfinite()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()
    assert loss > 1


@pytest.mark.parametrize("heads", ["each", "mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_attention_kl_gives_finite_gradients_to_vanishing_probabilities(
    dtype: torch.dtype, heads: Any
) -> None:
    """The logarithm's gradient, 1 / p, must fit the type of the maps: 65504 in float16."""
    student = torch.tensor([[[[1.0, 1e-7], [1e-40, 1.0]]]]).to(dtype).requires_grad_()
    teacher = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]).to(dtype)
    attention_kl(student, teacher, torch.ones(1, 2).bool(), heads).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    "objective", [AttentionMSE(), AttentionKL(), AttentionScoresMSE(), MiniLM()]
)
def test_different_head_counts_are_refused_before_the_first_step(objective: Objective) -> None:
    """Heads that are truncated or broadcast compare what does not belong together."""
    name = type(objective).__name__
    objective.check(Shape(layers=2, width=8, heads=4), Shape(layers=4, width=16, heads=4))
    with pytest.raises(ValueError, match=rf"must be the teacher's 12 for {name}, got 6\. Build"):
        objective.check(Shape(layers=2, width=8, heads=6), Shape(layers=4, width=16, heads=12))


@pytest.mark.parametrize("compare", [attention_mse, attention_kl, attention_scores_mse])
def test_one_head_does_not_broadcast(compare: Any) -> None:
    """A single head would be compared with each of the teacher's."""
    student, teacher = maps(MASKS["right"])
    with pytest.raises(ValueError, match="target must have the student's shape"):
        compare(student[:, :1], teacher, MASKS["right"])
