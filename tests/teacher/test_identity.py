"""Who a teacher is: digests that change with it alone, and models of its shape that hold none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill.signals.head import head_of
from hf_distill.teacher.identity import files_digest, hollow, taught_by, weights_digest
from hf_distill.training.pairing import class_names, load_teacher, shape_of
from tests import tiny
from tests.training.runs import OFFERED, SEQUENCE, TOKEN, lora, student, teacher


@pytest.mark.parametrize(("family", "head"), OFFERED)
def test_hollow_models_have_the_teachers_shape(family: str, head: str) -> None:
    """A model of another shape passes the checks, and the projections are of the wrong width."""
    torch.manual_seed(7)
    drawn = torch.get_rng_state()
    model = teacher(head, family)
    torch.manual_seed(7)
    found = hollow(taught_by(model))
    assert torch.equal(torch.get_rng_state(), drawn), "random numbers were drawn."
    assert type(found) is type(model)
    assert all(each.is_meta for each in (*found.parameters(), *found.buffers()))
    assert shape_of(found) == shape_of(model)
    assert (head_of(found).suffix, head_of(found).problem) == (head, head_of(model).problem)
    assert class_names(found) == class_names(model)


def test_hollow_models_keep_their_name_and_task() -> None:
    """A teacher of several labels, read back as one of exclusive classes."""
    labels = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}, "num_labels": 2}
    model = student(SEQUENCE, problem_type="multi_label_classification", **labels)
    model.name_or_path = "someone/bert"
    found = hollow(taught_by(model))
    assert found.name_or_path == "someone/bert"
    assert head_of(found).problem == "multi_label"
    assert class_names(found) == ["no", "yes"]


@pytest.mark.parametrize(
    "change", [{"model_class": "NoSuchModel"}, {"config": {"model_type": "x"}}]
)
def test_unknown_classes_are_refused(change: dict[str, Any]) -> None:
    """An AttributeError of transformers says nothing of the version that wrote the cache."""
    taught = taught_by(student()).model_copy(update=change)
    with pytest.raises(ValueError, match=r"teacher of a cache must be of a class of transformers"):
        hollow(taught)


def test_weights_are_told_apart_by_any_number() -> None:
    """A digest of names and shapes takes a fine-tuned teacher for its base."""
    first, same, other = student(), student(), student(seed=9)
    assert weights_digest(first) == weights_digest(same) != weights_digest(other)
    for name, weight in same.named_parameters():
        digest = weights_digest(same)
        with torch.no_grad():
            weight.view(-1)[-1] += 1e-3
        assert weights_digest(same) != digest, name
    narrow = student().bfloat16()
    assert weights_digest(narrow) != weights_digest(first)
    assert weights_digest(narrow.float()) != weights_digest(first)


def test_values_are_not_taken_for_their_bits_elsewhere() -> None:
    """Joined bytes alone: two tensors that exchange their values are the same model."""
    first, other = student(), student()
    layers = other.bert.encoder.layer
    with torch.no_grad():
        for mine, theirs in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
            held = mine.clone()
            mine.copy_(theirs)
            theirs.copy_(held)
    assert weights_digest(first) != weights_digest(other)


def test_buffers_and_adapters_are_part() -> None:
    """The adapter is what makes a shared base an expert."""
    one, other = (lora(student(), target_modules=["query"]) for _ in range(2))
    digest = weights_digest(one)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if "lora_B" in name:
                weight.add_(1.0)
    assert weights_digest(other) != digest != weights_digest(student())


def test_a_saved_teacher_is_the_one_in_memory(tmp_path: Path) -> None:
    """What a config gains by being saved would make every reloaded teacher another one."""
    model = teacher(SEQUENCE)
    model.save_pretrained(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    loaded = [load_teacher(tmp_path / name, head_of(model)) for name in ("a", "b")]
    taught = [taught_by(model), *(taught_by(one, one.name_or_path) for one in loaded)]
    assert len({one.digest() for one in taught}) == 1
    assert taught[0].files is None
    assert taught[1].files == taught[2].files == files_digest(tmp_path / "a")
    assert taught[1].name != taught[2].name


def test_class_orders_and_numerics_of_a_config_are_part() -> None:
    """Weights alone: the classes exchanged in the config teach the opposite."""
    model = teacher(SEQUENCE)
    digest = taught_by(model).digest()
    model.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}
    assert taught_by(model).digest() != digest
    model = teacher(SEQUENCE)
    model.config.layer_norm_eps = 1e-5
    assert taught_by(model).digest() != digest


def test_files_are_told_apart_by_weights_config_and_adapters(tmp_path: Path) -> None:
    """A folder whose adapter or config changed passes unread for the teacher of yesterday."""
    teacher(TOKEN).save_pretrained(tmp_path)
    seen = {files_digest(tmp_path)}
    (tmp_path / "trainer_state.json").write_text("{}")
    assert files_digest(tmp_path) in seen
    for name in ("model.safetensors", "config.json", "adapter_config.json", "adapter_model.bin"):
        file = tmp_path / name
        file.write_bytes((file.read_bytes() if file.exists() else b"") + b" ")
        seen.add(files_digest(str(tmp_path)))
    assert len(seen) == 5


def test_files_without_safetensors_have_no_digest(tmp_path: Path) -> None:
    """An empty digest would be the same for every such folder."""
    tiny.config().save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert files_digest(tmp_path) is None
