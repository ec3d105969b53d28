"""What a cache says of itself: what has to be the same, and what need not be."""

from __future__ import annotations

from typing import Any

import pytest

from hf_distill.cache.about import About, Shown, Taught
from hf_distill.signals.signals import Demand
from tests.teacher.counting import about

TAUGHT = Taught(name="bert", model_class="BertModel", config={"eps": 1e-12}, weights="w", files="f")

CHANGED: dict[str, dict[str, Any]] = {
    "teachers": {"teachers": [TAUGHT.model_copy(update={"weights": "other"})]},
    "together": {"together": {"weights": [1, 2], "combine": "mean", "lead": None}},
    "precision": {"precision": "bf16 autocast"},
    "columns": {"columns": ["input_ids"]},
    "head": {"head": "ForTokenClassification"},
    "problem": {"problem": "multi_label"},
    "classes": {"classes": ["b", "a"]},
    "heads": {"heads": 2},
    "shown": {"shown": {"storage": "int8"}},
    "tokenizer": {"tokenizer": "other"},
}


def said(**changes: Any) -> About:
    return about(**{"teachers": [TAUGHT], "classes": ["a", "b"], "tokenizer": "own", **changes})


@pytest.mark.parametrize("field", CHANGED)
def test_what_decides_is_part_of_the_digest(field: str) -> None:
    """What the digest forgets is read from a cache of something else, by 'auto' most of all."""
    other = said(**CHANGED[field])
    assert other.digest() != said().digest()
    (difference,) = said().differences(other)
    assert difference.startswith(f"{field} (")
    assert " instead of " in difference
    assert set(CHANGED) == set(About.model_fields) - {"format", "facts"}


@pytest.mark.parametrize("field", ["weights", "config", "model_class"])
def test_teachers_are_told_apart_by_what_they_are(field: str) -> None:
    """The same weights under another activation or class order are another teacher."""
    changed = {"weights": "v", "config": {"eps": 1e-5}, "model_class": "RobertaModel"}
    other = TAUGHT.model_copy(update={field: changed[field]})
    (difference,) = said().differences(said(teachers=[other]))
    ours, theirs = TAUGHT.digest()[:8], other.digest()[:8]
    assert difference == f"teachers (bert of digest {ours} instead of bert of digest {theirs})"


def test_where_a_teacher_stands_does_not_matter() -> None:
    """A folder that was moved, or a model in memory, is computed all over again."""
    moved = TAUGHT.model_copy(update={"name": "/elsewhere/bert", "files": None})
    assert said(teachers=[moved]).digest() == said().digest()
    assert list(said().differences(said(teachers=[moved]))) == []
    assert said(facts={"teacher_name": "x"}).digest() == said().digest()


def test_digests_survive_the_file() -> None:
    """JSON makes strings of the layers' numbers: a digest of those refuses every cache."""
    shown = {"layers": {"hidden": [0, 4]}, "pooled": {4: "mean"}}
    before = said(shown=shown, together=CHANGED["together"]["together"])
    after = About.model_validate_json(before.model_dump_json())
    assert after == before
    assert after.digest() == before.digest()
    assert after.shown.demand == Demand(True, {"hidden": frozenset({0, 4})}, {4: "mean"})


DEMANDS: dict[str, tuple[Demand, list[str]]] = {
    "the same": (Demand(True, {"hidden": frozenset({2, 4})}, {4: "mean"}), []),
    "less": (Demand(False, {"hidden": frozenset({2})}), []),
    "whole states pooled later": (Demand(False, {"hidden": frozenset({2})}, {2: "first"}), []),
    "nothing": (Demand(), []),
    "another layer": (Demand(True, {"hidden": frozenset({2, 3})}), ["hidden.3"]),
    "another signal": (Demand(True, {"query": frozenset({2})}), ["query.2"]),
    "pooled otherwise": (Demand(False, {"hidden": frozenset({4})}, {4: "first"}), ["hidden.4"]),
    "more than is pooled": (Demand(False, {"hidden": frozenset({4})}), ["hidden.4"]),
}


@pytest.mark.parametrize("case", DEMANDS)
def test_what_is_lacking_is_named(case: str) -> None:
    """A mean that passes for the states of all tokens is 0 at every token but the first."""
    demand, lacking = DEMANDS[case]
    held = Shown(logits=True, layers={"hidden": [2, 4]}, pooled={4: "mean"})
    assert held.lacking(demand) == lacking
    assert Shown(logits=False).lacking(Demand(logits=True)) == ["logits"]
