"""A cache stands in for its teachers: nothing of them is loaded, and what differs is named."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from hf_distill import Adapter, Ensemble
from hf_distill.cache.cache import INDEX
from hf_distill.cache.folder import Folder
from hf_distill.objectives import HiddenMSE, KLDivergence, LogitMSE, MiniLMv2, SimilarityKL
from hf_distill.release.card import render
from hf_distill.teacher.cached import CachedTeacher
from tests import tiny
from tests.training.caches import TERMS, reading, write, written
from tests.training.runs import (
    CLASSES,
    HEADLESS,
    SEQUENCE,
    TOKEN,
    examples,
    logged,
    lora,
    student,
    teacher,
    trainer,
)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A cache, and the folder of its teacher, which was named by its path."""
    folder = tmp_path_factory.mktemp("held")
    teacher().save_pretrained(folder / "teacher")
    return written(folder, teacher=str(folder / "teacher")), folder / "teacher"


def unload(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no model may be loaded."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded.")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refused)


def test_no_teacher_is_loaded(
    held: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory that was to be saved, taken by weights that are never run."""
    unload(monkeypatch)
    place, source = held
    for named in (None, str(source), source):
        run = reading(tmp_path, place, teacher=named)
        assert isinstance(run.teacher, CachedTeacher)
        run.train()
        assert len(logged(run)) == 2


def test_the_teachers_folder_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that looks into its teacher's folder cannot be taken to another machine."""
    teacher().save_pretrained(tmp_path / "teacher")
    live = trainer(tmp_path, teacher=str(tmp_path / "teacher"), objectives=TERMS)
    write(live, tmp_path / "cache")
    shutil.rmtree(tmp_path / "teacher")
    shutil.move(tmp_path / "cache", tmp_path / "moved")
    unload(monkeypatch)
    run = reading(tmp_path, tmp_path / "moved")
    for each in (run, live):
        each.train()
    assert logged(run) == pytest.approx(logged(live), rel=1e-5)


def test_no_weight_of_a_teacher_is_held(held: tuple[Path, Path], tmp_path: Path) -> None:
    """A model of the teacher's size beside the student, zeros or not."""
    gc.collect()
    before = {id(each) for each in gc.get_objects() if isinstance(each, nn.Parameter)}
    model = student()
    run = reading(tmp_path, held[0], model=model)
    own = {id(each) for each in run.model.parameters()}
    gc.collect()
    added = [
        each
        for each in gc.get_objects()
        if isinstance(each, nn.Parameter) and id(each) not in before | own and not each.is_meta
    ]
    assert added == []


def test_facts_of_the_teacher_stay_on_the_card(held: tuple[Path, Path], tmp_path: Path) -> None:
    """A student whose card names no teacher, or one of 0 parameters."""
    place, source = held
    live, run = trainer(tmp_path, teacher=str(source), objectives=TERMS), reading(tmp_path, place)
    run.train()
    mine, theirs = run.describe(), live.describe()
    assert mine.teacher == theirs.teacher
    assert mine.teacher_name == theirs.teacher_name == source.name
    assert mine.teacher_cache == "float32"
    assert "read from a cache (float32)" in render(mine)
    run.create_model_card()
    narrow = written(tmp_path, teacher_dtype="bfloat16")
    told = reading(tmp_path, narrow).describe()
    assert told.teacher_dtype == "bfloat16"
    assert "run in bfloat16, read from a cache (float32)" in render(told)


def _renamed() -> nn.Module:
    model = teacher()
    model.config.id2label = {0: "LABEL_1", 1: "LABEL_0", 2: "LABEL_2"}
    return model


OTHERS: dict[str, Callable[[Path], Any]] = {
    "weights": lambda folder: student(seed=9),
    "one weight": lambda folder: _touched(),
    "classes": lambda folder: _renamed(),
    "a path": lambda folder: _saved(student(seed=9), folder),
    "several": lambda folder: Ensemble([teacher(), student(seed=9)], lead=0),
}


def _touched() -> nn.Module:
    model = teacher()
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    return model


def _saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder / "another")
    return str(folder / "another")


@pytest.mark.parametrize("name", OTHERS)
def test_another_teacher_is_named(name: str, held: tuple[Path, Path], tmp_path: Path) -> None:
    """Yesterday's teacher goes on teaching after it was fine-tuned again."""
    place, source = held
    match = rf"teacher must be the one of the cache, {source} of digest \w+, got .* of digest \w+"
    with pytest.raises(ValueError, match=match):
        reading(tmp_path, place, teacher=OTHERS[name](tmp_path))


def test_the_same_teacher_is_known_however_it_is_named(
    held: tuple[Path, Path], tmp_path: Path
) -> None:
    """A copy of its folder, other shards of its files, the model itself: refused for its name."""
    place, source = held
    shutil.copytree(source, tmp_path / "copied")
    teacher().save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    for named in (teacher(), tmp_path / "copied", str(tmp_path / "sharded")):
        assert isinstance(reading(tmp_path, place, teacher=named).teacher, CachedTeacher)


def test_adapters_are_told_of(held: tuple[Path, Path], tmp_path: Path) -> None:
    """An adapter is no path to be loaded."""
    config = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    model = lora(student(), **config)
    model.add_adapter("expert", LoraConfig(**config, init_lora_weights=False))
    with pytest.raises(ValueError, match=r"got Adapter\(.*which is never cached. Leave it out"):
        reading(tmp_path, held[0], model=model, teacher=Adapter("expert"))


TOGETHER: dict[str, dict[str, Any]] = {
    "weights": {"weights": (2, 1)},
    "combine": {"combine": "confidence"},
    "lead": {"lead": 1},
}


def both(**how: Any) -> Ensemble:
    return Ensemble([teacher(), teacher(initializer_range=0.3)], **{"lead": 0, **how})


@pytest.mark.parametrize("name", TOGETHER)
def test_other_combinations_are_named(name: str, tmp_path: Path) -> None:
    """The same models, weighted otherwise, are another teacher."""
    place = written(tmp_path, teacher=both())
    run = reading(tmp_path, place, teacher=both())
    run.train()
    with pytest.raises(ValueError, match=rf"must be combined as those of the cache, .*'{name}': "):
        reading(tmp_path, place, teacher=both(**TOGETHER[name]))
    turned = Ensemble(list(reversed(both().teachers)), lead=0)
    with pytest.raises(ValueError, match="teacher must be the one of the cache"):
        reading(tmp_path, place, teacher=turned)
    with pytest.raises(ValueError, match="teacher must be the one of the cache"):
        reading(tmp_path, place, teacher=teacher())


LACKING: dict[str, tuple[dict[str, Any], str]] = {
    "a layer": (
        {"objectives": TERMS, "layer_mapping": {"hidden": [(1, 1), (2, 3)]}},
        "it lacks hidden.1, hidden.3",
    ),
    "a signal": ({"objectives": {"v2": (1.0, MiniLMv2())}}, "it lacks key.4, query.4, value.4"),
    "the type": ({"teacher_dtype": "bfloat16"}, "precision is another, as loaded instead of bfl"),
    "the tokenizer": (
        {"processing_class": tiny.tokenizer("other")},
        r"its tokenizer is another, \w+ instead of \w+",
    ),
}


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of a run with a tokenizer."""
    return written(tmp_path_factory.mktemp("tokenized"), processing_class=tiny.tokenizer())


@pytest.mark.parametrize("name", LACKING)
def test_what_is_lacking_is_named(name: str, tokenized: Path, tmp_path: Path) -> None:
    """A layer that is not there is asked for in the first step, as a KeyError."""
    given, match = LACKING[name]
    with pytest.raises(ValueError, match=match) as told:
        reading(tmp_path, tokenized, **given)
    assert "teacher_cache must serve this training, got one that does not" in str(told.value)
    reading(tmp_path, tokenized, processing_class=tiny.tokenizer()).train()
    reading(tmp_path, tokenized, teacher_dtype="auto").train()


def test_logits_that_are_not_kept_are_named(tmp_path: Path) -> None:
    """A cache of hidden states alone, and an objective that would be shown None."""
    place = written(tmp_path, objectives={"hidden": (1.0, HiddenMSE())})
    with pytest.raises(ValueError, match="it lacks logits"):
        reading(tmp_path, place)


def test_pooled_states_serve_no_tokens(tmp_path: Path) -> None:
    """A sum at the first token's place is not that token's state."""
    pooled = {"similarity": (1.0, SimilarityKL(temperature=0.2))}
    place = written(tmp_path, objectives=pooled)
    reading(tmp_path, place, objectives=pooled).train()
    for other in (
        {"hidden": (1.0, HiddenMSE())},
        {"similarity": (1.0, SimilarityKL(temperature=0.2, pooling="first"))},
    ):
        with pytest.raises(ValueError, match=r"it lacks hidden\."):
            reading(tmp_path, place, objectives=other)


def test_heads_and_classes_are_the_teachers(tmp_path: Path) -> None:
    """The checks of two models, which have only one now."""
    place = written(tmp_path)
    with pytest.raises(ValueError, match="teacher must have the student's kind of head"):
        reading(tmp_path, place, TOKEN)
    labels = {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
    with pytest.raises(ValueError, match="labels of student and teacher must have the same names"):
        reading(tmp_path, place, model=student(**CLASSES, **labels))
    # What is compared without a head is of any.
    kept = written(tmp_path / "h", objectives={"hidden": (1.0, HiddenMSE())})
    run = reading(
        tmp_path,
        kept,
        HEADLESS,
        objectives={"hidden": (1.0, HiddenMSE())},
        train_dataset=examples(8, labelled=False),
    )
    run.train()


def test_numbers_of_a_regression_have_no_names(tmp_path: Path) -> None:
    """Names that mean nothing are looked up: 'score' is not in list."""
    terms = {"mse": (1.0, LogitMSE())}
    one = {"num_labels": 1}
    named = {"id2label": {0: "score"}, "label2id": {"score": 0}, **one}
    data = [{**each, "labels": torch.tensor(0.5)} for each in examples(8)]
    given: dict[str, Any] = {"objectives": terms, "train_dataset": data}
    place = written(tmp_path, model=student(**one), teacher=teacher(**one), **given)
    live = trainer(tmp_path, model=student(**named), teacher=teacher(**one), **given)
    run = reading(tmp_path, place, model=student(**named), **given)
    for each in (live, run):
        each.train()
    assert logged(run) == pytest.approx(logged(live), rel=1e-5)


def _shortened(data: list[Any]) -> list[Any]:
    cut = ("input_ids", "attention_mask")
    return [{n: each[:4] if n in cut else each for n, each in one.items()} for one in data]


def _reworded(data: list[Any]) -> list[Any]:
    data[3]["input_ids"][0] = 59
    return data


@pytest.mark.parametrize(("change", "missing"), [(_shortened, 7), (_reworded, 1)])
def test_other_texts_are_told_of_before_the_first_step(
    change: Any, missing: int, held: tuple[Path, Path], tmp_path: Path
) -> None:
    """One changed text among a million stops the training on the third day."""
    data = change(examples(8))
    known = {str(one["input_ids"].tolist()) for one in examples(8)}
    assert sum(str(one["input_ids"].tolist()) not in known for one in data) == missing
    run = reading(tmp_path, held[0], train_dataset=data)
    with pytest.raises(ValueError, match=rf"got {missing} of 8 that it lacks: their texts, their"):
        run.train()
    assert run.state.global_step == 0


def test_unfinished_and_missing_caches_are_refused(tmp_path: Path) -> None:
    """Half a cache is found out when the other half is asked for."""
    with pytest.raises(ValueError, match="teacher_cache must be the folder of a cache, got"):
        reading(tmp_path, tmp_path / "nowhere")
    place = written(tmp_path)
    Folder(place).remove(INDEX)
    with pytest.raises(ValueError, match="teacher_cache must be finished, got"):
        reading(tmp_path, place)


def test_caches_may_stand_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL is no path: joined to the working folder it is never found."""
    monkeypatch.setattr("hf_distill.cache.folder.HOME", tmp_path / "home")
    live = trainer(tmp_path, objectives=TERMS)
    url = "memory://elsewhere/cache"
    assert write(live, url).finished  # type: ignore[arg-type]
    run = reading(tmp_path, url, objectives={"kl": (1.0, KLDivergence())})
    run.train()
    assert not (Path.cwd() / "memory:").exists()
    assert SEQUENCE in type(run.model).__name__
