"""A teacher's weights are cast as asked, and nobody else's with them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hf_distill import Adapter, Ensemble
from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.signals import Demand
from hf_distill.signals.head import head_of
from hf_distill.teacher import LiveTeacher
from hf_distill.teacher.waiting import WaitingTeacher
from hf_distill.teacher.weights import cast, cast_in_place, dtype_on, is_movable
from tests import tiny
from tests.training.runs import collate, examples, lora, student, teacher, trainer

HIDDEN = {"hidden": (1.0, HiddenMSE())}
KL = {"kl": (1.0, KLDivergence())}
CPU = torch.device("cpu")
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def types(model: nn.Module) -> set[torch.dtype]:
    """Of all weights."""
    return {parameter.dtype for parameter in model.parameters()}


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", HALVES.values(), ids=str)
def test_casts_are_copies_that_run(family: str, dtype: torch.dtype) -> None:
    """A buffer or a constant in another type fails at the first product, in one family."""
    model = tiny.model(family, initializer_range=0.1).requires_grad_(False)
    batch = {name: each for name, each in collate(examples(4)).items() if name != "labels"}
    decoded = {"decoder_input_ids": batch["input_ids"]} if model.config.is_encoder_decoder else {}
    expected = model(**batch, **decoded).last_hidden_state
    narrow = cast(model, dtype)
    found = narrow(**batch, **decoded).last_hidden_state
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.1)
    assert types(model) == {torch.float32}
    assert torch.equal(model(**batch, **decoded).last_hidden_state, expected)
    held = set(map(id, model.modules()))
    assert not any(id(module) in held for module in narrow.modules())


@pytest.mark.parametrize("family", ["ModernBert", "Llama", "Qwen2", "Qwen3"])
def test_rotary_frequencies_are_not_rounded(family: str) -> None:
    """With three digits, position 1000 is turned by a wrong angle; short texts show nothing."""
    model = tiny.model(family).requires_grad_(False)
    narrow = cast(model, torch.bfloat16)
    buffers = {name: buffer for name, buffer in model.named_buffers() if "inv_freq" in name}
    assert buffers
    for name, buffer in narrow.named_buffers():
        if name in buffers:
            assert buffer.dtype == torch.float32
            assert torch.equal(buffer, buffers[name])


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "lora"])
def test_what_overflows_in_float16_stays_in_float32(wrapped: bool) -> None:
    """T5's feed-forward output leaves float16's range: infinities from the first large model on."""
    model: Any = tiny.model("T5", "ForConditionalGeneration")
    model = lora(model, target_modules=["q", "wo"]) if wrapped else model
    model.requires_grad_(False)
    for dtype in HALVES.values():
        for name, parameter in cast(model, dtype).named_parameters():
            wide = dtype == torch.float16 and "wo" in name.split(".")
            assert parameter.dtype == (torch.float32 if wide else dtype), name
    cast_in_place(model, torch.float16)
    assert types(model) == {torch.float32, torch.float16}


def test_what_is_of_the_type_already_is_shared() -> None:
    """A second copy of a large teacher, for nothing."""
    model = tiny.model().requires_grad_(False)
    same = cast(model, torch.float32)
    assert [id(one) for one in same.parameters()] == [id(one) for one in model.parameters()]


def test_tied_weights_stay_tied() -> None:
    """Cast one by one, the vocabulary would be held twice."""
    model: Any = tiny.model("Bert", "ForMaskedLM").requires_grad_(False)
    narrow = cast(model, torch.bfloat16)
    assert narrow.get_input_embeddings().weight is narrow.get_output_embeddings().weight


# By hardware


def supports(monkeypatch: pytest.MonkeyPatch, *queries: str, cuda: bool = False) -> None:
    """Let the hardware compute in bfloat16 as these queries say, and no other."""
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        said = query in queries
        monkeypatch.setattr(torch.cpu, query, lambda said=said: said)
    native = {"including_emulation": False}
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **given: cuda and given == native)


@pytest.mark.parametrize(
    ("device", "queries", "cuda", "expected"),
    [
        ("cpu", (), True, torch.float32),
        ("cpu", ("_is_avx512_bf16_supported",), False, torch.bfloat16),
        ("cpu", ("_is_amx_tile_supported",), False, torch.bfloat16),
        ("cuda", (), True, torch.bfloat16),
        ("cuda", ("_is_avx512_bf16_supported",), False, torch.float16),
        ("mps", ("_is_avx512_bf16_supported",), True, torch.float32),
    ],
)
def test_auto_is_what_the_hardware_is_fastest_in(
    device: str,
    queries: tuple[str, ...],
    cuda: bool,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Emulated half precision is many times slower than float32, and looks like a slow teacher."""
    supports(monkeypatch, *queries, cuda=cuda)
    assert dtype_on(torch.device(device), "auto") == expected
    for name, dtype in HALVES.items():
        assert dtype_on(torch.device(device), name) == dtype


def test_auto_does_without_queries_that_torch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not public: a version may rename one."""
    for query in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, query)
    assert dtype_on(CPU, "auto") == torch.float32


# Given to the trainer


@pytest.mark.parametrize("mixture", [HIDDEN, KL], ids=["truncated", "whole"])
def test_models_that_are_given_keep_their_type(mixture: Any, tmp_path: Path) -> None:
    """The user's own teacher would be rounded for good, and evaluated so afterwards."""
    given = teacher()
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    run = trainer(tmp_path, teacher=given, objectives=mixture, teacher_dtype="bfloat16")
    run.train()
    assert types(run.teacher._model) == {torch.bfloat16}
    for name, tensor in given.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def test_models_that_are_loaded_are_not_held_twice(tmp_path: Path) -> None:
    """In float32 beside bfloat16, the teacher takes more memory than without a type."""
    teacher().save_pretrained(tmp_path / "teacher")
    path = str(tmp_path / "teacher")
    run = trainer(tmp_path, teacher=path, objectives=KL, teacher_dtype="bfloat16")
    loaded = run._teaching._models[0]
    assert types(loaded) == {torch.bfloat16}
    ours = [id(parameter) for parameter in run.teacher._model.parameters()]
    assert ours == [id(parameter) for parameter in loaded.parameters()]
    run.train()


def test_only_what_is_run_is_cast() -> None:
    """A copy of the layers above would be memory for nothing."""
    model, head = teacher(), head_of(student())
    demand = Demand(layers={"hidden": frozenset({1})})
    live = LiveTeacher(model, demand, head, dtype=torch.bfloat16)
    assert len(live._model.encoder.layer) == 1
    run = sum(parameter.numel() for parameter in live._model.parameters())
    assert run < sum(parameter.numel() for parameter in model.parameters()) / 2


def test_each_teacher_of_an_ensemble_is_cast(tmp_path: Path) -> None:
    """One of them in float32 is as slow as all were."""
    both = Ensemble([teacher(), student(seed=5)], lead=0)
    run = trainer(tmp_path, teacher=both, objectives={**KL, **HIDDEN}, teacher_dtype="float16")
    assert [types(each._model) for each in run.teacher._teachers] == [{torch.float16}] * 2
    run.train()
    begun = run._teaching.begin(Demand(logits=True), lambda model, **_: model, torch.device("cuda"))
    assert [type(each) for each in begun._teachers] == [WaitingTeacher] * 2
    assert [types(each._model) for each in begun._teachers] == [{torch.float16}] * 2


def test_the_type_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is another type on the next machine: whoever reads the card has to know which."""
    supports(monkeypatch, "_is_avx512_bf16_supported")
    said: list[str] = []
    log = logging.getLogger("hf_distill.training.teaching")
    monkeypatch.setattr(log, "info", said.append)
    run = trainer(tmp_path, teacher=teacher(), objectives=KL, teacher_dtype="auto")
    assert said == ["Teachers are run in bfloat16."]
    run.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "- Teacher: BertForSequenceClassification, run in bfloat16\n" in card
    trainer(tmp_path, teacher=teacher(), objectives=KL).create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "- Teacher: BertForSequenceClassification\n" in card
    assert len(said) == 1


@pytest.mark.parametrize("name", ["fp16", "int8", torch.bfloat16, ""])
def test_other_types_are_refused(name: Any, tmp_path: Path) -> None:
    """A type that is ignored is a teacher in float32, and nobody knows."""
    remedy = "teacher_dtype must be one of float32, bfloat16, float16, auto, got .*Leave it out"
    with pytest.raises(ValueError, match=remedy):
        trainer(tmp_path, teacher=teacher(), teacher_dtype=name)


def test_adapters_of_the_student_are_not_cast(tmp_path: Path) -> None:
    """The base is the student's own: it would learn in half precision."""
    model = lora(student(), target_modules=["query"], task_type="SEQ_CLS")
    with pytest.raises(ValueError, match=r"left out for Adapter.*got 'auto': the weights are the"):
        trainer(tmp_path, model=model, teacher=Adapter(None), teacher_dtype="auto")


def test_weights_that_stay_where_they_are_are_not_cast(tmp_path: Path) -> None:
    """Quantized weights are no numbers by themselves; a spread model's parts have hooks."""
    spread = teacher()
    spread.hf_device_map = {"bert": 0, "classifier": 1}
    single = teacher()
    single.hf_device_map = {"": 0}
    quantized = teacher()
    quantized.is_quantized = True
    assert [is_movable(model) for model in (spread, single, quantized)] == [False, True, False]
    for model in (spread, quantized):
        with pytest.raises(ValueError, match="left out for a model that is quantized or spread"):
            trainer(tmp_path, teacher=model, teacher_dtype="float16")
    with pytest.raises(ValueError, match=r"teachers\[1\] \(Bert.*is quantized or spread"):
        trainer(tmp_path, teacher=Ensemble([teacher(), quantized]), teacher_dtype="float16")
