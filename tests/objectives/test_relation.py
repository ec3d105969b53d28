"""MiniLM v1 and v2 against plain loops, and the faults of public implementations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.objectives import MiniLM, MiniLMv2
from hf_distill.objectives.attention import attention_kl
from hf_distill.objectives.base import Shape
from hf_distill.objectives.reduce import masked_mean
from hf_distill.objectives.relation import log_relation, relation_kl, split_heads
from hf_distill.signals.capture import Recorder, signals
from hf_distill.signals.signals import Demand, Signals
from tests import tiny
from tests.objectives import oracles
from tests.objectives.examples import batch, collate

LAST = ((2, 2),)


def loop_relation_kl(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor, heads: int
) -> Tensor:
    """Sum over real queries and relation heads of KL, one sentence, head and query at a time.

    Sides are (left, right) of [B, A, T, d]; only real tokens are ever looked at.
    """

    def vector(states: Tensor, b: int, t: int, head: int) -> list[float]:
        joined = [x for a in range(states.shape[1]) for x in states[b, a, t].tolist()]
        size = len(joined) // heads
        return joined[head * size : (head + 1) * size]

    def relation(side: tuple[Tensor, Tensor], b: int, t: int, head: int) -> list[float]:
        real = mask[b].nonzero().flatten().tolist()
        query = vector(side[0], b, t, head)
        keys = [vector(side[1], b, k, head) for k in real]
        return oracles.softmax([oracles.inner(query, k) / math.sqrt(len(query)) for k in keys])

    values = torch.zeros(mask.shape, dtype=torch.float64)
    for b, t in mask.nonzero().tolist():
        values[b, t] = oracles.mean(
            [
                oracles.kl(relation(teacher, b, t, head), relation(student, b, t, head))
                for head in range(heads)
            ]
        )
    return values


def shown(
    seed: int, lengths: tuple[int, ...] = (4, 2), side: str = "right", **more: Any
) -> Signals:
    needs = {"attention", "query", "key", "value"}
    return collate(batch(lengths, seed, needs, **more), side, garbage=3.0)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("relation_heads", [1, 2, 6])
def test_minilm_v2_compares_any_heads_and_widths(side: str, relation_heads: int) -> None:
    """Cutting [B, A, T, d] without moving heads beside channels mixes positions of a sentence."""
    student = shown(0, side=side, width=12, heads=3)
    teacher = shown(9, side=side, width=24, heads=4)
    parts = ("query", "key", "value")
    expected = sum(
        loop_relation_kl(
            (getattr(student, part)[2],) * 2,
            (getattr(teacher, part)[2],) * 2,
            student.mask,
            relation_heads,
        )
        for part in parts
    )
    found = MiniLMv2(relation_heads).forward(student, teacher, LAST)
    mask = student.mask
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(found[mask], expected[mask])


def test_minilm_v2_compares_unlike_parts() -> None:
    """Left and right swapped is another relation, with a plausible loss."""
    student, teacher = shown(0), shown(9)
    expected = loop_relation_kl(
        (student.query[2], student.key[2]), (teacher.query[2], teacher.key[2]), student.mask, 4
    )
    found = MiniLMv2(4, ("query-key",)).forward(student, teacher, LAST)
    torch.testing.assert_close(found[student.mask], expected[student.mask])


@pytest.mark.parametrize("side", ["right", "left"])
def test_minilm_v1_is_attention_plus_value_relation(side: str) -> None:
    """Attention alone is not MiniLM, and reproductions without values fall short."""
    student = shown(0, side=side, width=8, heads=2)
    teacher = shown(9, side=side, width=12, heads=2)
    values = loop_relation_kl(
        (student.value[2],) * 2, (teacher.value[2],) * 2, student.mask, heads=2
    )
    maps = attention_kl(student.attention[2], teacher.attention[2], student.mask)
    found = MiniLM().forward(student, teacher, LAST)
    torch.testing.assert_close(found[student.mask], (maps + values)[student.mask])


@pytest.mark.parametrize("objective", [MiniLM(), MiniLMv2(2)])
def test_any_teacher_layer_may_be_mapped(objective: Any) -> None:
    """Large teachers are best in an upper middle layer: the last one would be taken for it."""
    student, teacher = shown(0), shown(9)
    alone = [
        replace(teacher, **{name: {7: getattr(teacher, name)[layer]} for name in objective.needs})
        for layer in (1, 2)
    ]
    found = [objective.forward(student, one, ((2, 7),)) for one in alone]
    for layer, each in zip((1, 2), found, strict=True):
        mapped = objective.forward(student, teacher, ((2, layer),))
        torch.testing.assert_close(mapped, each, rtol=0, atol=0)
    assert not torch.allclose(*found)


@pytest.mark.parametrize("relations", [("query-query", "key-key", "value-value"), ("value-value",)])
def test_minilm_v2_trains_up_to_the_attention_of_its_layer(relations: Any) -> None:
    """What it leaves as it was is random in a new student: the docstring must not promise more."""
    model = tiny.model("Bert", num_hidden_layers=2)
    objective = MiniLMv2(relations=relations)
    wanted = Demand(layers=dict.fromkeys(objective.needs, frozenset({2})))
    recorder = Recorder(model, wanted)
    recorder.arm()
    mask = torch.ones(2, 5, dtype=torch.bool)
    model(input_ids=torch.randint(3, tiny.VOCABULARY, (2, 5)), attention_mask=mask.long())
    student = signals(recorder.take(), wanted, model.config, mask=mask)
    objective.forward(student, shown(9, (5, 5), width=24, heads=4), LAST).sum().backward()
    untouched = {name for name, weight in model.named_parameters() if weight.grad is None}
    above = ("encoder.layer.1.attention.output", "encoder.layer.1.intermediate")
    above += ("encoder.layer.1.output", "pooler")
    last = {f"encoder.layer.1.attention.self.{part}" for part in ("query", "key", "value")}
    unused = {part for part in last if part.rsplit(".", 1)[1] not in objective.needs}
    for name, _ in model.named_parameters():
        assert (name in untouched) == name.startswith((*above, *unused)), name


def test_relation_kl_is_teacher_relative_to_student() -> None:
    """KL(student || teacher) trains too, towards the teacher's largest relation only."""
    student, teacher = shown(0), shown(9)
    one, other = (student.query[1],) * 2, (teacher.query[1],) * 2
    forward, reverse = relation_kl(one, other, student.mask), relation_kl(other, one, student.mask)
    mine, theirs = (log_relation(*side, student.mask) for side in (one, other))
    expected = (theirs.exp() * (theirs - mine)).sum(-1).mean(1)
    torch.testing.assert_close(forward[student.mask], expected[student.mask])
    assert not torch.allclose(forward[student.mask], reverse[student.mask], rtol=1e-2)


def test_loss_weighs_every_real_token_alike() -> None:
    """Averaging padded query rows in, or sentences first, gives a loss of the collation."""
    student, teacher = shown(0, (5, 1)), shown(9, (5, 1))
    values = MiniLMv2(2, ("value-value",)).forward(student, teacher, LAST)
    loops = loop_relation_kl((student.value[2],) * 2, (teacher.value[2],) * 2, student.mask, 2)
    torch.testing.assert_close(masked_mean(values, student.mask), loops.sum() / 6)


def test_split_heads_keeps_positions_together() -> None:
    """`reshape` of [B, A, T, d] gives the right shape and the wrong numbers."""
    states = torch.arange(2 * 3 * 4 * 2).reshape(2, 3, 4, 2)
    found = split_heads(states, 2)
    assert found.shape == (2, 2, 4, 3)
    for b in range(2):
        for t in range(4):
            joined = states[b, :, t].flatten().tolist()
            assert found[b, :, t].flatten().tolist() == joined
    assert torch.equal(split_heads(states, 3), states)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masked_keys_have_no_probability_in_half_precision(dtype: torch.dtype) -> None:
    """A fill of -1e9 overflows to -inf in half precision, a small one lets padding through."""
    states = torch.full((1, 1, 3, 2), -300.0, dtype=dtype)
    mask = torch.tensor([[True, True, False]])
    for sign in (1, -1):
        found = log_relation(states, sign * states, mask)
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        torch.testing.assert_close(found.exp()[..., 2], torch.zeros(1, 1, 3))
        torch.testing.assert_close(found.exp()[..., :2], torch.full((1, 1, 3, 2), 0.5))


def test_no_relation_heads_means_the_teachers() -> None:
    """The student's count would cut the teacher's relations coarser than they are."""
    student, teacher = shown(0, width=8, heads=2), shown(9, width=16, heads=4)
    torch.testing.assert_close(
        MiniLMv2().forward(student, teacher, LAST), MiniLMv2(4).forward(student, teacher, LAST)
    )


def test_relation_heads_must_divide_both_widths() -> None:
    """Found in the first step only, after the teacher was loaded and the data tokenised."""
    student, teacher = Shape(layers=6, width=312, heads=12), Shape(layers=12, width=768, heads=12)
    MiniLMv2().check(student, teacher)
    MiniLMv2(24).check(student, teacher)
    with pytest.raises(ValueError, match=r"widths of student \(312\) and teacher \(768\), got 48 "):
        MiniLMv2(48).check(student, teacher)
    with pytest.raises(ValueError, match=r"got None \(that is 16\). Choose a divisor of 24.* 12\."):
        MiniLMv2().check(student, Shape(layers=24, width=768, heads=16))
    wide = Shape(layers=2, width=32, heads=4, channels=48)  # T5's heads need not fill its width.
    MiniLMv2(48).check(wide, wide)
    with pytest.raises(ValueError, match=r"widths of student \(48\) and teacher \(48\), got 32 "):
        MiniLMv2(32).check(wide, wide)
    with pytest.raises(ValueError, match=r"relation_heads must divide the width 8, got 3\. Choose"):
        split_heads(torch.zeros(1, 2, 5, 4), 3)


def test_needs_only_the_parts_that_are_compared() -> None:
    """What is demanded is captured, kept and cached for every layer pair."""
    assert MiniLMv2(relations=("value-value",)).needs == {"value"}
    assert MiniLMv2(relations=["query-key"]).needs == {"query", "key"}
    assert MiniLMv2().needs == MiniLMv2.needs == {"query", "key", "value"}


@pytest.mark.parametrize("value", [0, -2, 1.5, True, "12"])
def test_relation_heads_must_be_a_count(value: Any) -> None:
    """True is 1 to Python, and 1.5 fails in the first step."""
    with pytest.raises(ValueError, match="relation_heads must be a whole number >= 1 or None, got"):
        MiniLMv2(relation_heads=value)


@pytest.mark.parametrize(
    "value", [(), "value-value", ("value",), ("hidden-hidden",), ("key-key", "key-key")]
)
def test_relations_must_be_names(value: Any) -> None:
    """A string is a sequence of letters, a name given twice a hidden weight."""
    with pytest.raises(ValueError, match="relations must be different names, at least one, got"):
        MiniLMv2(relations=value)
