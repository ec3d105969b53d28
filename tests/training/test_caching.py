"""A trainer writes what its teacher shows, and does without it then."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from torch import Tensor
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from hf_distill import Adapter, Ensemble
from hf_distill.cache import folder as folder_room
from hf_distill.cache.cache import Cache, read_about
from hf_distill.cache.folder import Folder
from hf_distill.objectives import HiddenMSE, KLDivergence, LogitMSE
from hf_distill.release.card import render
from hf_distill.signals import Signals
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.identity import weights_digest
from hf_distill.teacher.live import LiveTeacher
from hf_distill.training import caching
from tests import tiny
from tests.training.caches import TERMS, reading, write, written
from tests.training.runs import (
    CAUSAL,
    HEADLESS,
    MASKED,
    SEQUENCE,
    SPAN,
    collate,
    examples,
    logged,
    lora,
    student,
    teacher,
    trainer,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where 'auto' keeps its caches."""
    for room in (folder_room, caching):
        monkeypatch.setattr(room, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def shows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples live teachers were shown, call by call."""
    asked: list[int] = []
    real = LiveTeacher.show

    def counted(self: LiveTeacher, inputs: Any, targets: Any) -> Signals:
        asked.append(len(targets.mask))
        return real(self, inputs, targets)

    monkeypatch.setattr(LiveTeacher, "show", counted)
    return asked


def test_what_is_written_is_told(tmp_path: Path, shows: list[int]) -> None:
    """A night of a teacher begins without a word of how large its cache will be."""
    told: list[str] = []
    found = write(trainer(tmp_path, objectives=TERMS), tmp_path / "c", say=told.append)
    assert (found.examples, found.computed, found.finished) == (8, 8, True)
    assert found.errors.keys() == {"logits", "hidden.0", "hidden.2", "hidden.4"}
    assert len(told) == 1
    assert "8 of 8 examples are to be shown once" in told[0]
    assert sum(shows) <= 8 + 2 * 4
    again = write(trainer(tmp_path, objectives=TERMS), tmp_path / "c", say=told.append)
    assert (again.computed, len(told)) == (0, 1)


def test_what_is_written_is_bfloat16_and_logged_by_default(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice the disk, or silence, where nothing was said."""
    trainer(tmp_path, objectives=TERMS).write_teacher_cache(tmp_path / "c")
    assert "Teacher cache: 8 of 8 examples are to be shown once" in caplog.text
    assert read_about(Folder(tmp_path / "c")).shown.storage == "bfloat16"


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "storage": ({"storage": "float16"}, "storage must be one of float32, bfloat16, int8, got 'fl"),
    "none of the classes": ({"top": 0}, "top must be a whole number of at least 1, got 0"),
    "half a class": ({"top": 1.5}, "top must be a whole number of at least 1, got 1.5"),
    "a flag": ({"top": True}, "top must be a whole number of at least 1, got True"),
    "more than there are": ({"top": 4}, "top must be at most the number of classes, 3, got 4"),
    "a share": ({"share": (2, 1)}, r"share must be \(i, n\) with i from 1 to n, got \(2, 1\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused_before_a_byte(case: str, tmp_path: Path) -> None:
    """A word that is not known falls back to something, or fails after an hour."""
    how, match = WRONG[case]
    with pytest.raises(ValueError, match=match):
        write(trainer(tmp_path, objectives=TERMS), tmp_path / "c", **how)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("head", "changes", "terms"),
    [
        (SPAN, {}, {"kl": (1.0, KLDivergence())}),
        (SEQUENCE, {"num_labels": 1}, {"mse": (1.0, LogitMSE())}),
        (HEADLESS, {}, {"hidden": (1.0, HiddenMSE())}),
    ],
)
def test_the_likeliest_are_of_exclusive_classes(
    head: str, changes: dict[str, Any], terms: Any, tmp_path: Path
) -> None:
    """The two largest of a regression's numbers, the rest spread evenly."""
    models = {"model": student(head, **changes), "teacher": teacher(head, **changes)}
    run = trainer(tmp_path, head, **models, objectives=terms)
    with pytest.raises(ValueError, match="top must be left out where no logits of exclusive class"):
        write(run, tmp_path / "c", top=1)


def test_the_likeliest_classes_teach_almost_the_same(tmp_path: Path) -> None:
    """Of a vocabulary the rest is worth nothing: unless its mass is lost."""
    terms = {"kl": (1.0, KLDivergence())}
    live = trainer(tmp_path, CAUSAL, objectives=terms)
    found = write(trainer(tmp_path, CAUSAL, objectives=terms), tmp_path / "c", top=20)
    assert 0 < found.errors["logits"] < 0.2
    cached = reading(tmp_path, tmp_path / "c", CAUSAL, objectives=terms)
    for run in (live, cached):
        run.train()
    assert logged(cached) == pytest.approx(logged(live), rel=0.2)
    assert logged(cached) != logged(live)


def test_only_live_teachers_are_written(tmp_path: Path) -> None:
    """A cache of a cache: rounded twice, under the name of the teacher."""
    place = written(tmp_path)
    with pytest.raises(ValueError, match="a cache must be written by live teachers, got a trainer"):
        write(reading(tmp_path, place), tmp_path / "other")


def test_adapters_of_the_student_are_not_cached(tmp_path: Path) -> None:
    """The base below the adapter is the student's own."""
    config = {"target_modules": ["query"], "task_type": "SEQ_CLS"}
    model = lora(student(), **config)
    model.add_adapter("expert", LoraConfig(**config, init_lora_weights=False))
    given = {"model": model, "teacher": Adapter("expert"), "objectives": TERMS}
    with pytest.raises(
        ValueError, match="a cached teacher must be a model of its own, got Adapter"
    ):
        trainer(tmp_path, **given, teacher_cache="auto").train()


class Streamed(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """A stream that claims a length."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return iter(examples(8))

    def __len__(self) -> int:
        return 8


def _stream() -> Any:
    listed = [{name: each.tolist() for name, each in one.items()} for one in examples(8)]
    return IterableDataset.from_generator(lambda: iter(listed))


@pytest.mark.parametrize("make", [_stream, Streamed])
@pytest.mark.parametrize("place", ["auto", "folder"])
def test_streams_are_refused(make: Any, place: str, tmp_path: Path) -> None:
    """What has no place cannot be gone on with; torch would say 'batch_sampler' and no more."""
    cache = written(tmp_path) if place == "folder" else place
    run = reading(tmp_path, cache, teacher=teacher(), train_dataset=make())
    with pytest.raises(ValueError, match="train_dataset must have a length to be cached, got"):
        run.train()


class Shuffling:
    """A data set that draws words anew each time it is read."""

    column_names = ("input_ids", "attention_mask", "labels")

    def __init__(self) -> None:
        self._held = examples(8)

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        ids = self._held[index]["input_ids"]
        return {**self._held[index], "input_ids": ids[torch.randperm(len(ids))]}


def test_data_that_is_drawn_anew_is_refused(tmp_path: Path) -> None:
    """Augmentation and dynamic masks: a cache of texts that never come again."""
    place = written(tmp_path)
    for cache in ("auto", place):
        run = reading(tmp_path, cache, teacher=teacher(), train_dataset=Shuffling())
        with pytest.raises(ValueError, match="masking or augmentation is drawn anew, and a cache"):
            run.train()


def test_dynamic_masking_is_refused(tmp_path: Path) -> None:
    """The collator's masks are as random as a data set's."""
    rows = [{"input_ids": one["input_ids"].tolist()} for one in examples(8, labelled=False)]
    read = tiny.tokenizer()
    run = trainer(
        tmp_path,
        MASKED,
        objectives={"kl": (1.0, KLDivergence())},
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorForLanguageModeling(read, mlm_probability=0.5),
    )
    with pytest.raises(ValueError, match="masking or augmentation is drawn anew, and a cache of"):
        write(run, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_data_is_read_as_in_training(tmp_path: Path) -> None:
    """Texts beside tokens, a tokenizer's padding, workers: another reader gives other keys."""
    rows = [
        {"text": "unread", **{name: each.tolist() for name, each in one.items()}}
        for one in examples(8)
    ]
    given: dict[str, Any] = {
        "train_dataset": Dataset.from_list(rows),
        "data_collator": DataCollatorWithPadding(tiny.tokenizer(), pad_to_multiple_of=8),
        "processing_class": tiny.tokenizer(),
    }
    place = written(tmp_path, **given)
    live = trainer(tmp_path, objectives=TERMS, **given)
    cached = reading(tmp_path, place, **given)
    for run in (live, cached):
        run.train()
    assert logged(cached) == pytest.approx(logged(live), rel=1e-5)
    # The same texts, padded by another hand.
    assert reading(tmp_path, place).train() is not None


def test_scanning_draws_nothing(tmp_path: Path) -> None:
    """A collator that draws, of what no teacher reads: other dropout than without a cache."""

    def noisy(batch: Any) -> dict[str, Tensor]:
        made = collate(batch)
        return {**made, "labels": torch.randint(0, 3, made["labels"].shape)}

    dropout = {"hidden_dropout_prob": 0.1}
    live = trainer(tmp_path, objectives=TERMS, data_collator=noisy, model=student(**dropout))
    place = written(tmp_path, data_collator=noisy)
    cached = reading(tmp_path, place, data_collator=noisy, model=student(**dropout))
    auto = reading(
        tmp_path, "auto", teacher=teacher(), data_collator=noisy, model=student(**dropout)
    )
    losses = []
    for run in (live, cached, auto):
        torch.manual_seed(3)
        run.train()
        losses.append(logged(run))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=0.01)


def test_auto_writes_once_and_reads_then(tmp_path: Path, home: Path, shows: list[int]) -> None:
    """A cache that never hits costs a pass over the data in each run, and saves none."""
    first = trainer(tmp_path, objectives=TERMS, teacher_cache="auto")
    assert isinstance(first.teacher, LiveTeacher)
    first.train()
    assert isinstance(first.teacher, CachedTeacher)
    written_then = len(shows)
    assert 0 < sum(shows) <= 8 + 2 * 4
    first.train()
    second = trainer(tmp_path, objectives=TERMS, teacher_cache="auto")
    second.train()
    assert len(shows) == written_then
    (kept,) = (home / "teachers").iterdir()
    assert len(Cache(Folder(kept))) == 8
    # More examples go into the same folder, and only they are shown.
    shows.clear()
    grown = [*examples(8), *examples(12)]
    third = trainer(tmp_path, objectives=TERMS, teacher_cache="auto", train_dataset=grown)
    third.train()
    assert sum(shows) <= 12 + 2 * 4
    assert len(list((home / "teachers").iterdir())) == 1


CHANGES: dict[str, Any] = {
    "teacher": lambda: {"teacher": student(seed=9)},
    "needs": lambda: {"objectives": {"kl": (1.0, KLDivergence())}},
    "precision": lambda: {"teacher_dtype": "bfloat16"},
    "autocast": lambda: {"bf16": True},
    "tokenizer": lambda: {"processing_class": tiny.tokenizer()},
    "several": lambda: {"teacher": several()},
    "weighted": lambda: {"teacher": Ensemble([teacher(), student(seed=9)], lead=0, weights=(2, 1))},
}


def test_auto_keeps_apart_what_differs(tmp_path: Path, home: Path) -> None:
    """Another teacher's rows under one name, found by the same texts."""
    trainer(tmp_path, objectives=TERMS, teacher_cache="auto").train()
    for name, change in CHANGES.items():
        before = len(list((home / "teachers").iterdir()))
        given = {"objectives": TERMS, **change()}
        trainer(tmp_path, **given, teacher_cache="auto").train()
        assert len(list((home / "teachers").iterdir())) == before + 1, name


def test_auto_knows_a_teacher_by_its_weights(tmp_path: Path, home: Path, shows: list[int]) -> None:
    """A model in memory and the same one in a folder, or cast when it is loaded: written again."""
    model = teacher()
    model.save_pretrained(tmp_path / "teacher")
    trainer(tmp_path, teacher=model, objectives=TERMS, teacher_cache="auto").train()
    shows.clear()
    path = str(tmp_path / "teacher")
    trainer(tmp_path, teacher=path, objectives=TERMS, teacher_cache="auto").train()
    assert shows == []
    cast = trainer(
        tmp_path, teacher=path, objectives=TERMS, teacher_cache="auto", teacher_dtype="bfloat16"
    )
    assert cast._about("bfloat16", None).teachers[0].weights == weights_digest(teacher())


def several() -> Ensemble:
    return Ensemble([teacher(), student(seed=9)], lead=0)


@pytest.mark.parametrize("make", [teacher, several])
def test_auto_lets_go_of_its_teacher(make: Any, tmp_path: Path) -> None:
    """The memory of the teacher, kept through a training that never runs it."""
    taught = make()
    models = taught.teachers if make is several else [taught]
    references = [weakref.ref(model) for model in models]
    run = trainer(tmp_path, teacher=taught, objectives=TERMS, teacher_cache="auto")
    del taught, models
    run.train()
    gc.collect()
    assert [each() for each in references] == [None] * len(references)
    run.save_model(str(tmp_path / "saved"))


def test_cards_tell_of_the_teacher_that_is_gone(tmp_path: Path) -> None:
    """A student of nobody, or of a model of no parameters."""
    live = trainer(tmp_path, objectives=TERMS)
    auto = trainer(tmp_path, objectives=TERMS, teacher_cache="auto")
    for run in (live, auto):
        run.train()
    mine, theirs = (run.describe() for run in (auto, live))
    assert mine.teacher == theirs.teacher
    assert mine.teacher_name == theirs.teacher_name
    assert mine.teacher_cache == "bfloat16"
    assert "read from a cache (bfloat16)" in render(mine)


def test_no_number_is_refused_before_the_first_step(tmp_path: Path) -> None:
    """NaN that is written is NaN in every run that ever reads it."""
    model = teacher()
    with torch.no_grad():
        model.classifier.weight[0, 0] = float("nan")
    run = trainer(tmp_path, teacher=model, objectives=TERMS, teacher_cache="auto")
    with pytest.raises(
        FloatingPointError, match=r"got others in logits. Run it in bfloat16 or flo"
    ):
        run.train()
    assert run.state.global_step == 0


def test_evaluation_goes_on_without_the_teacher(tmp_path: Path) -> None:
    """What is evaluated never ran the teacher; a cache that is asked for it has no such texts."""
    place = written(tmp_path)
    run = reading(tmp_path, place, eval_dataset=examples(5))
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] != before
