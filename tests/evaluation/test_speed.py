"""Sizes and speeds of tiny models."""

from __future__ import annotations

import os
import platform
import re
import socket
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_distill.evaluation import speed
from tests import tiny

TEXTS = ["w1 w2", "w3", "w1 w2 w3 w1", "w2", "w3 w3"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = {"[PAD]": 0, "w1": 4, "w2": 5, "w3": 6}
    fast = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", model_input_names=names
    )


class Listening(nn.Module):
    """Notes what it is given."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.layer, self.name, self.calls = nn.Linear(1, 1), name, calls

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.calls.append((self.name, len(input_ids)))
        return self.layer(torch.ones(1))


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_megabytes_are_those_of_the_file(tmp_path: Path, head: str, dtype: torch.dtype) -> None:
    """Tied embeddings counted twice, or four bytes for half precision, misstate the size."""
    model = tiny.model("Bert", head).to(dtype)
    model.save_pretrained(tmp_path)
    written = (tmp_path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(written[:8], "little")
    assert speed.sizes(model).megabytes == pytest.approx((len(written) - header) / 1e6)


def test_parameters_are_counted_once() -> None:
    """A tied decoder adds vocabulary x width parameters that do not exist."""
    plain, tied = tiny.model("Bert", "Model", tie_word_embeddings=True), nn.Linear(4, 3)
    tied.extra = tied.weight
    assert speed.sizes(tied).parameters == 15
    counted, width = speed.sizes(plain), 32
    assert counted.parameters == plain.num_parameters()
    tables = (tiny.VOCABULARY + 40 + 2) * width
    assert counted.non_embedding_parameters == counted.parameters - tables


def test_a_tied_decoder_is_an_embedding() -> None:
    """The decoder of a masked-language model would count as a layer."""
    model = tiny.model("Bert", "ForMaskedLM")
    counted = speed.sizes(model)
    assert counted.parameters == sum(each.numel() for each in set(model.parameters()))
    assert counted.parameters - counted.non_embedding_parameters == (60 + 40 + 2) * 32


def test_models_take_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    """Measured one after the other, a busy minute makes one model slow."""
    calls: list[tuple[str, int]] = []
    pair = {name: Listening(name, calls) for name in "ab"}
    result = speed.sentences_per_second(pair, tokenizer, TEXTS, batch_size=2, rounds=4)
    order = "".join(name for name, _ in calls)
    assert order == "aabb" + "aabb" + "bbaa" + "aabb" + "bbaa"
    assert {size for _, size in calls} == {2}
    assert list(result) == ["a", "b"]
    for each in result.values():
        assert 0 < each.lowest <= each.median <= each.highest
        assert each.rounds == 4


def test_time_ends_the_rounds_but_not_before_three(tokenizer: PreTrainedTokenizerFast) -> None:
    """One round has no spread, and passes for a measurement."""
    pair = {"a": Listening("a", [])}
    result = speed.sentences_per_second(pair, tokenizer, TEXTS, 1, rounds=50, seconds=0.0)
    assert result["a"].rounds == 3


def test_speed_is_sentences_by_time(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches per second, or sentences that were left out, misstate the speed."""
    times = iter(range(100))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(times))
    pair = {"a": Listening("a", [])}
    result = speed.sentences_per_second(pair, tokenizer, TEXTS, batch_size=2, rounds=3)
    assert result["a"] == speed.Speed(median=4, lowest=4, highest=4, rounds=3)


def test_families_get_what_they_read(tokenizer: PreTrainedTokenizerFast) -> None:
    """DistilBERT has no token types: a teacher's tokenizer would stop the measurement."""
    pair = {family: tiny.model(family) for family in ("Bert", "DistilBert")}
    result = speed.sentences_per_second(pair, tokenizer, TEXTS, batch_size=2, rounds=3)
    assert set(result) == {"Bert", "DistilBert"}


def test_modes_come_back_module_by_module(tokenizer: PreTrainedTokenizerFast) -> None:
    """`model.train()` afterwards wakes the dropout of parts that were kept in evaluation."""
    model = tiny.model("Bert").train()
    model.embeddings.eval()
    before = [part.training for part in model.modules()]
    speed.sentences_per_second({"a": model}, tokenizer, TEXTS, batch_size=2, rounds=3)
    assert [part.training for part in model.modules()] == before

    def broken(input_ids: torch.Tensor) -> None:
        raise RuntimeError("broken")

    model.forward = broken
    with pytest.raises(RuntimeError, match="broken"):
        speed.sentences_per_second({"a": model}, tokenizer, TEXTS, batch_size=2, rounds=3)
    assert [part.training for part in model.modules()] == before


@pytest.mark.parametrize("batch_size", [0, 6])
def test_batches_are_full(tokenizer: PreTrainedTokenizerFast, batch_size: int) -> None:
    """A speed "at batch 32" measured on five sentences is one at batch 5."""
    pair = {"a": Listening("a", [])}
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 5 texts, got"):
        speed.sentences_per_second(pair, tokenizer, TEXTS, batch_size)


def test_rounds_have_a_spread(tokenizer: PreTrainedTokenizerFast) -> None:
    """The median of two rounds is a mean, of one a guess."""
    pair = {"a": Listening("a", [])}
    with pytest.raises(ValueError, match="rounds must be at least 3, got 2"):
        speed.sentences_per_second(pair, tokenizer, TEXTS, 1, rounds=2)


def test_there_is_something_to_measure(tokenizer: PreTrainedTokenizerFast) -> None:
    """An empty table of speeds in a card looks like a fault of the card."""
    with pytest.raises(ValueError, match="models must name at least one model, got"):
        speed.sentences_per_second({}, tokenizer, TEXTS, 1)


def test_the_machine_is_named_but_not_its_owner() -> None:
    """A card is public: a host or a folder tells whose machine it was."""
    line = speed.machine()
    assert "\n" not in line
    assert f"torch {torch.__version__}" in line
    assert f"{torch.get_num_threads()} threads" in line
    assert not re.search(r"(^|[\s;])/", line)
    assert socket.gethostname() not in line.split()
    assert f"of {os.cpu_count()} cores" in line
    assert line.split("; ")[0]


def test_a_device_that_was_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds of a GPU under the name of a CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Fast GPU")
    assert speed.machine("cuda:0").startswith("Fast GPU; ")
    assert speed.machine("meta").startswith("meta device; ")


@pytest.mark.parametrize("system", ["Windows", "Plan9"])
def test_other_systems_are_named(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """What the system does not tell must not stop the measurement, nor be empty."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "release", lambda: "11")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    line = speed.machine()
    assert f"{system} 11" in line
    assert line.startswith(platform.machine())
