"""The student's config: sizes read, filled in, and refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertModel, FNetConfig

from hf_distill.student import PRESETS, Size, student_config
from tests import tiny
from tests.student.teachers import CASES, FAMILIES

BASE = BertConfig()
"""BERT-base: L12-H768-A12-F3072, vocabulary 30522, 512 positions."""


@pytest.mark.parametrize(
    ("name", "parameters"), [("13M", 12_750_080), ("22M", 22_713_216), ("33M", 33_360_000)]
)
def test_presets_have_the_published_parameter_counts(name: str, parameters: int) -> None:
    """A preset that misses one size is compared with published models of another."""
    with torch.device("meta"):
        model = BertModel(student_config(name, BASE))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("13M", "L6-H256-A8-F1024"),
        ("L3-H384", "L3-H384-A6-F1536"),
        ("L4-H312-A12-F1200", "L4-H312-A12-F1200"),
        ("L4-H312-A12", "L4-H312-A12-F1248"),
        ("L6", "L6-H768-A12-F3072"),
        ("L6-F1000", "L6-H768-A12-F1000"),
        ({"num_hidden_layers": 2, "hidden_size": 128}, "L2-H128-A2-F512"),
        ({"intermediate_size": 100}, "L12-H768-A12-F100"),
        (BertConfig(num_hidden_layers=5, vocab_size=7), "L5-H768-A12-F3072"),
    ],
)
def test_sizes_are_read_and_filled_in(size: Any, expected: str) -> None:
    """A size that silently stays the teacher's makes a student larger than its name."""
    config = student_config(size, BASE)
    assert str(Size.of(config)) == expected
    assert config.vocab_size == BASE.vocab_size
    assert str(Size.of(student_config(expected, BASE))) == expected


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        ("DistilBert", "L1-H16-F20", "L1-H16-A2-F20"),
        ("Electra", "L1-H16-E8", "L1-H16-A2-F24-E8"),
        ("Electra", "L1", "L1-H32-A4-F48-E16"),
        ("Albert", "L1-H16-E8", "L1-H16-A2-F24-E8"),
        ("DebertaV2", "L1-H16-A4", "L1-H16-A4-F24"),
        ("MPNet", "L1-H16", "L1-H16-A2-F24"),
        ("ModernBert", "L1-H16-A4", "L1-H16-A4-F24"),
        ("GPT2", {"n_layer": 1, "n_embd": 16, "n_inner": 20}, "L1-H16-A2-F20"),
        ("Llama", "L1-H16", "L1-H16-A2-F24-G1"),
        ("Llama", "L1-A2", "L1-H32-A2-F48-K8-G1"),
        ("Llama", "L1-K4", "L1-H32-A4-F48-K4-G2"),
        ("Qwen2", "L1-A2-G2", "L1-H32-A2-F48-K8"),
        ("Qwen3", "L1-H16-A4", "L1-H16-A4-F24-G2"),
        ("Qwen3", {"head_dim": 8}, "L2-H32-A4-F48-G2"),
        ("T5", "L1-H16", "L1-H16-A2-F24-K16-D1"),
        ("T5", "L2-D1-F20", "L2-H32-A4-F20-K16-D1"),
        ("T5", {"d_kv": 8, "num_decoder_layers": 1}, "L2-H32-A4-F48-D1"),
        ("Bart", "L1-H16-D2", "L1-H16-A2-F24-D2"),
        ("Bart", {"decoder_layers": 1, "encoder_layers": 2}, "L2-H32-A4-F48-D1"),
    ],
)
def test_every_family_is_sized_by_its_own_names(family: str, size: Any, expected: str) -> None:
    """A size written under a name that the family does not read leaves the teacher's."""
    teacher = tiny.config(family)
    config = student_config(size, teacher)
    assert str(Size.of(config)) == expected
    assert config.num_hidden_layers == Size.of(config).layers
    assert str(Size.of(type(config)(**config.to_dict()))) == expected


@pytest.mark.parametrize("name", CASES)
def test_dropout_reaches_every_part_of_every_family(name: str) -> None:
    """One of a family's own names forgotten: the student trains with what it was to do without."""
    family, head, changes = CASES[name]
    model = tiny.model(family, head, **changes)
    model = type(model)(student_config("L1", model.config, dropout=0.25))
    rates = {
        path: module.p for path, module in model.named_modules() if isinstance(module, nn.Dropout)
    }
    functional = {
        path: module.dropout
        for path, module in model.named_modules()
        if isinstance(getattr(module, "dropout", None), float)
    }
    assert set({**rates, **functional}.values()) <= {0.25}, rates
    assert rates or functional or family in ("Llama", "Qwen2", "Qwen3")


@pytest.mark.parametrize(("inner", "size", "neurons"), [(None, "L1", 128), (None, "L1-F20", 20)])
def test_gpt2_s_neurons_are_set_where_its_config_leaves_them_open(
    inner: int | None, size: str, neurons: int
) -> None:
    """Every GPT-2 names none: four times the width, which a smaller number must override."""
    config = student_config(size, tiny.config("GPT2", intermediate_size=inner))
    model = transformers.GPT2Model(config)
    assert model.h[0].mlp.c_fc.weight.shape == (32, neurons)
    assert Size.of(config).ffn == neurons


def test_heads_keep_the_teachers_head_size() -> None:
    """A rule fixed to 64 channels a head would cut inside the heads of a MiniLM teacher."""
    minilm = BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=12)
    assert Size.of(student_config("L3-H256", minilm)).heads == 8


def test_all_but_the_sizes_is_the_teachers() -> None:
    """Lost label names give a checkpoint that answers LABEL_0; lost dropout trains another."""
    teacher = tiny.config(
        "Roberta",
        id2label={0: "no", 1: "yes", 2: "maybe"},
        label2id={"no": 0, "yes": 1, "maybe": 2},
        problem_type="single_label_classification",
        hidden_dropout_prob=0.37,
    )
    before = teacher.to_dict()
    student = student_config("L1-H16-A2-F40", teacher)
    changed = {name for name, value in student.to_dict().items() if before.get(name, ...) != value}
    assert changed == {
        "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size",
    }  # fmt: skip
    assert type(student) is type(teacher)
    student.id2label[0] = "changed"
    assert teacher.to_dict() == before


def test_the_teachers_path_is_not_kept() -> None:
    """The Trainer's model card would call the student a fine-tuned version of its teacher."""
    teacher = tiny.config()
    teacher.name_or_path = "some/teacher"
    assert student_config("L1", teacher).name_or_path == ""
    assert teacher.name_or_path == "some/teacher"


def test_layer_types_follow_the_layers_kept() -> None:
    """A list of twelve types over six layers gives the kept layers the wrong ones."""
    teacher = tiny.config(num_hidden_layers=4)
    teacher.layer_types = ["full_attention", "sliding_attention"] * 2
    assert student_config("L2", teacher).layer_types == ["sliding_attention"] * 2
    kept = student_config("L2", teacher, layers=(1, 4)).layer_types
    assert kept == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("L13", r"layers of size must be at most the teacher's \(12\), got 13"),
        ("L6-H832", r"width of size must be at most the teacher's \(768\), got 832"),
        ("L6-H800", r"width of size must be at most the teacher's \(768\), got 800"),
        ("L6-F3073", r"ffn of size must be at most the teacher's \(3072\), got 3073"),
        ("L6-H384-A24", r"heads of size must be at most the teacher's \(12\), got 24"),
        ("L6-H384-A4", r"head_size of size must be at most the teacher's \(64\), got 96"),
        ("L6-H380-A12", r"width of size must be divisible by its heads \(12\), got 380"),
        ("L4-H312", r"must name its heads .* head size \(64\), got 'L4-H312'"),
        ("L0-H64", r"layers of size must be at least 1, got 0"),
        ("L6-H64-A0", r"heads of size must be at least 1, got 0"),
        ("14M", r"size must be one of 13M, 22M, 33M or like .*, got '14M'\. Did you mean"),
        ("small", r"size must be one of .*, got 'small'"),
        ("H384-L6", r"size must be one of"),
        ({"num_key_value_heads": 2}, r"got 'num_key_value_heads'"),
        (22, r"size must be one of .*, got 22"),
        ({"hiden_size": 64}, r"got 'hiden_size'\. Did you mean 'hidden_size'"),
        ({"hidden_size": "64"}, r"hidden_size must be an int, got '64'"),
        (tiny.config("Roberta"), r"the teacher's family \(bert\), got model_type 'roberta'"),
    ],
)
def test_a_size_that_cannot_be_cut_is_refused(size: Any, message: str) -> None:
    """What passes here fails while weights are copied, or copies the wrong ones."""
    with pytest.raises(ValueError, match=message):
        student_config(size, BASE)


@pytest.mark.parametrize("letter", ["L3", "L2-D3", "L2-H64", "L2-A9", "L2-F49", "L2-K17", "L2-E65"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_larger_than_the_teachers(family: str, letter: str) -> None:
    """What no unit of the teacher fills would be left at random."""
    with pytest.raises(ValueError, match=r"of size must be .*, got \d+"):
        student_config(letter, tiny.config(family))


def test_a_family_without_tables_is_refused() -> None:
    """A family cut by another's tables would be left partly at random."""
    with pytest.raises(ValueError, match=r"\(bert, roberta, .*\), got model_type 'fnet'"):
        student_config("L1", FNetConfig())


def test_presets_are_named_as_they_print() -> None:
    """A recipe that quotes a preset's long name must get the same student."""
    assert {name: str(size) for name, size in PRESETS.items()} == {
        "13M": "L6-H256-A8-F1024",
        "22M": "L6-H384-A12-F1536",
        "33M": "L12-H384-A12-F1536",
    }


def test_dropout_is_the_student_s_own() -> None:
    """A dropout that reaches the hidden states and not the attention still masks what is learnt."""
    teacher = tiny.config("Bert", hidden_dropout_prob=0.1, classifier_dropout=0.3)
    assert student_config("L1", teacher).hidden_dropout_prob == 0.1
    config = student_config("L1", teacher, dropout=0.0)
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.0)
    assert config.classifier_dropout == 0.0
    assert teacher.classifier_dropout == 0.3


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_impossible_dropout_is_refused(dropout: float) -> None:
    """Torch says so only when the model is built, and 1 leaves nothing to learn from."""
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        student_config("L1", tiny.config("Bert"), dropout=dropout)
