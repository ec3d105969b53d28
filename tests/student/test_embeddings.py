"""Tables by PCA and SVD, against scikit-learn and an exact SVD; the teacher's table as a start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sklearn.decomposition import PCA
from torch import Tensor, nn

from hf_distill.student import (
    compress_embeddings,
    extract,
    factorise,
    factorise_embeddings,
    freeze_embeddings,
    fresh,
)
from tests import tiny
from tests.student.teachers import teacher
from tests.training.runs import SEQUENCE, trainer
from tests.training.runs import teacher as wide

WORDS, WIDTH = 50, 12
SMALL = "L2-H16-A4-F24"


def table(words: int = WORDS, width: int = WIDTH) -> Tensor:
    """Rows about a mean that is not 0, of very unequal spread."""
    return 1.0 + torch.randn(words, width, dtype=torch.float64) * torch.logspace(1, -1, width)


def rows(model: Any) -> Tensor:
    return model.get_input_embeddings().weight.detach()


@pytest.mark.parametrize("rank", [1, 5, WIDTH])
def test_centred_factors_are_those_of_scikit_learn(rank: int) -> None:
    """Scores of rows that were not centred, or a sign that turns from one machine to the next."""
    weight = table()
    found, expected = factorise(weight, rank), PCA(rank, svd_solver="full").fit(weight.numpy())
    assert torch.allclose(found.matrix, torch.tensor(expected.transform(weight.numpy())), atol=1e-9)
    assert torch.allclose(found.projection, torch.tensor(expected.components_), atol=1e-9)
    assert torch.allclose(found.mean, torch.tensor(expected.mean_))
    kept = float(expected.explained_variance_ratio_.sum())
    assert found.explained_variance == pytest.approx(kept, abs=1e-12)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("rank", [1, 7, WIDTH - 1])
def test_nothing_of_this_rank_is_nearer(rank: int, center: bool) -> None:
    """Eckart and Young: the square of the error is the sum of the discarded squares, no more."""
    weight = table()
    found = factorise(weight, rank, center=center)
    mean = weight.mean(0) if center else torch.zeros(WIDTH, dtype=torch.float64)
    left, values, right = torch.linalg.svd(weight - mean, full_matrices=False)
    nearest = left[:, :rank] * values[:rank] @ right[:rank] + mean
    assert torch.allclose(found.product(), nearest, atol=1e-9)
    error = float((weight - found.product()).square().sum())
    assert error == pytest.approx(float(values[rank:].square().sum()), rel=1e-9)
    assert found.error == pytest.approx(error, rel=1e-9)
    assert found.relative_error == pytest.approx((error**0.5) / float(weight.norm()), rel=1e-9)
    share = float(values[:rank].square().sum() / values.square().sum())
    assert found.explained_variance == pytest.approx(share, rel=1e-9)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_whole_width_gives_the_table_back(center: bool, dtype: torch.dtype) -> None:
    """Mathematics in the table's own type would lose digits before anything is discarded."""
    weight = table().to(dtype)
    found = factorise(weight, WIDTH, center=center)
    assert (found.product() - weight.double()).abs().max() < 1e-10
    assert found.error < 1e-12
    assert found.matrix.dtype == torch.float64


def test_a_table_with_fewer_words_than_its_width_can_be_factorised() -> None:
    """Directions without any spread have squares just below 0, and the error their root."""
    found = factorise(table(words=5), WIDTH)
    assert (found.squares >= 0).all()
    assert found.relative_error >= 0


def test_equal_rows_are_their_mean() -> None:
    """Nothing varies: a share of 0 variance would be 0 divided by 0."""
    found = factorise(torch.ones(WORDS, WIDTH), 2)
    assert found.explained_variance == 1
    assert torch.equal(found.product(), torch.ones(WORDS, WIDTH, dtype=torch.float64))
    assert factorise(torch.zeros(WORDS, WIDTH), 2).relative_error == 0


def test_a_table_is_not_changed() -> None:
    """Centring in place would move the teacher's own table, where it is in float64 already."""
    weight = table()
    before = weight.clone()
    factorise(weight, 3)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("rank", [0, WIDTH + 1, 2.0, True])
def test_a_rank_is_within_the_width(rank: Any) -> None:
    """A slice beyond the end is silently shorter."""
    with pytest.raises(ValueError, match="rank must be an int from 1 to the table's width 12"):
        factorise(table(), rank)


@pytest.mark.parametrize("weight", [torch.ones(3), torch.ones(3, 3, dtype=torch.int8)])
def test_a_weight_is_a_matrix_of_numbers(weight: Tensor) -> None:
    """A quantised table has codes in it, whose directions mean nothing."""
    with pytest.raises(ValueError, match="weight must be a matrix in floating point"):
        factorise(weight, 1)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("start", [extract, fresh])
def test_students_begin_with_the_teachers_scores(start: Any, center: bool, tmp_path: Path) -> None:
    """The known fault: beside a student from scratch, the table is made, and then overwritten."""
    big = wide()
    made = start(big, SMALL)
    small = made if start is fresh else made.model
    before = {name: value.clone() for name, value in small.state_dict().items()}
    factors = compress_embeddings(small, big, center=center, freeze=True)
    mean = rows(big).mean(0) if center else 0
    left, values, _ = torch.linalg.svd(rows(big).double() - mean, full_matrices=False)
    scores = (left * values)[:, :16]
    scores = scores * (scores * factors.matrix).sum(0).sign()
    assert torch.allclose(rows(small).double(), scores, atol=1e-5)
    name = "bert.embeddings.word_embeddings.weight"
    same = [key for key in before if torch.equal(before[key], small.state_dict()[key])]
    assert set(before) - set(same) == {name}
    run = trainer(tmp_path, model=small, teacher=big)
    run.train()
    run.save_model()
    saved = type(small).from_pretrained(tmp_path)
    assert torch.equal(rows(saved), factors.matrix.float())


def test_tied_heads_stay_tied() -> None:
    """A new parameter in the place of the table leaves the output head with the old one."""
    big, small = teacher(head="ForMaskedLM"), teacher(head="ForMaskedLM", hidden_size=16)
    compress_embeddings(small, big)
    assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
    assert torch.equal(rows(small), factorise(rows(big), 16).matrix)


def test_a_head_of_its_own_is_left_as_it_is() -> None:
    """Scores of words are no weights of logits."""
    big = teacher(head="ForMaskedLM")
    small = teacher(head="ForMaskedLM", hidden_size=16, tie_word_embeddings=False)
    before = small.get_output_embeddings().weight.detach().clone()
    compress_embeddings(small, big)
    assert torch.equal(small.get_output_embeddings().weight, before)


def test_only_a_wider_table_is_compressed() -> None:
    """At equal widths PCA would turn the table for nothing; beyond, it has no more directions."""
    for width in (32, 48):
        with pytest.raises(ValueError, match=r"must be wider than the student's \(\d+\), got 32"):
            compress_embeddings(teacher(hidden_size=width), teacher())


def test_vocabularies_are_of_one_size() -> None:
    """Rows of other words, silently."""
    small = teacher(hidden_size=16, vocab_size=40)
    with pytest.raises(ValueError, match=r"vocabulary of 60 words, got 40.*resize_token_emb"):
        compress_embeddings(small, teacher())
    small.resize_token_embeddings(60)
    compress_embeddings(small, teacher())


def test_only_plain_tables_are_compressed() -> None:
    """A factorised teacher's `weight` is not its table."""
    small, big = teacher(hidden_size=16), teacher()
    factorise_embeddings(big, 8)
    with pytest.raises(ValueError, match=r"teacher must have word embeddings.*fold_embeddings"):
        compress_embeddings(small, big)
    with pytest.raises(ValueError, match="student must be a transformers model, got 'Linear'"):
        compress_embeddings(nn.Linear(2, 2), big)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_frozen_tables_have_no_gradient(family: str) -> None:
    """A frozen copy, while the model looks up another parameter."""
    model = tiny.model(family)
    freeze_embeddings(model)
    tokens = torch.tensor([[5, 6, 7]])
    model(input_ids=tokens).last_hidden_state.square().sum().backward()
    assert model.get_input_embeddings().weight.grad is None
    assert any(each.grad is not None for each in model.parameters())


def test_frozen_tables_are_not_decayed(tmp_path: Path) -> None:
    """Weight decay shrinks what has no gradient, where the optimizer holds it."""
    model = transformers.BertForSequenceClassification(tiny.config(num_labels=3))
    freeze_embeddings(model)
    before = rows(model).clone()
    run = trainer(tmp_path, SEQUENCE, model=model, weight_decay=0.5, learning_rate=0.1)
    run.train()
    assert torch.equal(rows(model), before)
    held = {id(each) for group in run.optimizer.param_groups for each in group["params"]}
    assert id(model.get_input_embeddings().weight) not in held
