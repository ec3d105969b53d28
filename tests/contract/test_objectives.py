"""What every objective of the catalogue promises."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import yaml

from hf_distill import objectives
from hf_distill.objectives.base import Objective
from hf_distill.signals.signals import LAYERED, Signals
from tests.contract.smallest import SMALLEST, VARIANTS
from tests.objectives.examples import (
    SAME,
    Sentence,
    batch,
    cast,
    collate,
    loss_of,
    masked_out,
    tracked,
    values_of,
)

LENGTHS = (5, 3, 4)


def build(name: str, arguments: dict[str, Any] | None = None) -> Objective:
    made = getattr(objectives, name)(**SMALLEST[name] if arguments is None else arguments)
    assert isinstance(made, Objective)
    return made


def _objectives() -> list[tuple[str, Objective]]:
    """Name, with what sets a variant apart, and objective."""
    built = [(name, build(name)) for name in objectives.__all__]
    for name in objectives.__all__:
        for arguments in VARIANTS.get(name, []):
            said = ",".join(f"{setting}={value}" for setting, value in arguments.items())
            built.append((f"{name}({said})", build(name, arguments)))
    return built


def _cases() -> list[Any]:
    """Every objective with every problem and head that it can meet."""
    cases = []
    for name, objective in _objectives():
        if "logits" not in objective.needs:
            cases.append(pytest.param(objective, {}, id=name))
            continue
        for problem, head in product(sorted(objective.problems), ("sequence", "token", "span")):
            spans = problem == "single_label" and objective.serves_spans
            if head != "span" or spans:
                settings = {"problem": problem, "head": head}
                cases.append(pytest.param(objective, settings, id=f"{name}-{problem}-{head}"))
    return cases


every_case = pytest.mark.parametrize(("objective", "settings"), _cases())
every_name = pytest.mark.parametrize("name", objectives.__all__)


def sides(
    objective: Objective, settings: dict[str, Any], lengths: tuple[int, ...] = LENGTHS, **more: Any
) -> tuple[list[Sentence], list[Sentence]]:
    """Sentences as a student and as a teacher show them, and nothing outside `needs`."""
    needs = objective.needs
    return (
        batch(lengths, 0, needs, **settings, **more),
        batch(lengths, 50, needs, **settings, **more),
    )


def teacher_of(objective: Objective, signals: Signals) -> Signals:
    """A teacher that shows nothing at all where only gold labels are compared."""
    return signals if objective.reads_teacher else Signals(signals.mask)


def grads(loss: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return list(found)


def test_settings_cover_the_catalogue() -> None:
    """An objective that is added without a line here would be tested by nothing."""
    assert set(SMALLEST) == set(objectives.__all__)


def test_catalogue_holds_objectives_only() -> None:
    """Recipes look types up in `__all__`: a helper in it could be named in a recipe."""
    assert all(issubclass(getattr(objectives, name), Objective) for name in objectives.__all__)
    assert list(objectives.__all__) == sorted(set(objectives.__all__), key=_ruff_order)


def _ruff_order(name: str) -> tuple[bool, str]:
    return (not name.isupper(), name)


@every_name
def test_describes_itself(name: str) -> None:
    """A capture that does not know a name of `needs` would record nothing, without a word."""
    objective = build(name)
    assert objective.needs <= {"logits", "labels", *LAYERED}
    assert objective.problems
    assert (objective.unit == "label") == ("labels" in objective.needs)
    assert objective.reads_teacher or objective.needs == {"logits", "labels"}
    assert objective.citation or not objective.reads_teacher
    # A dataclass without a docstring is given its signature as one.
    assert not str(type(objective).__doc__).startswith(name + "(")


@every_case
def test_zero_for_equal_inputs(objective: Objective, settings: dict[str, Any]) -> None:
    """A distance with an offset cannot be compared between runs, and hides that nothing is left."""
    if not objective.zero_when_equal:
        pytest.skip("says so itself")
    same, _ = sides(objective, settings)
    signals = collate(same)
    if not objective.reads_teacher:
        signals = replace(signals, labels=signals.logits)
    assert loss_of(objective, signals, signals, SAME) == 0


@every_case
def test_never_negative(objective: Objective, settings: dict[str, Any]) -> None:
    """A loss below 0 is a sign or a normalisation gone wrong, and training still runs on it."""
    for seed in range(5):
        student = collate(batch(LENGTHS, 100 + seed, objective.needs, **settings))
        teacher = collate(batch(LENGTHS, 200 + seed, objective.needs, **settings))
        values = values_of(objective, student, teacher)[student.counted(objective.unit)]
        assert (values >= 0).all() or not objective.zero_when_equal
        assert values.any()


@every_case
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(objective: Objective, settings: dict[str, Any], side: str) -> None:
    """Losses that average padding, or assume it on the right, depend on the batch's collation."""
    students, teachers = sides(objective, settings)
    expected = loss_of(objective, collate(students), collate(teachers))
    for extra, garbage in ((0, 7.0), (3, -5.0), (6, 300.0)):
        student, leaves = tracked(collate(students, side, extra, garbage))
        teacher = collate(teachers, side, extra, -garbage)
        found = loss_of(objective, student, teacher)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        for leaf, gradient in zip(leaves, grads(found, leaves), strict=True):
            assert gradient.isfinite().all()
            padded = leaf.detach().abs() == abs(garbage)
            if settings.get("head") != "span":
                assert (gradient[padded] == 0).all()


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
def test_all_masked_gives_zero_with_finite_gradient(
    objective: Objective, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """0 / 0 in one micro-batch without labels makes every weight NaN."""
    students, teachers = sides(objective, settings)
    student, leaves = tracked(masked_out(cast(collate(students), dtype)))
    teacher = masked_out(cast(collate(teachers), dtype))
    loss = loss_of(objective, student, teacher)
    assert loss == 0
    assert all((gradient == 0).all() for gradient in grads(loss, leaves))


@every_case
def test_gradient_reaches_the_student_and_not_the_teacher(
    objective: Objective, settings: dict[str, Any]
) -> None:
    """A teacher that is trained too comes towards the student, and the loss still falls."""
    students, teachers = sides(objective, settings)
    student, mine = tracked(collate(students))
    teacher, theirs = tracked(collate(teachers))
    gradients = grads(loss_of(objective, student, teacher), mine + theirs)
    assert all((gradient != 0).any() for gradient in gradients[: len(mine)])
    assert all((gradient == 0).all() for gradient in gradients[len(mine) :])


@every_case
def test_reads_no_signal_outside_needs(objective: Objective, settings: dict[str, Any]) -> None:
    """A signal that is read but not declared is captured in tests and missing in training."""
    students, teachers = sides(objective, settings)
    teacher = teacher_of(objective, collate(teachers))
    assert loss_of(objective, collate(students), teacher).isfinite()


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_agrees_with_full(
    objective: Objective, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """Softmax, squares and sums in half precision lose the loss's digits or overflow."""
    students, teachers = (cast(collate(side), dtype) for side in sides(objective, settings))
    found = loss_of(objective, students, teachers)
    wide = loss_of(objective, cast(students, torch.float64), cast(teachers, torch.float64))
    assert found.dtype == torch.float32
    assert wide.dtype == torch.float64
    torch.testing.assert_close(found.double(), wide, rtol=1e-3, atol=1e-6)


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_large_values_stay_finite(
    objective: Objective, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    """Some channels are in the thousands: their squares do not fit half precision."""
    students, teachers = sides(objective, settings, scale=1000.0)
    student, leaves = tracked(cast(collate(students), dtype))
    loss = loss_of(objective, student, cast(collate(teachers), dtype))
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in grads(loss, leaves))


@every_case
def test_autocast_changes_nothing(objective: Objective, settings: dict[str, Any]) -> None:
    """Autocast casts the factors of matrix products to half precision, widened or not."""
    students, teachers = sides(objective, settings)
    student = cast(collate(students), torch.float32)
    teacher = cast(collate(teachers), torch.float32)
    expected = loss_of(objective, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss_of(objective, student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@every_case
def test_doubling_the_batch_keeps_the_mean(objective: Objective, settings: dict[str, Any]) -> None:
    """A sum that passes for a mean grows with the batch, and with it the learning rate."""
    if objective.compares_batch:
        pytest.skip("a value depends on the other sequences")
    students, teachers = sides(objective, settings)
    once = loss_of(objective, collate(students), collate(teachers))
    twice = loss_of(objective, collate(students * 2), collate(teachers * 2))
    torch.testing.assert_close(twice, once)


@every_case
def test_micro_batches_add_up_to_the_big_batch(
    objective: Objective, settings: dict[str, Any]
) -> None:
    """A mean of means weighs the tokens of short micro-batches more."""
    if objective.compares_batch:
        pytest.skip("a value depends on the other sequences")
    students, teachers = sides(objective, settings, (6, 2, 3, 1))
    whole = collate(students)
    count = whole.counted(objective.unit).sum()
    parts = [
        loss_of(objective, collate(students[part]), collate(teachers[part]), count=count)
        for part in (slice(0, 1), slice(1, 3), slice(3, 4))
    ]
    big = loss_of(objective, whole, collate(teachers))
    torch.testing.assert_close(torch.stack(parts).sum(), big)


@every_name
def test_settings_survive_yaml(name: str) -> None:
    """The card's settings must rebuild the objective that was trained."""
    objective = build(name)
    written = yaml.safe_load(yaml.safe_dump(objective.settings()))
    assert type(objective)(**written) == objective
    assert hash(type(objective)(**written)) == hash(objective)


@every_name
def test_layered_objectives_refuse_no_pairs(name: str) -> None:
    """An empty mapping would give a loss of 0 (or NaN) that trains nothing."""
    objective = build(name)
    if not objective.needs.intersection(LAYERED):
        pytest.skip("compares no layers")
    signals = collate(batch(LENGTHS, 0, objective.needs))
    with pytest.raises(ValueError, match=r"pairs must hold at least one pair of layers, got \(\)"):
        objective.forward(signals, signals, ())
