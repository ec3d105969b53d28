"""Layer mappings in recipes, and what becomes of them in a mixture."""

from __future__ import annotations

from typing import Any

import pytest

from hf_distill.objectives.base import Shape
from hf_distill.objectives.mixture import Mixture
from hf_distill.recipe.classes import mapping_of, objectives_of
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked, written
from hf_distill.training.defaults import build_mixture

STUDENT, TEACHER = Shape(3, 16, 4), Shape(6, 32, 4)


def _recipe(mapping: Any = None, **terms: Any) -> dict[str, Any]:
    objectives = {
        "hidden": {"type": "HiddenMSE"},
        "maps": {"type": "AttentionMSE"},
    }
    for name, own in terms.items():
        objectives[name]["mapping"] = own
    found: dict[str, Any] = {
        "task": "text-classification",
        "data": {"path": "some/data"},
        "teacher": {"model": "some/teacher"},
        "student": {"size": "13M"},
        "objectives": objectives,
    }
    return found if mapping is None else {**found, "mapping": mapping}


def _faults(found: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        checked(found, "recipe")
    return {fault.key: fault.text for fault in caught.value.faults}


def _mixture(found: dict[str, Any]) -> Mixture:
    recipe = checked(found, "recipe")
    objectives = objectives_of(recipe)
    assert objectives is not None
    return build_mixture(objectives, mapping_of(recipe), STUDENT, TEACHER)


def test_names_with_numbers_and_endings_reach_the_mixture() -> None:
    """A recipe's words that are cut at the dash or the colon train another mapping."""
    found = _recipe("blocks:no-embeddings", maps="last-2")
    mixture = _mixture(found)
    assert mixture.terms["hidden"].pairs == ((1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6))
    assert mixture.terms["maps"].pairs == ((2, 5), (3, 6))
    assert "mapping: blocks:no-embeddings\n" in written(checked(found, "recipe"))


def test_embeddings_are_paired_where_they_can_be_compared() -> None:
    """One mapping for all terms: hidden states have a layer 0, attention maps have none."""
    mixture = _mixture(_recipe("skip"))
    assert mixture.terms["hidden"].pairs == ((0, 0), (1, 2), (2, 4), (3, 6))
    assert mixture.terms["maps"].pairs == ((1, 2), (2, 4), (3, 6))
    mixture = _mixture(_recipe(hidden="last:embeddings"))
    assert mixture.terms["hidden"].pairs == ((0, 0), (3, 6))


@pytest.mark.parametrize("words", ["uniform:embeddings", "top:embeddings"])
def test_embeddings_that_cannot_be_compared_are_refused(words: str) -> None:
    """Leaving them out in silence is not what the recipe says."""
    with pytest.raises(ValueError, match=f"mapping must be free of ':embeddings' here, .*{words}"):
        _mixture(_recipe(maps=words))


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ("unifrom", "must be one of uniform, "),
        ("unifrom:embeddings", "Did you mean 'uniform:embeddings'?"),
        ("blocks-2", "must be 'blocks' alone or with a colon, got 'blocks-2'."),
        ("last-0", "must have a whole number above 0 behind the dash, got 'last-0'."),
        ("first:with", "must end in ':embeddings' or ':no-embeddings'"),
    ],
)
def test_faulty_names_are_faults_of_their_key(mapping: str, text: str) -> None:
    """Found when the mixture is built, a typing error costs the download of a teacher."""
    assert text in _faults(_recipe(mapping))["mapping"]
    faults = _faults(_recipe(mapping, hidden=mapping))
    assert text in faults["objectives.hidden.mapping"]
    assert set(faults) == {"mapping", "objectives.hidden.mapping"}


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        (7, "must be a name or a list of pairs, got 7."),
        ([], "must be at least one (student layer, teacher layer) pair"),
        ([[1, 2, 3]], "must be pairs of two ints, got [1, 2, 3]."),
        ([[1, 2], [1, 2]], "must be free of duplicates, got (1, 2) twice."),
    ],
)
def test_faulty_pairs_of_a_term_are_faults_of_its_key(pairs: Any, text: str) -> None:
    """Nothing else looks into a term's settings before the models are there."""
    faults = _faults(_recipe(maps=pairs))
    assert list(faults) == ["objectives.maps.mapping"]
    assert text in faults["objectives.maps.mapping"]
