"""What mappings are called: names, numbers, and embedding outputs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_distill.mapping import MAPPINGS, check_mapping, parse, period, resolve
from tests.mapping.depths import depths, quick


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("comparable", [True, False])
def test_embeddings_are_left_out_where_the_name_says_so(name: str, comparable: bool) -> None:
    """An ending that is read and not obeyed compares what the user excluded."""
    pairs = resolve(f"{name}:no-embeddings", 3, 6, embeddings=comparable)
    assert pairs == resolve(name, 3, 6, embeddings=False)
    assert all(mine and theirs for mine, theirs in pairs)


@pytest.mark.parametrize("name", sorted(set(MAPPINGS) - {"emd"}))
def test_embeddings_are_paired_where_the_name_asks(name: str) -> None:
    """An ending that is dropped leaves the embeddings untaught without a word."""
    pairs = resolve(f"{name}:embeddings", 3, 6, embeddings=True)
    assert pairs[0] == ((0, 3) if name == "top" else (0, 0))
    assert pairs[1:] == resolve(name, 3, 6, embeddings=False)


@pytest.mark.parametrize("name", MAPPINGS)
def test_embeddings_asked_for_in_vain_are_an_error(name: str) -> None:
    """Attention maps have no layer 0: pairs without it are not what was asked for."""
    with pytest.raises(ValueError, match=f"free of ':embeddings' here, got '{name}:embeddings'"):
        resolve(f"{name}:embeddings", 3, 6, embeddings=False)


def test_embeddings_with_nothing_said() -> None:
    """`last` is one pair: a second one would halve its weight."""
    assert resolve("last", 3, 6, embeddings=True) == ((3, 6),)
    assert resolve("last-2", 3, 6, embeddings=True) == ((2, 5), (3, 6))
    for name in ("uniform", "skip", "first", "blocks"):
        assert resolve(name, 3, 6, embeddings=True)[0] == (0, 0)
    assert resolve("top", 3, 6, embeddings=True)[0] == (0, 3)


def test_numbers_reach_the_mapping() -> None:
    """A number that is dropped trains on one layer instead of four."""
    assert resolve("last-4", 6, 12, embeddings=False) == ((3, 9), (4, 10), (5, 11), (6, 12))
    assert resolve("last-2:embeddings", 6, 12, embeddings=True) == ((0, 0), (5, 11), (6, 12))


def test_transported_mappings_are_known_by_their_period() -> None:
    """A trainer that takes `emd` for fixed weighs every pair alike, to the end."""
    assert period("emd") == 100
    assert period("emd-50") == period("emd-50:no-embeddings") == 50
    for fixed in ("uniform", "last-4", "blocks:no-embeddings", [(1, 2)]):
        assert period(fixed) is None
    with pytest.raises(ValueError, match="Did you mean 'emd-50'"):
        period("emb-50")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            "uniformly",
            r"one of uniform, skip, .*, got 'uniformly'\. Did you mean 'uniform'\?",
        ),
        ("Unifrom:embeddings", r"Did you mean 'uniform:embeddings'\?"),
        ("lst-4", r"Did you mean 'last-4'\?"),
        ("zzz", r"got 'zzz'\. Choose"),
        ("", r"got ''\. Choose"),
        ("uniform-3", r"'uniform' alone or with a colon, got 'uniform-3'\. Only emd and last"),
        ("top-no-embeddings", r"left out by 'top:no-embeddings'"),
        ("last-", r"whole number above 0 behind the dash, got 'last-'"),
        ("last-0", r"whole number above 0 .* got 'last-0'\. .* 'last-4'"),
        ("emd-0", r"whole number above 0 .* got 'emd-0'"),
        ("emd-1.5", r"whole number above 0"),
        ("last--1", r"whole number above 0"),
        ("last-²", r"whole number above 0"),
        ("last-four", r"whole number above 0"),
        ("uniform:", r"end in ':embeddings' or ':no-embeddings' .* got 'uniform:'"),
        ("uniform:without", r"end in ':embeddings'"),
        ("last:4", r"end in ':embeddings'"),
    ],
)
def test_faulty_names_are_refused_with_a_remedy(mapping: str, message: str) -> None:
    """A name that is read by its beginning alone trains something else."""
    for read in (parse, check_mapping):
        with pytest.raises(ValueError, match=f"^mapping must .*{message}"):
            read(mapping)
    with pytest.raises(ValueError, match=message):
        resolve(mapping, 3, 6, embeddings=True)


@quick
@given(depths(), st.sampled_from(sorted(MAPPINGS)), st.booleans())
def test_pairs_of_names_are_legal_pairs(
    sizes: tuple[int, int], name: str, embeddings: bool
) -> None:
    """A layer that does not exist, or a pair that stands twice, in some depths only."""
    pairs = resolve(name, *sizes, embeddings=embeddings)
    assert resolve(pairs, *sizes, embeddings=embeddings) == pairs


def test_the_registry_explains_itself() -> None:
    """The command line lists the first docstring lines; an empty one lists nothing."""
    for function in MAPPINGS.values():
        assert function.__doc__
        assert function.__doc__.splitlines()[0].endswith(".")


def test_mapping_imports_neither_torch_nor_transformers() -> None:
    """Searches over mappings fork many processes; an import of torch would cost each seconds."""
    code = (
        "import sys, hf_distill.mapping; "
        "print(sorted({'torch', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
