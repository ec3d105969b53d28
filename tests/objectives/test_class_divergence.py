"""Divergences of class distributions against plain loops, numbers by hand, and what top_k keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import (
    JensenShannon,
    KLDivergence,
    ReverseKL,
    SkewedKL,
    TotalVariation,
)
from hf_distill.objectives.class_divergence import (
    ClassDivergence,
    jensen_shannon,
    kl_divergence,
    reverse_kl,
    skewed_kl,
    soft_cross_entropy,
    symmetric_kl,
    total_variation,
)
from hf_distill.objectives.prediction import softened
from hf_distill.objectives.schedule import Schedule
from hf_distill.signals.signals import PADDING_LOGIT, Signals
from tests.objectives import oracles

ROWS, CLASSES = 4, 6
Numbers = Sequence[float]


def mixed(teacher: Numbers, student: Numbers, share: float) -> list[float]:
    return [share * p + (1 - share) * q for p, q in zip(teacher, student, strict=True)]


def js(teacher: Numbers, student: Numbers, beta: float) -> float:
    middle = mixed(teacher, student, beta)
    return beta * oracles.kl(teacher, middle) + (1 - beta) * oracles.kl(student, middle)


# Each as (function, the same of probabilities of teacher and student, power of T).
CASES: dict[str, tuple[Callable[..., Tensor], Callable[[Numbers, Numbers], float], int]] = {
    "KLDivergence": (kl_divergence, oracles.kl, 2),
    "SoftCrossEntropy": (
        soft_cross_entropy,
        lambda t, s: -sum(p * math.log(q) for p, q in zip(t, s, strict=True) if p),
        2,
    ),
    "ReverseKL": (reverse_kl, lambda t, s: oracles.kl(s, t), 2),
    "SymmetricKL": (symmetric_kl, lambda t, s: oracles.kl(t, s) + oracles.kl(s, t), 2),
    "SkewedKL": (skewed_kl, lambda t, s: oracles.kl(t, mixed(t, s, 0.1)), 2),
    "JensenShannon": (jensen_shannon, lambda t, s: js(t, s, 0.5), 2),
    "TotalVariation": (
        total_variation,
        lambda t, s: sum(abs(p - q) for p, q in zip(t, s, strict=True)) / 2,
        1,
    ),
}
every_case = pytest.mark.parametrize(("compare", "oracle", "power"), CASES.values(), ids=CASES)
every_distance = pytest.mark.parametrize(
    ("compare", "oracle", "power"),
    [case for name, case in CASES.items() if name != "SoftCrossEntropy"],
    ids=[name for name in CASES if name != "SoftCrossEntropy"],
)


def logits() -> tuple[Tensor, Tensor]:
    student, teacher = torch.randn(2, ROWS, CLASSES, dtype=torch.float64) * 2
    return student, teacher


def chances(row: Tensor, temperature: float) -> list[float]:
    return oracles.softmax([x / temperature for x in row.tolist()])


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_cases_hold_every_divergence() -> None:
    """A divergence that is added without a case here would be compared with nothing."""
    assert {kind.__name__ for kind in ClassDivergence.__subclasses__()} == set(CASES)


@every_case
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_is_the_loop(compare: Any, oracle: Any, power: int, temperature: float) -> None:
    """The other direction, a softmax twice, a wrong power of T: all train, towards other things."""
    student, teacher = logits()
    expected = [
        temperature**power * oracle(chances(t, temperature), chances(s, temperature))
        for s, t in zip(student, teacher, strict=True)
    ]
    found = compare(student, teacher, temperature)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


BY_HAND: list[tuple[Any, float]] = [
    (kl_divergence, math.log(4 / 3) / 2),
    (reverse_kl, 3 / 4 * math.log(3 / 2) - math.log(2) / 4),
    (symmetric_kl, math.log(3) / 4),
    (skewed_kl, (math.log(20 / 29) + math.log(20 / 11)) / 2),
    (
        jensen_shannon,
        (math.log(16 / 15) / 2 + 3 / 4 * math.log(6 / 5) + math.log(2 / 3) / 4) / 2,
    ),
    (total_variation, 1 / 4),
    (soft_cross_entropy, math.log(16 / 3) / 2),
]


@pytest.mark.parametrize(("compare", "expected"), BY_HAND)
def test_divergence_by_hand(compare: Any, expected: float) -> None:
    """An oracle may share the mistake of what it checks; numbers worked out by hand do not."""
    student, teacher = log(3 / 4, 1 / 4), log(1 / 2, 1 / 2)
    assert compare(student, teacher, 1.0).item() == pytest.approx(expected, rel=1e-12)
    # Logits are free by a constant, and T times the logits at temperature T say the same.
    power = 1 if compare is total_variation else 2
    found = compare(3 * student + 7, 3 * teacher - 5, 3.0).item()
    assert found == pytest.approx(3**power * expected, rel=1e-12)


@every_case
def test_gradient_keeps_its_size_at_high_temperature(compare: Any, oracle: Any, power: int) -> None:
    """Without the power of T the soft term fades, with one too many it rules the gold term."""
    student, teacher = logits()
    student.requires_grad_()
    near, far = (
        torch.autograd.grad(compare(student, teacher, temperature).sum(), student)[0]
        for temperature in (50.0, 500.0)
    )
    size = far.norm()
    torch.testing.assert_close(near / size, far / size, rtol=0.2, atol=0.02)
    assert size > 0.1


def test_directions_of_kl_differ() -> None:
    """PyTorch's argument order invites the reverse KL: it drops the teacher's small classes."""
    student, teacher = log(0.98, 0.01, 0.01), log(0.5, 0.49, 0.01)
    forward, reverse = kl_divergence(student, teacher, 1.0), reverse_kl(student, teacher, 1.0)
    # The student misses a class of the teacher: the forward KL is the one that punishes it.
    assert forward.item() > 2 * reverse.item()
    torch.testing.assert_close(reverse, kl_divergence(teacher, student, 1.0))


def test_skewed_kl_lies_between_nothing_and_kl() -> None:
    """The student's share on the teacher gives a loss of almost 0."""
    student, teacher = logits()
    plain = kl_divergence(student, teacher, 1.0)
    skews = [skewed_kl(student, teacher, 1.0, skew=skew) for skew in (1e-9, 0.1, 0.5, 1 - 1e-9)]
    torch.testing.assert_close(skews[0], plain, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(skews[-1], torch.zeros_like(plain), rtol=0, atol=1e-6)
    assert (skews[0] > skews[1]).all()
    assert (skews[1] > skews[2]).all()


def test_jensen_shannon_leads_from_kl_to_reverse_kl() -> None:
    """With the weights of the two parts exchanged beta turns the other way."""
    student, teacher = logits()
    low, high = (jensen_shannon(student, teacher, 1.0, beta=beta) for beta in (1e-6, 1 - 1e-6))
    torch.testing.assert_close(low / 1e-6, kl_divergence(student, teacher, 1.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(high / 1e-6, reverse_kl(student, teacher, 1.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("top_k", [None, 1])
def test_bounded_divergences_stay_bounded(top_k: int | None) -> None:
    """One row in which the student is sure and wrong rules the step's gradient otherwise."""
    student = torch.tensor([[1000.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 1000.0, 0.0]])
    assert kl_divergence(student, teacher, 1.0, top_k).item() == pytest.approx(1000)
    bounded = (
        skewed_kl(student, teacher, 2.0, top_k, skew=0.1) / -math.log(0.1) / 4,
        jensen_shannon(student, teacher, 2.0, top_k) / math.log(2) / 4,
        total_variation(student, teacher, 2.0, top_k) / 2,
    )
    for value in bounded:
        assert value.item() == pytest.approx(1.0)


def rest_merged(teacher: Numbers, student: Numbers, k: int) -> tuple[list[float], list[float]]:
    """The teacher's k largest classes, and one class of all others."""
    kept = sorted(range(len(teacher)), key=lambda at: -teacher[at])[:k]
    others = [at for at in range(len(teacher)) if at not in kept]
    merged = [
        [*(side[at] for at in kept), sum(side[at] for at in others)] for side in (teacher, student)
    ]
    return merged[0], merged[1]


@every_case
@pytest.mark.parametrize("top_k", [1, 2, CLASSES - 1])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_top_k_is_the_loop_over_merged_classes(
    compare: Any, oracle: Any, power: int, top_k: int, temperature: float
) -> None:
    """Renormalising the k, the student's k, or no rest at all: three other losses of that name."""
    student, teacher = logits()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        merged = rest_merged(chances(t, temperature), chances(s, temperature), top_k)
        expected.append(temperature**power * oracle(*merged))
    found = compare(student, teacher, temperature, top_k)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_top_k_by_hand() -> None:
    """The rest on one side only would be left over as a constant offset."""
    student, teacher = log(1 / 8, 1 / 8, 1 / 4, 1 / 2), log(1 / 2, 1 / 4, 1 / 8, 1 / 8)
    # 1/2 against 1/8, and the rests 1/2 against 7/8.
    expected = (math.log(4) + math.log(4 / 7)) / 2
    assert kl_divergence(student, teacher, 1.0, 1).item() == pytest.approx(expected, rel=1e-12)
    assert total_variation(student, teacher, 1.0, 1).item() == pytest.approx(3 / 8, rel=1e-12)


@every_distance
def test_top_k_never_exceeds_all_classes(compare: Any, oracle: Any, power: int) -> None:
    """Merging outcomes only loses differences: what is above is no divergence of these."""
    for scale in (0.01, 1.0, 30.0):
        student, teacher = torch.randn(2, 50, CLASSES, dtype=torch.float64) * scale
        values = [compare(student, teacher, 2.0, k) for k in (*range(1, CLASSES), None)]
        for smaller, larger in pairwise(values):
            assert (smaller <= larger + 1e-12).all()
            assert (smaller >= -1e-15).all()


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("real", [3, CLASSES])
def test_top_k_of_all_real_classes_is_all_classes(
    compare: Any, oracle: Any, power: int, real: int, dtype: torch.dtype
) -> None:
    """The rest is empty then: log(0) on both sides, whose difference is NaN."""
    student, teacher = (side.to(dtype) for side in logits())
    for side in (student, teacher):
        side[:, real:] = PADDING_LOGIT
    student.requires_grad_()
    expected = compare(student, teacher, 2.0)
    wanted = torch.autograd.grad(expected.sum(), student)[0]
    for top_k in (real, real + 1, CLASSES, CLASSES + 1, 1000):
        found = compare(student, teacher, 2.0, top_k)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), student)[0], wanted)


@every_case
@pytest.mark.parametrize("top_k", [1, 2])
def test_top_k_is_finite_where_the_rest_is_next_to_nothing(
    compare: Any, oracle: Any, power: int, top_k: int
) -> None:
    """log(1 - sum of the k) is log(0) as soon as the teacher is sure."""
    student = torch.tensor([[0.0, 5.0, -3.0, 1e4], [1e4, 0.0, -1e4, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1e4, 5e3, -1e4, 0.0], [1e4, -1e4, 0.0, 0.0]])
    found = compare(student, teacher, 1.0, top_k)
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), student)[0].isfinite().all()


def test_top_k_keeps_the_small_rests_digits() -> None:
    """In float32 1 - p has no digits left where the rest is 1e-9: its logarithm is noise."""
    student, teacher = torch.tensor([[20.0, 0.0, -1.0]]), torch.tensor([[22.0, 0.0, 1.0]])
    exact = softened(student.double(), teacher.double(), 1.0, 1)
    for found, wide in zip(softened(student, teacher, 1.0, 1), exact, strict=True):
        assert wide[0, 1] < -19
        torch.testing.assert_close(found[0, 1].double(), wide[0, 1], rtol=1e-6, atol=0)


@every_case
def test_top_k_moves_the_rest_as_one(compare: Any, oracle: Any, power: int) -> None:
    """The rest has one mass to teach: among its classes the student keeps its own proportions."""
    student, teacher = logits()
    student.requires_grad_()
    gradient = torch.autograd.grad(compare(student, teacher, 1.0, 2).sum(), student)[0]
    kept = teacher.topk(2, -1).indices
    rest = student.detach().softmax(-1).scatter(-1, kept, 0)
    proportions = gradient.scatter(-1, kept, 0) / rest
    for row in range(ROWS):
        found = proportions[row][rest[row] > 0]
        torch.testing.assert_close(found, found[:1].expand_as(found))
        assert (found != 0).all()


@pytest.mark.parametrize("rows", [0, 3])
def test_vocabularies(rows: int) -> None:
    """Rows of a language model are [N, V], and a batch may have none of them."""
    student = torch.randn(rows, 30522, requires_grad=True)
    teacher = torch.randn(rows, 30522, dtype=torch.float16) * 5
    mask = torch.ones(rows, dtype=torch.bool)
    signals = Signals(mask=torch.ones(2, 5).bool(), logits=student, rows=mask)
    values = KLDivergence(top_k=64).forward(signals, Signals(signals.mask, logits=teacher), ())
    assert values.shape == (rows,)
    assert (values <= kl_divergence(student, teacher)).all()
    values.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_settings_reach_the_mathematics() -> None:
    """A setting that is accepted and not handed on is a hyper-parameter that does nothing."""
    student, teacher = logits()
    rows = torch.ones(ROWS).bool()
    mine = Signals(torch.ones(ROWS, 2).bool(), logits=student, rows=rows)
    shown = Signals(mine.mask, logits=teacher)
    expected = {
        KLDivergence(3.0, 2): kl_divergence(student, teacher, 3.0, 2),
        ReverseKL(3.0, 2): reverse_kl(student, teacher, 3.0, 2),
        SkewedKL(3.0, 2, 0.4): skewed_kl(student, teacher, 3.0, 2, 0.4),
        JensenShannon(3.0, 2, 0.2): jensen_shannon(student, teacher, 3.0, 2, 0.2),
        TotalVariation(3.0, 2): total_variation(student, teacher, 3.0, 2),
    }
    for objective, values in expected.items():
        torch.testing.assert_close(objective.forward(mine, shown, ()), values)


def test_settings_may_be_scheduled() -> None:
    """A schedule that is read at its start only is a constant under another name."""
    objective = JensenShannon(temperature=Schedule(4.0, 1.0), beta=Schedule(0.2, 0.8))
    assert objective.at(0.5) == JensenShannon(temperature=2.5, beta=0.5)


@pytest.mark.parametrize("kind", ClassDivergence.__subclasses__())
@pytest.mark.parametrize("value", [0, -3, 2.0, True, "64"])
def test_top_k_must_be_a_whole_number(kind: Any, value: Any) -> None:
    """topk(0) keeps the rest alone: a loss of 0 for every student."""
    with pytest.raises(ValueError, match=r"top_k must be a whole number >= 1 or None, got"):
        kind(top_k=value)


@pytest.mark.parametrize("value", [0, 1, 1.5, math.nan, "0.1", Schedule(0.1, 1.0)])
def test_shares_lie_within_0_and_1(value: Any) -> None:
    """At 0 and 1 the mixture is one of the sides: the loss is 0, or has another name."""
    with pytest.raises(ValueError, match=r"skew must be a number > 0 and < 1, got .*\. Take KLDiv"):
        SkewedKL(skew=value)
    with pytest.raises(ValueError, match=r"beta must be a number > 0 and < 1, got .*\. Take KLDiv"):
        JensenShannon(beta=value)
