"""Importance: first-order sensitivities, against the same numbers from gradients of the weights."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hf_distill.architectures import base_model
from hf_distill.architectures.parts import HIDDEN
from hf_distill.student import Importance, Size, extract, importance
from hf_distill.student.losses import HiddenProbe
from hf_distill.student.masks import Masks, Site, Units
from tests import tiny
from tests.student.teachers import inputs, teacher


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a layer of a family keeps the projections that scores are of."""

    query: str
    key: str
    output: str
    ffn_out: str
    transposed: bool = False
    """Whether weights are [in, out]."""


_BERT = Places(
    "encoder.layer.{}.attention.self.query",
    "encoder.layer.{}.attention.self.key",
    "encoder.layer.{}.attention.output.dense",
    "encoder.layer.{}.output.dense",
)
_LLAMA = Places(
    "layers.{}.self_attn.q_proj",
    "layers.{}.self_attn.k_proj",
    "layers.{}.self_attn.o_proj",
    "layers.{}.mlp.down_proj",
)
_ALBERT = "encoder.albert_layer_groups.{}.albert_layers.0"
PLACES = {
    "Bert": _BERT,
    "Roberta": _BERT,
    "XLMRoberta": _BERT,
    "Electra": _BERT,
    "DistilBert": Places(
        "transformer.layer.{}.attention.q_lin",
        "transformer.layer.{}.attention.k_lin",
        "transformer.layer.{}.attention.out_lin",
        "transformer.layer.{}.ffn.lin2",
    ),
    "Albert": Places(
        f"{_ALBERT}.attention.query",
        f"{_ALBERT}.attention.key",
        f"{_ALBERT}.attention.dense",
        f"{_ALBERT}.ffn_output",
    ),
    "DebertaV2": Places(
        "encoder.layer.{}.attention.self.query_proj",
        "encoder.layer.{}.attention.self.key_proj",
        "encoder.layer.{}.attention.output.dense",
        "encoder.layer.{}.output.dense",
    ),
    "MPNet": Places(
        "encoder.layer.{}.attention.attn.q",
        "encoder.layer.{}.attention.attn.k",
        "encoder.layer.{}.attention.attn.o",
        "encoder.layer.{}.output.dense",
    ),
    "ModernBert": Places(
        "layers.{}.attn.Wqkv", "layers.{}.attn.Wqkv", "layers.{}.attn.Wo", "layers.{}.mlp.Wo"
    ),
    "GPT2": Places(
        "h.{}.attn.c_attn", "h.{}.attn.c_attn", "h.{}.attn.c_proj", "h.{}.mlp.c_proj", True
    ),
    "Llama": _LLAMA,
    "Qwen2": _LLAMA,
    "Qwen3": _LLAMA,
    "T5": Places(
        "encoder.block.{}.layer.0.SelfAttention.q",
        "encoder.block.{}.layer.0.SelfAttention.k",
        "encoder.block.{}.layer.0.SelfAttention.o",
        "encoder.block.{}.layer.1.DenseReluDense.wo",
    ),
    "Bart": Places(
        "encoder.layers.{}.self_attn.q_proj",
        "encoder.layers.{}.self_attn.k_proj",
        "encoder.layers.{}.self_attn.out_proj",
        "encoder.layers.{}.fc2",
    ),
}
"""Written out once more, so that a wrong role in an anatomy does not agree with itself."""


def states_loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Last hidden states of real tokens, each coordinate weighted by its own fixed number."""
    states = model(**batch).last_hidden_state
    weights = torch.linspace(-1, 1, states.shape[-1], dtype=states.dtype).roll(3)
    return (states * weights).mean(-1)[batch["attention_mask"].bool()].mean()


def read(layer: nn.Module, *, transposed: bool) -> Tensor:
    """[in]: sum over tokens of u * dL/du, of what a projection reads."""
    product = layer.weight * layer.weight.grad
    return product.sum(1 if transposed else 0)


def written(layer: nn.Module, *, transposed: bool) -> Tensor:
    """[out]: the same of what it writes."""
    product = (layer.weight * layer.weight.grad).sum(0 if transposed else 1)
    bias = getattr(layer, "bias", None)
    return product if bias is None else product + bias * bias.grad


def expected(model: Any, places: Places, layer: int, size: tuple[int, int, int]) -> dict[str, Any]:
    """A layer's scores from the gradients of its weights; size: heads, groups, head size."""
    base = base_model(model)
    heads, groups, channels = size

    def module(path: str) -> nn.Module:
        return base.get_submodule(path.format(layer))

    turned = places.transposed
    context = read(module(places.output), transposed=turned).view(heads, channels)
    query = written(module(places.query), transposed=turned)
    key = written(module(places.key), transposed=turned)
    if places.query == places.key:
        query, key, _ = query.chunk(3)
    of_queries = query.view(groups, heads // groups, channels).sum(1)
    return {
        "ffn": read(module(places.ffn_out), transposed=turned).abs(),
        "heads": context.sum(-1).abs(),
        "value": context.view(groups, heads // groups, channels).sum(1).abs(),
        "query_key": (of_queries + key.view(groups, channels)).abs(),
    }


def backward(model: Any, batch: Any, loss: Callable[[Any, Any], Tensor]) -> None:
    """Fresh gradients in every weight."""
    model.zero_grad()
    loss(model, batch).backward()


def same(found: Any, wanted: Mapping[str, Tensor]) -> bool:
    """Whether a layer's scores are these."""
    got = {"ffn": found.ffn, **vars(found.attention)}
    return all(torch.allclose(got[name], wanted[name], rtol=1e-9, atol=1e-12) for name in wanted)


@pytest.mark.parametrize("family", PLACES)
def test_scores_are_those_of_weight_gradients(family: str) -> None:
    """A mask at the wrong module, axis or head still gives numbers of the right shape.

    For y = Wx + b, the sum over tokens of y_c dL/dy_c is that of row c of W * dW, plus b_c db_c;
    of x_j dL/dx_j it is that of column j (as DynaBERT has it). A layer that runs several times
    adds its runs, and a key projection its relative positions.
    """
    model, batch = teacher(family), inputs()
    config = model.config
    heads = config.num_attention_heads
    size = (
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        getattr(config, "d_kv", None) or getattr(config, "head_dim", None) or 32 // heads,
    )
    scores = importance(model, [batch], loss=states_loss)
    backward(model, batch, states_loss)
    for number, layer in enumerate(scores.layers):
        wanted = expected(model, PLACES[family], number, size)
        assert all(bool((each > 0).any()) for each in wanted.values())
        assert same(layer, wanted), number
    assert len(scores.layers) == (1 if family == "Albert" else 2)


def seq2seq(family: str) -> tuple[Any, dict[str, Tensor]]:
    """A model with encoder and decoder, and a batch with labels."""
    model = teacher(family, "ForConditionalGeneration")
    return model, {**inputs(), "labels": torch.randint(3, tiny.VOCABULARY, (2, 5))}


DECODERS = {
    "T5": (
        "decoder.block.{}.layer.0.SelfAttention.{}",
        "decoder.block.{}.layer.1.EncDecAttention.{}",
        "qko",
        "decoder.block.{}.layer.2.DenseReluDense.wo",
        (4, 4, 16),
    ),
    "Bart": (
        "decoder.layers.{}.self_attn.{}",
        "decoder.layers.{}.encoder_attn.{}",
        ("q_proj", "k_proj", "out_proj"),
        "decoder.layers.{}.fc2",
        (4, 4, 8),
    ),
}


@pytest.mark.parametrize("family", DECODERS)
def test_scores_of_decoders_and_of_their_attention_to_the_encoder(family: str) -> None:
    """Cross-attention scored by the decoder's own attention would keep the wrong heads."""
    model, batch = seq2seq(family)
    scores = importance(model, [batch])
    backward(model, batch, lambda asked, given: asked(**given).loss)
    own, other, leaves, ffn, size = DECODERS[family]
    for number, layer in enumerate(scores.decoder):
        for attention, path in ((layer.attention, own), (layer.cross, other)):
            places = Places(*(path.format("{}", leaf) for leaf in leaves), ffn)
            wanted = expected(model, places, number, size)
            assert same(dataclasses.replace(layer, attention=attention), wanted)
    assert len(scores.decoder) == 2
    assert not torch.equal(scores.decoder[0].attention.heads, scores.decoder[0].cross.heads)


def norm_products(model: nn.Module) -> list[Tensor]:
    """Of each norm, sum over tokens of u * dL/du of its output."""
    return [
        module.weight * module.weight.grad + module.bias * module.bias.grad
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
    ]


def test_both_aggregations_of_hidden_units() -> None:
    """Layers that pull against each other cancel in one shared mask, and count in the other."""
    model, batch = teacher(), inputs()
    backward(model, batch, states_loss)
    products = norm_products(model)
    assert len(products) == 5
    each = importance(model, [batch], loss=states_loss)
    shared = importance(model, [batch], loss=states_loss, hidden="shared")
    assert torch.allclose(each.hidden, sum(product.abs() for product in products))
    assert torch.allclose(shared.hidden, sum(products).abs())
    assert bool((each.hidden > shared.hidden + 1e-9).any())
    assert torch.equal(each.hidden, each.embedding)
    assert torch.equal(each.layers[0].ffn, shared.layers[0].ffn)


def test_the_head_of_a_masked_language_model_has_no_hidden_units_of_the_stream() -> None:
    """Its norm has as many coordinates, but what it writes no layer reads."""
    model = teacher("Bert", "ForMaskedLM")
    batch = inputs()
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, 3:] = -100
    scores = importance(model, [batch], loss="masked-lm")
    backward(model, batch, lambda asked, given: asked(**given).loss)
    products = norm_products(model.bert)
    assert torch.allclose(scores.hidden, sum(product.abs() for product in products))


@pytest.mark.parametrize("family", ["Electra", "Albert"])
def test_units_of_embeddings_before_a_projection(family: str) -> None:
    """Sixteen units scored as those of the residual stream would not even fit."""
    model, batch = teacher(family), inputs()
    scores = importance(model, [batch], loss=states_loss)
    backward(model, batch, states_loss)
    norm = model.embeddings.LayerNorm
    product = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
    assert torch.allclose(scores.embedding, product.abs())
    path = "embeddings_project" if family == "Electra" else "encoder.embedding_hidden_mapping_in"
    assert bool((written(model.get_submodule(path), transposed=False).abs() > 0).all())
    assert scores.hidden.shape == (32,)


def test_hidden_units_count_in_every_run_of_a_shared_layer() -> None:
    """An ALBERT's layers are one module; its runs would cancel in the gradient of its norm."""
    model, batch = teacher("Albert"), inputs()
    group = model.encoder.albert_layer_groups[0].albert_layers[0]
    norms = [group.attention.LayerNorm, group.full_layer_layer_norm]
    shown: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        output.retain_grad()
        shown.append(output)

    asked = [*norms, model.encoder.embedding_hidden_mapping_in]
    handles = [module.register_forward_hook(keep) for module in asked]
    backward(model, batch, states_loss)
    for handle in handles:
        handle.remove()
    assert len(shown) == 2 * 2 + 1
    wanted = sum((each * each.grad).sum((0, 1)).abs() for each in shown)
    assert torch.allclose(importance(model, [batch], loss=states_loss).hidden, wanted)


def flat(scores: Importance) -> Tensor:
    """All scores in a row."""
    return torch.cat([each.flatten() for each in scores.flat().values()])


def test_gradients_of_a_batch_do_not_reach_the_next() -> None:
    """DynaBERT's code never zeroes gradients: batch t scores by the sum of batches 1 to t."""
    model = teacher()
    batches = [inputs() for _ in range(3)]
    together = flat(importance(model, batches, loss=states_loss))
    alone = torch.stack([flat(importance(model, [each], loss=states_loss)) for each in batches])
    assert torch.allclose(together, alone.mean(0), rtol=1e-12)
    model.zero_grad()
    accumulated = torch.zeros(48, dtype=torch.float64)
    out = model.encoder.layer[0].output.dense
    for batch in batches:
        states_loss(model, batch).backward()
        accumulated += read(out, transposed=False).detach().abs() / 3
    ours = importance(model, batches, loss=states_loss).layers[0].ffn
    assert not torch.allclose(ours, accumulated, rtol=0.01)


def test_a_batch_counts_by_its_sequences() -> None:
    """The last batch of a loader is smaller, and would count as much as a full one."""
    model, small = teacher(), inputs()
    large = {name: torch.cat([tensor, tensor.flip(0)]) for name, tensor in inputs().items()}
    together = flat(importance(model, [large, small], loss=states_loss))
    first, second = (flat(importance(model, [each], loss=states_loss)) for each in (large, small))
    assert torch.allclose(together, (4 * first + 2 * second) / 6, rtol=1e-12)


def test_the_order_of_batches_does_not_matter() -> None:
    """Scores that lean on the last batches seen."""
    model = teacher()
    batches = [inputs() for _ in range(4)]
    forth = importance(model, batches, loss=states_loss)
    back = importance(model, reversed(batches), loss=states_loss)
    assert torch.allclose(flat(forth), flat(back), rtol=1e-12)
    assert extract(model, "L1-H16-A2-F20", how=forth).indices == (
        extract(model, "L1-H16-A2-F20", how=back).indices
    )


@pytest.mark.parametrize("family", PLACES)
@pytest.mark.parametrize("loss", ["hidden", states_loss])
def test_padding_changes_nothing(family: str, loss: Any) -> None:
    """Padding tokens have activations too; scored with them, long batches choose by padding."""
    model, batch = teacher(family), inputs()
    wider = {name: nn.functional.pad(tensor, (0, 4)) for name, tensor in batch.items()}
    if family == "Bart":
        # Its decoder reads the same tokens, shifted: those beside padding are cut off alike.
        shifted = {
            "decoder_input_ids": batch["input_ids"],
            "decoder_attention_mask": batch["attention_mask"],
        }
        wider |= {name: nn.functional.pad(tensor, (0, 4)) for name, tensor in shifted.items()}
        batch |= shifted
    plain, padded = (flat(importance(model, [each], loss=loss)) for each in (batch, wider))
    assert torch.allclose(plain, padded, rtol=1e-6, atol=1e-9)


def test_permuted_neurons_have_permuted_scores() -> None:
    """A score that depends on where a unit stands is none of the unit's."""
    model, batch = teacher(), inputs()
    order = torch.randperm(48)
    turned = copy.deepcopy(model)
    layer = turned.encoder.layer[1]
    with torch.no_grad():
        layer.intermediate.dense.weight.copy_(layer.intermediate.dense.weight[order])
        layer.intermediate.dense.bias.copy_(layer.intermediate.dense.bias[order])
        layer.output.dense.weight.copy_(layer.output.dense.weight[:, order])
    plain, permuted = (importance(each, [batch], loss=states_loss) for each in (model, turned))
    assert torch.allclose(permuted.layers[1].ffn, plain.layers[1].ffn[order])
    assert not torch.allclose(permuted.layers[1].ffn, plain.layers[1].ffn)
    assert torch.allclose(permuted.layers[0].ffn, plain.layers[0].ffn)


def test_a_heads_score_is_that_of_its_channels_together() -> None:
    """Channels of a head may cancel: the sum of their scores is only a bound of the head's."""
    scores = importance(teacher(), [inputs()], loss=states_loss)
    for layer in scores.layers:
        bound = layer.attention.value.sum(1)
        assert bool((layer.attention.heads <= bound + 1e-12).all())
        assert bool((layer.attention.heads < bound - 1e-9).any())


def learnt() -> tuple[Any, list[dict[str, Tensor]]]:
    """A classifier that has learnt which of two words stands in front, and its examples."""
    torch.manual_seed(0)
    model: Any = tiny.model("Bert", "ForSequenceClassification", num_labels=2)
    batches = []
    for _ in range(8):
        batch = {"input_ids": torch.randint(5, tiny.VOCABULARY, (16, 8))}
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
        batch["labels"] = torch.randint(0, 2, (16,))
        batch["input_ids"][:, 0] = 3 + batch["labels"]
        batch["input_ids"][::8, 0] = 7  # Not all can be told: the loss keeps a slope.
        batches.append(batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for batch in batches * 6:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model.eval(), batches


def negated(scores: Importance) -> Importance:
    """The same with the last first."""
    return Importance.from_flat({name: -each for name, each in scores.flat().items()})


def mean_loss(model: Any, batches: list[dict[str, Tensor]]) -> float:
    """Over all batches."""
    with torch.no_grad():
        return float(torch.stack([model(**batch).loss for batch in batches]).mean())


@pytest.mark.parametrize("size", ["L2-F24", "L2-H24-A4-F48"])
def test_losing_what_counts_least_costs_least(size: str) -> None:
    """Scores upside down give students of the right shape that have lost what they should keep."""
    model, batches = learnt()
    scores = importance(model, batches, loss="task")
    least, most = (
        abs(mean_loss(extract(model, size, how=how).model, batches) - mean_loss(model, batches))
        for how in (scores, negated(scores))
    )
    assert least < most / 2


def test_losing_the_heads_that_count_least_costs_least() -> None:
    """Heads scored in another order than that in which they lie."""
    model, batches = learnt()
    scores = importance(model, batches, loss="task")
    changes = []
    for how in (scores, negated(scores)):
        without = copy.deepcopy(model)
        for layer, found in zip(without.bert.encoder.layer, how.layers, strict=True):
            weight = layer.attention.output.dense.weight.data.view(32, 4, 8)
            weight[:, found.attention.heads.argsort()[:2]] = 0
        changes.append(abs(mean_loss(without, batches) - mean_loss(model, batches)))
    assert changes[0] < changes[1] / 2


def test_the_loss_of_hidden_states_has_a_gradient_of_a_known_size() -> None:
    """A distance of the teacher to itself has none: every score would be 0, every choice by index.

    E|<r, J>| of a normal r is sqrt(2 / pi) times the length of J, the change of all states.
    """
    model, batch = teacher(num_hidden_layers=1), inputs()
    real = batch["attention_mask"].bool()

    def states(mask: Tensor) -> Tensor:
        def scaled(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
            return (args[0] * mask,)

        handle = model.encoder.layer[0].output.dense.register_forward_pre_hook(scaled)
        shown = model(**batch).last_hidden_state[real]
        handle.remove()
        return shown

    slopes = torch.autograd.functional.jacobian(states, torch.ones(48, dtype=torch.float64))
    wanted = (2 / math.pi) ** 0.5 * (slopes.square().sum((0, 1)) / real.sum()).sqrt()
    found = importance(model, [batch] * 200).layers[0].ffn
    assert torch.allclose(found, wanted, rtol=0.25)
    assert math.isclose(found.sum(), wanted.sum(), rel_tol=0.03)


def tokens(count: int = 10) -> list[dict[str, Tensor]]:
    """Single examples of equal length."""
    generator = torch.Generator().manual_seed(5)
    drawn = torch.randint(2, tiny.VOCABULARY, (count, 6), generator=generator)
    return [{"input_ids": each, "attention_mask": torch.ones(6).long()} for each in drawn]


def test_the_same_scores_twice_bit_for_bit() -> None:
    """Dropout, shuffling or directions from the global generator: another student every time."""
    model = teacher("Bert", hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3).train()
    loader = DataLoader(tokens(), batch_size=4, shuffle=True)
    torch.manual_seed(1)
    first = importance(model, loader)
    torch.manual_seed(2)
    second, other = importance(model, loader), importance(model, loader, seed=1)
    assert torch.equal(flat(first), flat(second))
    assert not torch.equal(flat(first), flat(other))


@pytest.mark.parametrize("fails", [False, True])
def test_the_teacher_and_the_generators_are_left_as_they_were(fails: bool) -> None:
    """A teacher left frozen, in eval mode or hooked distils wrongly ever after, silently."""
    model: Any = teacher().train()
    model.encoder.layer[0].eval()
    model.embeddings.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    learnt = [parameter.requires_grad for parameter in model.parameters()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()

    def loss(asked: Any, batch: Any) -> Tensor:
        assert not asked.encoder.layer[1].training
        value = states_loss(asked, batch)
        if fails:
            raise RuntimeError("as a model may")
        return value

    batches = DataLoader(tokens(), batch_size=4, shuffle=True)
    if fails:
        with pytest.raises(RuntimeError, match="as a model may"):
            importance(model, batches, loss=loss)
    else:
        importance(model, batches, loss=loss)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == learnt
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_scores_do_not_depend_on_who_asks(context: Any) -> None:
    """Inside a caller's no_grad there are no gradients to score by."""
    model, batch = teacher(), inputs()
    wanted = importance(model, [batch], loss=states_loss)
    with context():
        found = importance(model, [batch], loss=states_loss)
    assert torch.equal(flat(found), flat(wanted))
    assert not flat(found).requires_grad


def test_half_precision_scores_agree() -> None:
    """A mask of another type than the model's would make its next layer fail, or the model wide."""
    model, batch = teacher().float(), inputs()
    wanted = importance(model, [batch], loss=states_loss)
    found = importance(model.bfloat16(), [batch], loss=states_loss)
    assert found.hidden.dtype == torch.float64
    assert torch.corrcoef(torch.stack([flat(found), flat(wanted)]))[0, 1] > 0.99


def test_sums_over_tokens_do_not_overflow() -> None:
    """A thousand tokens of 100 each are more than half precision holds."""
    module = nn.Identity()
    masks = Masks([Site(module, (Units(None, 0, HIDDEN),), reads=False)], Size(1, 32, 4, 48))
    with masks.attached():
        shown = module(torch.full((1, 1000, 32), 100.0, dtype=torch.float16))
    assert shown.dtype == torch.float16
    (found,) = masks.gradients(shown.float().sum())[Units(None, 0, HIDDEN)]
    assert torch.equal(found, torch.full((32,), 1e5, dtype=torch.float64))


def test_scores_are_kept_and_serve_several_sizes(tmp_path: Path) -> None:
    """Scored again for each size, a search over students would cost a pass of the teacher each."""
    model = teacher("Electra")
    scores = importance(model, [inputs()])
    scores.save(tmp_path / "scores.safetensors")
    again = Importance.load(tmp_path / "scores.safetensors")
    assert torch.equal(flat(scores), flat(again))
    small, large = (
        extract(model, size, how=again).indices for size in ("L1-H8-A1-F10-E6", "L2-H24-A3-F20-E12")
    )
    assert set(small.hidden) < set(large.hidden)
    assert set(small.layers[0].ffn) < set(large.layers[1].ffn)
    top = scores.hidden.argsort(descending=True)[:8]
    assert set(small.hidden) == set(top.tolist())


def test_auto_takes_the_loss_of_the_teachers_head() -> None:
    """A labelled teacher scored by its hidden states would ignore its task."""
    headed, batch = teacher("Bert", "ForSequenceClassification"), inputs()
    labelled = {**batch, "labels": torch.tensor([0, 1])}
    ours, task = (importance(headed, [labelled], loss=loss) for loss in ("auto", "task"))
    assert torch.equal(flat(ours), flat(task))
    bare = teacher()
    ours, hidden = (importance(bare, [batch], loss=loss) for loss in ("auto", "hidden"))
    assert torch.equal(flat(ours), flat(hidden))
    below = importance(headed, [labelled], loss="hidden")
    assert torch.equal(flat(below), flat(importance(headed.bert, [batch])))
    assert torch.equal(flat(hidden), flat(importance(bare, [batch], loss=HiddenProbe(0))))


def test_batches_that_do_not_fit_the_loss_are_refused() -> None:
    """Labels that are missing or cover every token give a loss that says nothing."""
    masked, batch = teacher("Bert", "ForMaskedLM"), inputs()
    remedy = "batches must hold labels of some tokens for loss='masked-lm', got {}. Collate"
    with pytest.raises(ValueError, match=remedy.format("none")):
        importance(masked, [batch])
    nowhere = {**batch, "labels": torch.full((2, 7), -100)}
    with pytest.raises(ValueError, match=remedy.format("0 of 12")):
        importance(masked, [nowhere])
    everywhere = {**batch, "labels": batch["input_ids"].where(batch["attention_mask"] == 1, -100)}
    with pytest.raises(ValueError, match=remedy.format("12 of 12")):
        importance(masked, [everywhere])
    classifier = teacher("Bert", "ForSequenceClassification")
    with pytest.raises(ValueError, match="must hold labels for the teacher's own loss, got input"):
        importance(classifier, [batch])
    with pytest.raises(ValueError, match="at least one sequence, got none"):
        importance(classifier, [])
    with pytest.raises(ValueError, match="must hold tensors by name, got input_ids"):
        importance(classifier, [{"input_ids": [1, 2]}])


def test_unknown_names_and_models_are_refused() -> None:
    """A name with a slip in it must not fall back to another loss."""
    bare, batches = teacher(), [inputs()]
    with pytest.raises(ValueError, match=r"loss must be one of .*got 'hiden'.*mean 'hidden'\?"):
        importance(bare, batches, loss="hiden")
    with pytest.raises(ValueError, match="loss must be 'hidden' for a teacher without a head"):
        importance(bare, batches, loss="task")
    with pytest.raises(ValueError, match="got 'masked-lm' for BertForTokenClassification"):
        importance(teacher("Bert", "ForTokenClassification"), batches, loss="masked-lm")
    with pytest.raises(ValueError, match="hidden must be one of layers, shared, got 'sum'"):
        importance(bare, batches, hidden="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss must give a scalar that depends on the teacher"):
        importance(bare, batches, loss=lambda model, batch: torch.zeros(()))
    with pytest.raises(ValueError, match="teacher must be a transformers model, got 'Linear'"):
        importance(nn.Linear(2, 2), batches)  # type: ignore[arg-type]


def test_wrapped_and_adapted_teachers_are_refused() -> None:
    """Wrapped, a model may run past the masks; adapters hide its projections."""
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match="unwrap what is compiled or parallel"):
        importance(nn.DataParallel(teacher()), [inputs()])  # type: ignore[arg-type]
    model: Any = tiny.model("Bert")
    with warnings.catch_warnings():
        # peft 0.19 asks transformers 5 by an old name.
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(ValueError, match="Merge adapters first"):
        importance(adapted, [inputs()])


def test_units_that_no_mask_saw_are_refused() -> None:
    """A compiled layer ignores new hooks, and a loss may skip a stack: both would score 0."""
    model: Any = teacher("Bart")

    def of_encoder(asked: Any, batch: Any) -> Tensor:
        return asked.encoder(**batch).last_hidden_state.mean()

    with pytest.raises(ValueError, match="batches must run through every layer of the teacher"):
        importance(model, [inputs()], loss=of_encoder)


def test_scores_that_are_not_finite_are_refused() -> None:
    """An overflow would be the highest score of all."""
    model = teacher().float()
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match="scores must be finite, got"):
        importance(model, [inputs()])
