"""The sum of named, weighted terms, and what it demands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import (
    FSP,
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    MiniLMv2,
    SimilarityMSE,
)
from hf_distill.objectives.base import Objective, Pairs
from hf_distill.objectives.mixture import Learnt, Mixture, Term
from hf_distill.signals.signals import Signals, Unit
from tests.objectives.examples import batch, collate, loss_of

NEEDS = {"logits", "hidden"}
STUDENT = collate(batch((3, 2), 0, NEEDS))
TEACHER = collate(batch((3, 2), 9, NEEDS))
PAIRS: Pairs = ((1, 1), (2, 2))


def three() -> Mixture:
    return Mixture(
        {
            "gold": Term(0.5, CrossEntropy()),
            "kl": Term(2.0, KLDivergence()),
            "hidden": Term(3.0, HiddenMSE(), PAIRS),
        }
    )


def test_loss_is_the_weighted_sum_of_unweighted_terms() -> None:
    """Logged terms that carry their weight cannot be compared between runs of other weights."""
    loss, terms = three()(STUDENT, TEACHER)
    assert list(terms) == ["gold", "kl", "hidden"]
    torch.testing.assert_close(terms["kl"], loss_of(KLDivergence(), STUDENT, TEACHER))
    torch.testing.assert_close(terms["hidden"], loss_of(HiddenMSE(), STUDENT, TEACHER, PAIRS))
    expected = 0.5 * terms["gold"] + 2 * terms["kl"] + 3 * terms["hidden"]
    torch.testing.assert_close(loss, expected)


def test_each_term_is_divided_by_its_own_units() -> None:
    """One count for all terms gives terms of labels the size of terms of tokens."""
    counts: dict[Unit, Tensor] = {"label": torch.tensor(30), "row": torch.tensor(7)}
    counts["token"] = torch.tensor(50)
    _, terms = three()(STUDENT, TEACHER, counts)
    _, own = three()(STUDENT, TEACHER)
    torch.testing.assert_close(terms["gold"], own["gold"] * 3 / 30)
    torch.testing.assert_close(terms["kl"], own["kl"] * 5 / 7)
    torch.testing.assert_close(terms["hidden"], own["hidden"] * 5 / 50)


def test_micro_batches_add_up_with_global_counts() -> None:
    """Gradients accumulated over micro-batches must be those of one big batch."""
    mixture = three()
    students, teachers = batch((4, 1, 2), 0, NEEDS), batch((4, 1, 2), 9, NEEDS)
    whole = collate(students)
    units: tuple[Unit, ...] = ("label", "row", "token")
    counts: dict[Unit, Tensor] = {unit: whole.counted(unit).sum() for unit in units}
    parts = [
        mixture(collate(students[part]), collate(teachers[part]), counts)[0]
        for part in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(sum(parts), mixture(whole, collate(teachers))[0])


def test_only_coordinate_wise_terms_see_the_projected_student() -> None:
    """Similarities of projected states train the projection in place of the student."""
    mixture = Mixture(
        {
            "hidden": Term(1.0, HiddenMSE(), ((2, 2),)),
            "similarity": Term(1.0, SimilarityMSE(), ((2, 2),)),
        }
    )
    projected = {2: TEACHER.hidden[2]}
    _, plain = mixture(STUDENT, TEACHER)
    _, terms = mixture(STUDENT, TEACHER, learnt=Learnt(projected))
    assert terms["hidden"] == 0
    assert plain["hidden"] > 0
    assert terms["similarity"] == plain["similarity"]
    assert STUDENT.hidden[2] is not TEACHER.hidden[2]


def test_demands_are_the_union_of_needs_and_pairs() -> None:
    """A layer that is compared but not demanded is missing in the first step; more costs memory."""
    mixture = Mixture(
        {
            "hidden": Term(1.0, HiddenMSE(), ((1, 3), (2, 6))),
            "similarity": Term(1.0, SimilarityMSE(), ((2, 9),)),
            "values": Term(1.0, MiniLMv2(relations=("value-value",)), ((2, 12),)),
        }
    )
    student, teacher = mixture.demands()
    assert student.layers == {"hidden": {1, 2}, "value": {2}}
    assert teacher.layers == {"hidden": {3, 6, 9}, "value": {12}}
    assert not student.logits
    assert not teacher.logits
    assert teacher.of("attention") == frozenset()


def test_gold_labels_demand_logits_of_the_student_only() -> None:
    """A teacher that runs to its head for gold labels runs for nothing."""
    student, teacher = Mixture({"gold": Term(1.0, CrossEntropy())}).demands()
    assert student.logits
    assert not teacher.logits
    student, teacher = three().demands()
    assert student.logits
    assert teacher.logits


def test_a_term_of_weight_zero_is_logged_and_trains_nothing() -> None:
    """Schedules start at 0."""
    mixture = Mixture({"kl": Term(0.0, KLDivergence())})
    loss, terms = mixture(STUDENT, TEACHER)
    assert loss == 0
    assert terms["kl"] > 0


def test_terms_of_unlike_precision_add_up() -> None:
    """Half-precision logits beside float64 hidden states must not break the sum."""

    @dataclass(frozen=True)
    class Half(Objective):
        needs: ClassVar[frozenset[str]] = frozenset()
        unit: ClassVar[Unit] = "sequence"

        def forward(self, student: Signals, teacher: Signals, pairs: Pairs) -> Tensor:
            return student.mask.new_ones(student.mask.shape[0], dtype=torch.float16)

    mixture = Mixture({"half": Term(1.0, Half()), "kl": Term(1.0, KLDivergence())})
    loss, terms = mixture(STUDENT, TEACHER)
    torch.testing.assert_close(loss, 1 + terms["kl"])


def test_no_terms_are_refused() -> None:
    """A loss without terms is a constant: training runs and changes nothing."""
    with pytest.raises(ValueError, match=r"objectives must name at least one term, got none\. "):
        Mixture({})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(weight: Any) -> None:
    """A negative weight drives the student away from the teacher."""
    with pytest.raises(ValueError, match=r"weight of objective 'kl' must be a finite number >= 0"):
        Mixture({"kl": Term(weight, KLDivergence())})


def test_missing_rows_say_the_remedy() -> None:
    """A headless student has no rows to count."""
    signals = Signals(STUDENT.mask)
    with pytest.raises(ValueError, match="signals must hold rows to be counted by row, got none"):
        signals.counted("row")


@pytest.mark.parametrize(
    ("term", "told"),
    [
        (Term(1.0, FSP(), ((2, 2),)), r"must hold at least 2 pairs of layers, got \(\(2, 2\),\)"),
        (Term(1.0, FSP(), ((1, 1), (2, 2)), renewed_every=5), "must be a fixed one"),
    ],
)
def test_too_few_pairs_are_told_before_the_first_step(term: Term, told: str) -> None:
    """Found in the forward pass, it costs the start of a training on a cluster."""
    with pytest.raises(ValueError, match=told):
        Mixture({"flow": term})
