"""Rows: what a batch shows, without its padding; and back, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from hf_distill.cache.rows import (
    Layout,
    PerHead,
    PerPair,
    PerToken,
    Pooled,
    Spans,
    layouts,
    row_counts,
)
from hf_distill.objectives.pooling import pooled
from hf_distill.signals.head import head_of
from hf_distill.signals.pooling import Pooling
from hf_distill.signals.rows import Targets
from hf_distill.signals.signals import PADDING_LOGIT, Demand
from tests.training.runs import (
    CAUSAL,
    HEADLESS,
    HEADS,
    MASKED,
    SEQ2SEQ,
    SEQUENCE,
    SPAN,
    TOKEN,
    student,
)

MASKS = {
    "ragged": [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
    "to the left": [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]],
    "with holes": [[1, 0, 1, 1, 0], [0, 1, 0, 0, 1], [1, 1, 0, 1, 1]],
    "one of nothing": [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]],
}
BATCH, TOKENS, HEAD_COUNT = 3, 5, 2


@pytest.fixture(params=MASKS)
def targets(request: pytest.FixtureRequest) -> Targets:
    return Targets(torch.tensor(MASKS[request.param]).bool())


def places(mask: Tensor) -> Iterator[tuple[int, int]]:
    """The real tokens, example by example."""
    for example in range(BATCH):
        for token in range(TOKENS):
            if mask[example, token]:
                yield example, token


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def token_rows(signal: Tensor, mask: Tensor) -> list[Tensor]:
    return [signal[b, t] for b, t in places(mask)]


def span_rows(signal: Tensor, mask: Tensor) -> list[Tensor]:
    return [torch.stack([signal[b, 0, t], signal[b, 1, t]]) for b, t in places(mask)]


def head_rows(signal: Tensor, mask: Tensor) -> list[Tensor]:
    return [torch.cat([signal[b, a, t] for a in range(HEAD_COUNT)]) for b, t in places(mask)]


def pair_rows(signal: Tensor, mask: Tensor) -> list[Tensor]:
    return [
        torch.stack([signal[b, a, t, other] for a in range(HEAD_COUNT)])
        for b, t in places(mask)
        for other in range(TOKENS)
        if mask[b, other]
    ]


CASES: dict[str, tuple[Layout, Tensor, Any, float]] = {
    "tokens": (PerToken(), noise(BATCH, TOKENS, 4), token_rows, 0.0),
    "spans": (Spans(fill=PADDING_LOGIT), noise(BATCH, 2, TOKENS), span_rows, PADDING_LOGIT),
    "heads": (PerHead(heads=HEAD_COUNT), noise(BATCH, HEAD_COUNT, TOKENS, 3), head_rows, 0.0),
    "pairs": (PerPair(), noise(BATCH, HEAD_COUNT, TOKENS, TOKENS), pair_rows, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_the_loop_and_come_back(case: str, targets: Targets) -> None:
    """Rows in another order, or of padding, are another token's from the first ragged batch on."""
    layout, signal, naive, fill = CASES[case]
    expected = naive(signal, targets.mask)
    rows = layout.rows(signal, targets)
    assert torch.equal(rows, torch.stack(expected))
    returned = layout.signal(rows, targets)
    assert returned.shape == signal.shape
    again = naive(returned, targets.mask)
    assert torch.equal(torch.stack(again), rows)
    real = layout.rows(torch.ones_like(signal), targets)
    kept = layout.signal(real, targets) == 1
    assert torch.equal(kept, torch.isclose(returned, signal) & kept)
    assert (returned[~kept] == fill).all()


@pytest.mark.parametrize("case", CASES)
def test_counts_divide_the_rows_by_example(case: str, targets: Targets) -> None:
    """A count that is off by one gives every example after it the rows of its neighbour."""
    layout, signal, _, _ = CASES[case]
    counts = row_counts(targets)[layout.unit]
    divided = layout.rows(signal, targets).split(counts.tolist())
    for index, own in enumerate(divided):
        alone = Targets(targets.mask[index : index + 1])
        assert torch.equal(own, layout.rows(signal[index : index + 1], alone))


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_pooled_states_pool_to_the_same_numbers(
    pooling: Pooling, dtype: torch.dtype, targets: Targets
) -> None:
    """A mean that is kept and pooled again is divided by the number of tokens twice."""
    hidden = noise(BATCH, TOKENS, 4).to(dtype)
    layout = Pooled(pooling=pooling)
    rows = layout.rows(hidden, targets)
    for index in range(BATCH):
        real = [hidden[b, t] for b, t in places(targets.mask) if b == index] or [0 * hidden[0, 0]]
        own = real[0].float() if pooling == "first" else sum(one.float() for one in real)
        torch.testing.assert_close(rows[index].float(), own)
    shown = layout.signal(rows, targets)
    assert shown.shape == hidden.shape
    expected, _ = pooled(hidden, targets.mask, pooling)
    found, _ = pooled(shown, targets.mask, pooling)
    assert torch.equal(found, expected)
    assert (row_counts(targets)[layout.unit] == 1).all()


EVERY = Demand(
    logits=True,
    layers={
        "hidden": frozenset({0, 2, 3}),
        "attention": frozenset({1}),
        "attention_scores": frozenset({1}),
        "query": frozenset({2}),
        "key": frozenset({2}),
        "value": frozenset({2}),
    },
    pooled={2: "mean", 3: "first"},
)


@pytest.mark.parametrize(
    ("kind", "expected"),
    {
        SEQUENCE: Layout("sequence"),
        TOKEN: PerToken(),
        SPAN: Spans(fill=PADDING_LOGIT),
        MASKED: Layout("kept"),
        CAUSAL: Layout("kept"),
        SEQ2SEQ: Layout("kept"),
    }.items(),
)
def test_logits_lie_as_their_head_shows_them(kind: str, expected: Layout) -> None:
    """A language model's rows are its predictions; a tagger's are all tokens, labelled or not."""
    found: Mapping[str, Layout] = layouts(EVERY, head_of(student(kind)), heads=4)
    assert found["logits"] == expected
    assert found["logits"].__class__ is expected.__class__


def test_layers_lie_as_they_are_demanded() -> None:
    """Pooled where one state is read, whole elsewhere: layer 0 read as pooled loses its tokens."""
    found = layouts(EVERY, head_of(student(SEQUENCE)), heads=4)
    assert found.pop("logits") == Layout("sequence")
    assert found == {
        "hidden.0": PerToken(),
        "hidden.2": Pooled(pooling="mean"),
        "hidden.3": Pooled(pooling="first"),
        "attention.1": PerPair(),
        "attention_scores.1": PerPair(),
        **{f"{signal}.2": PerHead(heads=4) for signal in ("query", "key", "value")},
    }
    nothing = layouts(Demand(), head_of(student(HEADLESS)), heads=4)
    assert nothing == {}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_count_their_rows(kind: str) -> None:
    """The decoder's rows beside the encoder's tokens: one count for both is right for neither."""
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    inputs = {"input_ids": torch.full((2, 4), 5), "attention_mask": mask}
    if kind == SEQ2SEQ:
        inputs["labels"] = torch.tensor([[5, 2], [2, -100]])
    elif kind in (MASKED, CAUSAL, TOKEN):
        inputs["labels"] = torch.tensor([[-100, 5, 6, -100], [-100, -100, 5, 6]])
    if kind == TOKEN:
        inputs["labels"] = inputs["labels"].clamp(max=2)
    head = head_of(student(kind))
    counts = row_counts(head.targets(head.complete(inputs)))
    assert counts["token"].tolist() == [3, 4]
    assert counts["pair"].tolist() == [9, 16]
    assert counts["sequence"].tolist() == [1, 1]
    kept = {SEQ2SEQ: [2, 1], MASKED: [2, 2], CAUSAL: [2, 2]}
    assert counts["kept"].tolist() == kept.get(kind, [3, 4])
