"""Bounds of mutual information, against literal double loops and known values."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_distill.objectives import NWJ, TUBA, InfoNCE, JensenShannonMI, MIAlpha
from hf_distill.objectives.bounds import jensen_shannon, mutual_information, tuba
from hf_distill.objectives.critic import Critic
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals.signals import Scores, Signals

ALPHAS = (0.01, 0.1, 0.5, 0.9, 0.99)


def square(matrix: Tensor, baseline: Tensor | None = None) -> Scores:
    """Scores of a batch with itself: the diagonal belongs together."""
    real = ~torch.eye(len(matrix), dtype=torch.bool)
    zero = torch.zeros(len(matrix), dtype=matrix.dtype)
    return Scores(matrix.diagonal(), matrix, real, zero if baseline is None else baseline)


def random_scores(size: int = 6, seed: int = 0, scale: float = 1.0) -> Scores:
    make = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, generator=make, dtype=torch.float64) * scale
    return square(matrix, torch.randn(size, generator=make, dtype=torch.float64))


def literal(scores: Scores, row: int, alpha: float) -> float:
    """I_alpha of one row, as it is written: every other unit held out in turn."""
    matrix = scores.negative.tolist()
    size, q = len(matrix), math.exp(scores.baseline[row])
    others = [j for j in range(size) if j != row]
    joint = marginal = 0.0
    for held_out in others:
        inside = [math.exp(matrix[row][j]) for j in range(size) if j != held_out]
        a = alpha * sum(inside) / len(inside) + (1 - alpha) * q
        joint += (matrix[row][row] - math.log(a)) / len(others)
    # The product of the marginals: the unit held out is the own one, each other is a sample.
    inside = [math.exp(matrix[row][j]) for j in others]
    a = alpha * sum(inside) / len(inside) + (1 - alpha) * q
    for other in others:
        marginal += math.exp(matrix[row][other]) / a / len(others)
    return 1 + joint - marginal


@pytest.mark.parametrize("alpha", [0.0, *ALPHAS, 1.0])
def test_closed_form_is_the_literal_double_loop(alpha: float) -> None:
    """The published code subtracts sums of exponentials: it loses all digits at 15 nats."""
    scores = random_scores()
    found = mutual_information(scores, alpha, exact=True)
    for row in range(6):
        assert found[row].item() == pytest.approx(literal(scores, row, alpha), abs=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_fast_form_is_near_the_exact_one(alpha: float) -> None:
    """A fast form with another count of candidates is biased by a constant nobody sees."""
    for seed in range(5):
        scores = random_scores(64, seed)
        fast = mutual_information(scores, alpha).mean()
        exact = mutual_information(scores, alpha, exact=True).mean()
        assert abs(fast - exact) < 0.03


def test_alpha_1_is_infonce() -> None:
    """Alpha the wrong way round swaps the low-variance bound for the diverging one."""
    scores = random_scores()
    expected = math.log(6) + scores.negative.log_softmax(-1).diagonal()
    torch.testing.assert_close(mutual_information(scores, 1.0), expected)


def test_alpha_0_is_tuba_and_with_baseline_e_nwj() -> None:
    """The docstring of the published code states the opposite ends."""
    scores = random_scores()
    torch.testing.assert_close(mutual_information(scores, 0.0), tuba(scores, clamp=None))
    nwj = replace(scores, baseline=torch.ones_like(scores.baseline))
    off = scores.negative.exp().masked_fill(~scores.real, 0).sum(-1) / 5
    expected = scores.positive - off / math.e
    torch.testing.assert_close(tuba(nwj, clamp=None), expected)


def test_nwj_has_the_baseline_e() -> None:
    """With another baseline it is still a bound, and still trains: a looser one of no name."""
    scores = random_scores()
    student = Signals(torch.ones(len(scores.positive), 1).bool(), scores={(1, 1): scores})
    off = scores.negative.exp().masked_fill(~scores.real, 0).sum(-1) / 5
    found = NWJ(clamp=80.0).forward(student, student, ((1, 1),))
    torch.testing.assert_close(found, off / math.e - scores.positive)


def test_alpha_near_its_ends_is_what_it_is_at_them() -> None:
    """Log 0 at an end makes the bound jump, or NaN, just before it."""
    scores = random_scores()
    for end, near in ((1.0, 1 - 1e-9), (0.0, 1e-9)):
        torch.testing.assert_close(
            mutual_information(scores, near, exact=True),
            mutual_information(scores, end, exact=True),
            rtol=0,
            atol=1e-6,
        )


def test_jensen_shannon_by_hand() -> None:
    """With the signs swapped the critic learns to tell nothing apart."""
    scores = square(torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64))
    expected = -math.log1p(math.exp(-2.0)) - math.log1p(math.exp(-1.0))
    assert jensen_shannon(scores)[0].item() == pytest.approx(expected)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("alpha", [*ALPHAS, 1.0])
def test_caps(alpha: float, exact: bool) -> None:
    """A value above its cap is no lower bound: the count of candidates is wrong."""
    apart = 2000 * torch.eye(32, dtype=torch.float64) - 1000
    value = mutual_information(square(apart), alpha, exact).mean().item()
    count = 31 if exact else 32
    cap = math.log(count) if alpha == 1 else 1 + math.log(count / alpha)
    assert value == pytest.approx(cap, abs=1e-6)


@pytest.mark.parametrize("margin", [15.0, 17.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.5, 1.0])
def test_a_leading_positive_stays_finite(alpha: float, dtype: torch.dtype, margin: float) -> None:
    """log(exp(sum) - exp(part)) is inf from 17 nats on in float32."""
    matrix = (margin * torch.eye(8)).to(dtype).requires_grad_()
    for exact in (False, True):
        value = mutual_information(square(matrix), alpha, exact).sum()
        assert value.isfinite()
        (gradient,) = torch.autograd.grad(value, matrix, retain_graph=True)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "objective", [InfoNCE(), NWJ(), TUBA(), JensenShannonMI(), MIAlpha(alpha=0.01)], ids=repr
)
@pytest.mark.parametrize("scale", [100.0, -100.0, 1e4, -1e4])
@pytest.mark.parametrize("column", [0, 1], ids=["positive", "negative"])
def test_no_critic_makes_a_loss_infinite(objective: Any, column: int, scale: float) -> None:
    """One negative far above its positive has an exponential that no float holds."""
    matrix = (scale * torch.eye(8).roll(column, 1)).requires_grad_()
    student = Signals(torch.ones(8, 1, dtype=torch.bool), scores={(1, 1): square(matrix)})
    loss = objective.forward(student, student, ((1, 1),)).sum()
    (gradient,) = torch.autograd.grad(loss, matrix)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def correlated(nats: float, size: int, make: torch.Generator) -> Tensor:
    """Scores of the best critic, log p(y|x) / p(y), of 20-dimensional correlated Gaussians."""
    rho = math.sqrt(1 - math.exp(-2 * nats / 20))
    x, noise = torch.randn(2, size, 20, generator=make, dtype=torch.float64)
    y = rho * x + math.sqrt(1 - rho**2) * noise
    log_conditional = -((y - rho * x[:, None]) ** 2) / (2 * (1 - rho**2)) + nats / 20
    return (log_conditional + y**2 / 2).sum(-1)


@pytest.mark.parametrize(
    ("nats", "alpha", "expected"),
    [(2, 1.0, 1.82), (6, 1.0, 3.74), (10, 1.0, 4.12), (6, 0.5, 4.58), (6, 0.1, 5.28)],
)
def test_correlated_gaussians(nats: float, alpha: float, expected: float) -> None:
    """Known information, batches of 64: a bound with a wrong constant misses by tenths of a nat."""
    make = torch.Generator().manual_seed(0)
    batches = [square(correlated(nats, 64, make)) for _ in range(200)]
    found = sum(mutual_information(batch, alpha).mean().item() for batch in batches) / 200
    assert found == pytest.approx(expected, abs=0.1)


def test_independent_states_share_nothing() -> None:
    """A bound that is positive for independent states rewards the critic for nothing."""
    make = torch.Generator().manual_seed(0)
    for alpha in (0.1, 0.9, 1.0):
        values = [
            mutual_information(square(torch.randn(64, 64, generator=make)), alpha).mean()
            for _ in range(50)
        ]
        assert torch.stack(values).mean() < 0


def test_smaller_alpha_is_tighter() -> None:
    """Monotone with the best critic: else the mixture of the two means is upside down."""
    make = torch.Generator().manual_seed(0)
    scores = square(correlated(6, 64, make))
    values = [mutual_information(scores, alpha).mean() for alpha in (0.01, 0.1, 0.5, 0.9, 1.0)]
    assert values == sorted(values, reverse=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(0, 5), st.integers(0, 1000), st.sampled_from(ALPHAS))
def test_candidates_that_are_not_real_change_nothing(
    size: int, extra: int, seed: int, alpha: float
) -> None:
    """A padded or empty place of the queue that counts is an easy negative: the bound is false."""
    scores = random_scores(size, seed)
    garbage = torch.full((size, extra), 50.0, dtype=torch.float64)
    padded = replace(
        scores,
        negative=torch.cat([garbage, scores.negative], -1),
        real=torch.cat([garbage < 0, scores.real], -1),
    )
    for exact in (False, True):
        torch.testing.assert_close(
            mutual_information(padded, alpha, exact), mutual_information(scores, alpha, exact)
        )
    torch.testing.assert_close(tuba(padded), tuba(scores))
    torch.testing.assert_close(jensen_shannon(padded), jensen_shannon(scores))


def test_a_batch_of_one_gives_nothing() -> None:
    """Without any negative the mean over none is NaN, in the last batch of an epoch."""
    matrix = torch.zeros(1, 1, requires_grad=True)
    for bound in (lambda s: mutual_information(s, 0.9, exact=True), tuba, jensen_shannon):
        value = bound(square(matrix))
        assert value.item() == 0
        assert torch.autograd.grad(value.sum(), matrix)[0].item() == 0


def test_settings() -> None:
    """A critic out of YAML is a mapping: unread, the default would be trained without a word."""
    made = MIAlpha(critic={"queue": 64, "pooling": "tokens"}, temperature=Schedule(1.0, 0.1))
    assert made.critic == Critic(queue=64, pooling="tokens")
    assert made.unit == "token"
    assert made.at(1.0).temperature == pytest.approx(0.1)
    assert made.settings()["critic"]["queue"] == 64


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (MIAlpha, {"alpha": 0}, "alpha must be a number > 0 and <= 1, got 0"),
        (MIAlpha, {"exact": "yes"}, "exact must be true or false, got 'yes'"),
        (NWJ, {"clamp": 0}, "clamp must be a number > 0 and <= 80, got 0"),
        (InfoNCE, {"temperature": 0}, "temperature must be a finite number > 0, got 0"),
        (InfoNCE, {"temperature": Schedule(1.0, 0.0)}, "temperature must be .* > 0, got Schedule"),
        (InfoNCE, {"critic": {"kinds": "mlp"}}, r"critic must hold only .*, got \['kinds'\]"),
        (InfoNCE, {"critic": {"kind": "concat"}}, "kind of a critic must be one of separable"),
        (InfoNCE, {"critic": {"queue": -1}}, "queue of a critic must be a whole number >= 0"),
        (InfoNCE, {"critic": {"queue": 8, "gather": False}}, "gather of a critic must be true"),
        (InfoNCE, {"critic": {"normalize": 1}}, "normalize of a critic must be true or false"),
    ],
)
def test_settings_out_of_range(kind: Any, given: dict[str, Any], told: str) -> None:
    """Alpha 0 without a clamp diverges; a critic of another name would be the default one."""
    with pytest.raises(ValueError, match=told):
        kind(**given)
