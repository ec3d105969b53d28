"""The earth mover's mapping: plans of least cost."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linprog

from hf_distill.mapping import emd, flow, mean_layers, resolve
from tests.mapping.depths import quick

Matrix = Any


@st.composite
def costs(draw: st.DrawFn, largest: int = 9) -> Matrix:
    """Random matrices, whose best plan is one alone."""
    shape = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.normal(scale=draw(st.sampled_from([1e-6, 1.0, 1e6])), size=shape)


def _least_cost(cost: Matrix) -> float:
    """The least total cost by linear programming."""
    student, teacher = cost.shape
    rows, columns = np.kron(np.eye(student), np.ones(teacher)), np.tile(np.eye(teacher), student)
    mass = np.r_[np.full(student, 1 / student), np.full(teacher, 1 / teacher)]
    scale = np.abs(cost).max()
    done = linprog(cost.ravel() / scale, A_eq=np.r_[rows, columns], b_eq=mass, method="highs")
    assert done.status == 0
    return float(done.fun * scale)


def test_all_pairs_of_layers_are_transported() -> None:
    """A pair that is left out can never be chosen; layer 0 would be a layer with mass."""
    assert emd(2, 3) == ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3))
    assert emd(3, 2)[-1] == (3, 2)
    assert resolve("emd-7", 2, 3, embeddings=True) == emd(2, 3)


def test_pairs_stand_in_the_order_of_the_plan() -> None:
    """Weights in another order than the pairs belong to other layers."""
    plan = flow(np.random.default_rng(0).random((3, 5)))
    for (m, n), weight in zip(emd(3, 5), plan.ravel(), strict=True):
        assert weight == plan[m - 1, n - 1]


def test_embedding_outputs_are_not_transported() -> None:
    """Taking the ending and leaving the embeddings untaught would be silent."""
    with pytest.raises(ValueError, match=r"free of ':embeddings' for emd.*pair \(0, 0\)"):
        resolve("emd:embeddings", 2, 3, embeddings=True)


@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_are_positive_ints(steps: Any) -> None:
    """Every 0 steps is never, or a division by zero in the middle of training."""
    with pytest.raises(ValueError, match="steps must be a positive int, got"):
        emd(2, 3, steps)


def test_plans_worked_by_hand() -> None:
    """A plan by each row's cheapest layer, or transposed, has the right shape and wrong values."""
    assert_array_equal(flow([[1.0, 2.0], [1.0, 5.0]]), [[0, 0.5], [0.5, 0]])
    assert_array_equal(flow([[0.0, 0, 1, 1], [1, 1, 0, 0]]), np.repeat(np.eye(2), 2, 1) / 4)
    # Student layer 1 takes the cheap one; the middle layer is shared.
    assert_allclose(flow([[0.0, 1, 9], [9, 1, 0]]), [[1 / 3, 1 / 6, 0], [0, 1 / 6, 1 / 3]])
    assert_allclose(flow([[0.0, 9], [1, 1], [9, 0]]), [[1 / 3, 0], [1 / 6, 1 / 6], [0, 1 / 3]])
    assert_array_equal(flow([[3.0, 1, 2]]), np.full((1, 3), 1 / 3))
    assert_array_equal(flow([[7.0]]), [[1.0]])


def test_the_whole_is_cheapest_and_not_each_row() -> None:
    """Greedy rows give the first layer what the second needs more: 0 + 10 instead of 1 + 1."""
    assert_array_equal(flow([[0.0, 1.0], [1.0, 10.0]]), [[0, 0.5], [0.5, 0]])


@quick
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_equal_depths_are_the_best_permutation(depth: int, seed: int) -> None:
    """Mass that is spread where it need not be is a plan that costs more."""
    cost = np.random.default_rng(seed).normal(size=(depth, depth))
    rows = np.arange(depth)
    best = min(permutations(range(depth)), key=lambda found: cost[rows, list(found)].sum())
    expected = np.zeros((depth, depth))
    expected[rows, list(best)] = 1 / depth
    assert_array_equal(flow(cost), expected)


@quick
@given(costs())
def test_plans_are_optimal_and_keep_the_marginals(cost: Matrix) -> None:
    """Weights that do not add up change the loss's size; a solver's tolerance, its optimum."""
    plan = flow(cost)
    student, teacher = cost.shape
    assert plan.dtype == np.float64
    assert plan.shape == cost.shape
    assert plan.min() >= 0
    assert_allclose(plan.sum(1), 1 / student, rtol=0, atol=1e-9)
    assert_allclose(plan.sum(0), 1 / teacher, rtol=0, atol=1e-9)
    assert_allclose((plan * cost).sum(), _least_cost(cost), rtol=1e-9, atol=1e-9 * abs(cost).max())


@quick
@given(costs(), st.randoms(use_true_random=False))
def test_permuted_layers_have_permuted_plans(cost: Matrix, random: Any) -> None:
    """A plan that depends on where a layer stands mixes layers up."""
    rows, columns = (random.sample(range(size), size) for size in cost.shape)
    permuted = cost[rows][:, columns]
    assert_array_equal(flow(permuted), flow(cost)[rows][:, columns])
    assert_allclose(flow(cost.T), flow(cost).T, rtol=0, atol=1e-12)


@quick
@given(costs(), st.sampled_from([1e-12, 1e-3, 1e12]))
def test_scale_does_not_count(cost: Matrix, scale: float) -> None:
    """A tolerance that is absolute takes any plan for optimal once the losses are small."""
    assert_array_equal(flow(cost * scale), flow(cost))


@quick
@given(costs())
def test_the_same_costs_have_the_same_plan(cost: Matrix) -> None:
    """Processes that weigh layers differently train different students."""
    before = cost.copy()
    assert_array_equal(flow(cost), flow(cost.copy()))
    assert_array_equal(cost, before)


def test_ties_are_broken_alike_and_stay_a_plan() -> None:
    """Equal costs are what a student that is its teacher shows."""
    plan = flow(np.zeros((4, 6)))
    assert_array_equal(plan, flow(np.ones((4, 6))))
    assert_allclose(plan.sum(1), 1 / 4)
    assert_allclose(plan.sum(0), 1 / 6)


def test_integers_and_narrow_floats_are_costs() -> None:
    """Losses come in half precision."""
    cost = [[4, 1, 3], [2, 0, 5]]
    assert_array_equal(flow(np.array(cost, dtype=np.float16)), flow(np.array(cost, dtype=float)))
    assert flow(cost).dtype == np.float64


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ([1.0, 2.0], r"cost must be a matrix, got shape \(2,\)"),
        (np.zeros((2, 2, 2)), r"cost must be a matrix, got shape \(2, 2, 2\)"),
        (np.zeros((0, 3)), r"cost must be a matrix, got shape \(0, 3\)"),
        ([], r"cost must be a matrix, got shape \(0,\)"),
        (1.0, r"cost must be a matrix, got shape \(\)"),
        ([[1.0, np.nan]], r"cost must be finite, got .*nan"),
        ([[1.0, np.inf]], r"cost must be finite, got .*inf"),
        ([[1.0, 2.0], [3.0]], r"cost must be a matrix of numbers, got \[\[1"),
        ([["a", "b"]], r"cost must be a matrix of numbers"),
        (None, r"cost must be"),
    ],
)
def test_faulty_costs_are_refused(cost: Any, message: str) -> None:
    """A cost of NaN is silently the cheapest or the dearest."""
    with pytest.raises(ValueError, match=message):
        flow(cost)


def test_mean_layers_are_weighed_and_counted_from_one() -> None:
    """Counted from 0, a log shows every layer one below the one it learns from."""
    plan = [[1 / 3, 1 / 6, 0], [0, 1 / 6, 1 / 3]]
    assert_allclose(mean_layers(plan), [4 / 3, 8 / 3])
    assert_allclose(mean_layers(flow([[1.0, 0], [0, 1.0]])), [2, 1])
    assert_allclose(mean_layers(np.full((2, 4), 1 / 8)), [2.5, 2.5])


@pytest.mark.parametrize("plan", [[[0.0, 0.0], [0.5, 0.5]], [[-0.5, 1.0]], [[np.nan, 1.0]], [1.0]])
def test_faulty_plans_are_refused(plan: Any) -> None:
    """A row without mass divides by zero."""
    with pytest.raises(ValueError, match="plan must be"):
        mean_layers(plan)
