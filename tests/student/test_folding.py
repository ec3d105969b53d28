"""Embeddings of two factors: the model says, learns and saves what an ordinary one would."""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hf_distill.student import (
    factorise,
    factorise_embeddings,
    fold_embeddings,
    load_factors,
    save_factors,
)
from hf_distill.student.factorised import FACTORS_FILE, FactorisedEmbedding, FactorisedHead
from hf_distill.training.card import model_facts
from tests import tiny
from tests.training.runs import CAUSAL, MASKED, SEQ2SEQ, lora

PAD, RANK, WIDTH = 0, 6, 32
KINDS = [
    *((family, "Model") for family in tiny.FAMILIES if family != "Bart"),
    *(
        (family, MASKED)
        for family in tiny.FAMILIES
        if tiny.heads(family, [MASKED]) and family != "Bart"
    ),
    ("GPT2", CAUSAL),
    ("Llama", CAUSAL),
    ("T5", SEQ2SEQ),
]
TIED = [(family, head) for family, head in KINDS if head != "Model" and family != "Llama"]
"""Llama's output head is one of its own."""


def made(family: str = "Bert", head: str = "Model", **changes: Any) -> Any:
    """In float64; no row is 0, that of the padding token neither."""
    model = tiny.model(family, head, initializer_range=0.5, **changes).double()
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table.copy_(torch.randn_like(table) + 0.3)
    return model


def batch(model: Any) -> dict[str, Tensor]:
    tokens = torch.randint(3, tiny.VOCABULARY, (2, 7))
    tokens[1, -3:] = PAD
    given = {"input_ids": tokens, "attention_mask": (tokens != PAD).long()}
    return {**given, "decoder_input_ids": tokens} if model.config.is_encoder_decoder else given


def said(model: nn.Module, given: dict[str, Tensor]) -> list[Tensor]:
    return [each for each in model(**given).values() if isinstance(each, Tensor)]


def gap(first: list[Tensor], second: list[Tensor]) -> float:
    assert len(first) == len(second) > 0
    pairs = zip(first, second, strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def places(model: Any) -> set[str]:
    """Every name of the word table."""
    named = model.named_parameters(remove_duplicate=False)
    return {name for name, each in named if each is model.get_input_embeddings().weight}


def embeddings(model: Any) -> FactorisedEmbedding:
    found = model.get_input_embeddings()
    assert isinstance(found, FactorisedEmbedding)
    return found


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("family", "head"), KINDS)
def test_at_the_whole_width_nothing_changes(family: str, head: str, center: bool) -> None:
    """A mean that is left out of the logits, or a head that reads the old table."""
    model = made(family, head)
    given = batch(model)
    before = said(model, given)
    width = model.get_input_embeddings().embedding_dim
    assert factorise_embeddings(model, width, center=center).error < 1e-9
    assert gap(said(model, given), before) < 1e-10


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("family", "head"), KINDS)
def test_saved_and_folded_models_say_the_same(
    family: str, head: str, center: bool, tmp_path: Path
) -> None:
    """A checkpoint with two factors in it opens with a random table, and a warning at most."""
    model = made(family, head)
    model.save_pretrained(tmp_path / "before")
    factorise_embeddings(model, RANK, center=center)
    given = batch(model)
    expected = said(model, given)
    model.save_pretrained(tmp_path / "factorised")
    keys = [set(load_file(each)) for each in sorted(tmp_path.glob("*/model.safetensors"))]
    assert keys[0] == keys[1]
    opened, info = type(model).from_pretrained(
        tmp_path / "factorised", output_loading_info=True, dtype=torch.float64
    )
    assert not any(info.values()), info
    # Older versions of transformers hold parts of T5 in float32.
    assert gap(said(opened.eval().double(), given), expected) < 1e-12 or family == "T5"
    shown = model.state_dict()
    fold_embeddings(model)
    assert gap(said(model, given), expected) < 1e-12
    assert not any(isinstance(each, FactorisedEmbedding) for each in model.modules())
    assert list(model.state_dict()) == list(shown)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, shown[name]), name
        assert weight.dtype == torch.float64


@pytest.mark.parametrize(("family", "head"), TIED)
def test_ties_outlive_factors(family: str, head: str) -> None:
    """An output head that is left with the old table is trained by itself; its share is lost."""
    model = made(family, head)
    tied = places(model)
    assert len(tied) > 1
    factorise_embeddings(model, RANK)
    assert isinstance(model.get_output_embeddings(), FactorisedHead)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    # The Trainer does so after every checkpoint that it reads.
    model.tie_weights()
    shown = model.state_dict()
    assert all(torch.equal(each, before[name]) for name, each in shown.items())
    assert len({shown[name].data_ptr() for name in tied}) == 1
    fold_embeddings(model)
    assert places(model) == tied


def gradients(model: Any, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a loss that reads every output, padding positions too."""
    model.zero_grad()
    loss = sum(
        (each * torch.linspace(-1, 1, each.numel(), dtype=each.dtype).view_as(each)).sum()
        + each.square().sum()
        for each in said(model, given)
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("family", "head"), [("Bert", "Model"), ("Bert", MASKED), ("GPT2", CAUSAL), ("T5", SEQ2SEQ)]
)
def test_gradients_are_those_of_the_ordinary_table(family: str, head: str, center: bool) -> None:
    """A use of the table that the factors do not see is a use from which they do not learn."""
    model = made(family, head)
    factorise_embeddings(model, RANK, center=center)
    given = batch(model)
    table = embeddings(model)
    ours = gradients(model, given)
    ordinary = copy.deepcopy(model)
    fold_embeddings(ordinary)
    dense = gradients(ordinary, given)
    whole = ordinary.get_input_embeddings().weight.grad
    if table.padding_idx is not None:
        whole[table.padding_idx] = 0
    expected = {"weight": whole @ table.projection.T, "projection": table.weight.T @ whole}
    if center:
        expected["projection_bias"] = whole.sum(0)
    held = dict(table.named_parameters())
    assert set(held) == set(expected)
    for name, gradient in expected.items():
        found = held[name].grad
        assert found is not None
        assert torch.allclose(found, gradient, rtol=1e-9, atol=1e-9), name
    for name in set(dense) - places(ordinary):
        assert torch.allclose(ours[name], dense[name], rtol=1e-9, atol=1e-9), name


def test_the_padding_row_is_not_learnt() -> None:
    """An ordinary embedding never moves its padding row; a projection moves every row."""
    model = made()
    row = model.get_input_embeddings().weight[PAD].detach().clone()
    factorise_embeddings(model, RANK)
    table = embeddings(model)
    assert torch.equal(table(torch.tensor([PAD, 5]))[0], row)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    table(torch.tensor([[PAD, PAD]])).sum().backward()
    for parameter in table.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()
    table(torch.tensor([[PAD, 5]])).square().sum().backward()
    optimizer.step()
    assert torch.equal(table(torch.tensor([PAD, 5]))[0], row)
    fold_embeddings(model)
    assert torch.equal(model.get_input_embeddings().weight[PAD], row)
    assert model.get_input_embeddings().padding_idx == PAD


@pytest.mark.parametrize("freeze", [True, False])
def test_as_many_numbers_are_trained_as_was_said(freeze: bool) -> None:
    """A dense gradient of the whole table is what costs the time; frozen, nor that of [V, E]."""
    model = made(head=MASKED)
    others = sum(each.numel() for each in model.parameters()) - tiny.VOCABULARY * WIDTH
    factorise_embeddings(model, RANK, freeze=freeze)
    learnt = sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert learnt - others == RANK * WIDTH + WIDTH + (0 if freeze else tiny.VOCABULARY * RANK)
    found = gradients(model, batch(model))
    assert ("bert.embeddings.word_embeddings.weight" in found) != freeze
    assert "bert.embeddings.word_embeddings.projection" in found
    fold_embeddings(model)
    assert model.get_input_embeddings().weight.requires_grad != freeze
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_what_was_frozen_stays_frozen() -> None:
    """A table that comes back to life when it is factorised."""
    model = made()
    model.get_input_embeddings().weight.requires_grad_(False)
    factorise_embeddings(model, RANK)
    assert not embeddings(model).weight.requires_grad
    assert embeddings(model).projection.requires_grad


def test_cards_count_the_table_that_is_saved() -> None:
    """The model's size in its card would be that of a checkpoint that nobody has."""
    model = made(head=MASKED)
    before = model_facts(model)
    factorise_embeddings(model, RANK)
    assert model_facts(model) == before


def test_a_base_without_its_head_is_saved_whole(tmp_path: Path) -> None:
    """What folds the whole model alone leaves the factors in a checkpoint of its encoder."""
    model = made(head="ForSequenceClassification")
    factorise_embeddings(model, RANK)
    model.bert.save_pretrained(tmp_path)
    opened = type(model.bert).from_pretrained(tmp_path, dtype=torch.float64).eval()
    given = batch(model)
    assert gap(said(opened, given)[:1], said(model.bert, given)[:1]) < 1e-12


def test_copies_are_by_themselves() -> None:
    """An output head that reads the factors of the model that it was copied from."""
    model = made(head=MASKED)
    factorise_embeddings(model, RANK)
    given = batch(model)
    before = said(model, given)
    other = copy.deepcopy(model)
    with torch.no_grad():
        embeddings(model).projection.zero_()
    assert gap(said(other, given), before) == 0


@pytest.mark.parametrize("family", ["Bert", "GPT2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_kept(dtype: torch.dtype, family: str) -> None:
    """Under autocast a product is in half precision, and with it a decoder's residual stream."""
    model = made(family).to(dtype)
    factorise_embeddings(model, RANK)
    tokens = torch.tensor([[5, 6]])
    assert {each.dtype for each in embeddings(model).parameters()} == {dtype}
    expected = embeddings(model)(tokens)
    assert expected.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert embeddings(model)(tokens).dtype == dtype
    model.load_state_dict(model.state_dict())
    fold_embeddings(model)
    folded = model.get_input_embeddings()(tokens)
    assert folded.dtype == dtype
    assert torch.allclose(folded.float(), expected.float(), atol=2 * torch.finfo(dtype).eps * 4)


def test_factors_are_read_before_the_table(tmp_path: Path) -> None:
    """The factors of one checkpoint under the optimizer state of another: a run that jumps."""
    model, resumed = made(head=MASKED), made(head=MASKED)
    for each in (model, resumed):
        factorise_embeddings(each, RANK)
    save_factors(model, tmp_path)
    state = model.state_dict()
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"must be the product of the factors.*load_factors"):
            resumed.load_state_dict(state, strict=strict)
    load_factors(resumed, tmp_path)
    assert not any(resumed.load_state_dict(state))
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert torch.equal(embeddings(model).padding, embeddings(resumed).padding)  # type: ignore[arg-type]


def test_a_table_that_is_missing_is_missed() -> None:
    """A state dict without the table, read as if it were whole."""
    model = made()
    factorise_embeddings(model, RANK)
    state = model.state_dict()
    del state["embeddings.word_embeddings.weight"]
    assert model.load_state_dict(state, strict=False).missing_keys == [
        "embeddings.word_embeddings.weight"
    ]


def test_factors_of_another_shape_are_refused(tmp_path: Path) -> None:
    """Another rank, or a mean that was learnt and is forgotten."""
    model = made()
    factorise_embeddings(model, RANK)
    save_factors(model, tmp_path)
    for rank, center in ((RANK + 1, True), (RANK, False)):
        other = made()
        factorise_embeddings(other, rank, center=center)
        with pytest.raises(ValueError, match="must hold factors of the shapes"):
            load_factors(other, tmp_path)


def test_ordinary_models_have_no_factors(tmp_path: Path) -> None:
    """Every student's checkpoint would have a file of nothing beside it."""
    model = made()
    save_factors(model, tmp_path)
    assert not list(tmp_path.iterdir())
    load_factors(model, tmp_path)
    factorise_embeddings(model, RANK)
    with pytest.raises(FileNotFoundError, match=f"checkpoint must hold {FACTORS_FILE}"):
        load_factors(model, tmp_path)


def test_what_cannot_be_factorised_is_refused() -> None:
    """A scale of the lookup that is dropped; adapters beside a table that is no longer theirs."""
    with pytest.raises(ValueError, match=r"got BartScaledWordEmbedding at shared\.weight"):
        factorise_embeddings(made("Bart"), RANK)
    with pytest.raises(ValueError, match="model must be a transformers model, got 'PeftModel"):
        factorise_embeddings(lora(made(), target_modules=["query"]), RANK)
    model = made()
    with pytest.raises(ValueError, match="rank must be an int from 1 to the table's width 32"):
        factorise_embeddings(model, WIDTH + 1)
    with pytest.raises(ValueError, match=r"got BertModel without\. It is an ordinary model"):
        fold_embeddings(model)
    factorise_embeddings(model, RANK)
    with pytest.raises(ValueError, match=r"type nn.Embedding.*fold_embeddings\(model\)"):
        factorise_embeddings(model, RANK)


@pytest.mark.parametrize(
    "change", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}]
)
def test_special_lookups_are_refused(change: dict[str, Any]) -> None:
    """What an embedding does beside looking up would silently be done no more."""
    model = made()
    special = nn.Embedding(tiny.VOCABULARY, WIDTH, **change)
    model.set_input_embeddings(special)
    with pytest.raises(ValueError, match=r"must be read by plain nn\.Embedding and nn\.Linear"):
        factorise_embeddings(model, RANK)


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_ddp_trains_both_factors(group: None) -> None:
    """A table that DDP sees twice is reduced twice; one that it does not see, never."""
    model = made(head=MASKED)
    factorise_embeddings(model, RANK)
    given = batch(model)
    expected = gradients(model, given)
    wrapped = DistributedDataParallel(model)
    found = gradients(wrapped, given)
    assert found.keys() == {f"module.{name}" for name in expected}
    for name, gradient in expected.items():
        assert torch.allclose(found[f"module.{name}"], gradient), name
    assert list(wrapped.state_dict()) == [f"module.{name}" for name in model.state_dict()]


def test_accelerate_saves_an_ordinary_state(tmp_path: Path) -> None:
    """What is prepared, saved and read by accelerate alone."""
    model = made(head=MASKED)
    factorise_embeddings(model, RANK)
    accelerator = Accelerator(cpu=True)
    prepared = accelerator.prepare_model(model)
    accelerator.save_model(prepared, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    fold_embeddings(model)
    ordinary = model.state_dict()
    assert set(saved) <= set(ordinary)
    assert any(name.endswith("word_embeddings.weight") for name in saved)
    assert all(torch.equal(each, ordinary[name]) for name, each in saved.items())


def test_the_factors_are_the_nearest() -> None:
    """Factors of another table, or of other rows, than the model's own."""
    model = made()
    table = model.get_input_embeddings().weight.detach().clone()
    factors = factorise_embeddings(model, RANK)
    rows = torch.arange(1, tiny.VOCABULARY)
    found = embeddings(model)(rows[None])[0]
    assert torch.allclose(found, factorise(table, RANK).product()[1:])
    assert factors.rank == RANK
