"""Recipes whose teacher is run once: `write_cache`, and the key `teacher_cache`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from hf_distill.cache import folder as places
from hf_distill.recipe.caching import CacheRequest, write_cache
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked, read
from hf_distill.recipe.run import Request, run
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.writing import Written
from hf_distill.training import caching
from hf_distill.training.trainer import DistillationTrainer
from tests.recipe import examples

Recipe = dict[str, Any]

HEADS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "text": "",
}
OBJECTIVES = {"kl": {"type": "KLDivergence"}, "hidden": {"type": "HiddenMSE"}}


def _run(found: Recipe, output: Path, **options: Any) -> dict[str, Any]:
    return run(Request(recipe=checked(found, "recipe.yaml"), name="tiny", output=output, **options))


def _cache(found: Recipe, output: Path, place: Any, **options: Any) -> Written:
    return write_cache(
        CacheRequest(checked(found, "recipe.yaml"), output, str(place), **options), _SAID.append
    )


_SAID: list[str] = []


@pytest.fixture
def said() -> list[str]:
    """What a command says."""
    _SAID.clear()
    return _SAID


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where caches stand that were given no place."""
    monkeypatch.setattr(caching, "HOME", tmp_path / "home")
    monkeypatch.setattr(places, "HOME", tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def classes(tmp_path: Path) -> Recipe:
    """A recipe for text-classification."""
    return examples.recipe(tmp_path, "text-classification", objectives=dict(OBJECTIVES))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call showed of a live teacher."""
    found: list[int] = []
    plain = LiveTeacher.show

    def counted(self: Any, inputs: Any, targets: Any) -> Any:
        found.append(len(targets.mask))
        return plain(self, inputs, targets)

    monkeypatch.setattr(LiveTeacher, "show", counted)
    return found


def _weights(folder: Path, task: str = "text-classification") -> dict[str, torch.Tensor]:
    auto = getattr(transformers, f"AutoModel{HEADS[task]}")
    return dict(auto.from_pretrained(folder / "student").state_dict())


def _same(left: Path, right: Path) -> bool:
    ours, theirs = _weights(left), _weights(right)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def _card(folder: Path) -> str:
    return (folder / "student" / "README.md").read_text(encoding="utf-8")


def _stamps(folder: Path) -> dict[str, int]:
    """When each file was written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def _steps(patch: pytest.MonkeyPatch, kind: Any) -> list[int]:
    found: list[int] = []
    plain = kind.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(self.state.global_step)
        return plain(self, *args, **kwargs)

    patch.setattr(kind, "training_step", counted)
    return found


@pytest.mark.parametrize("task", HEADS)
def test_a_cache_makes_the_same_student(tmp_path: Path, task: str, shown: list[int]) -> None:
    """A cache of another teacher, or of other examples, trains as well, towards something else."""
    found = examples.recipe(tmp_path, task)
    # Adam would divide a gradient that is nothing but rounding by its own size.
    found["training"] |= {"max_steps": 8, "optim": "sgd", "learning_rate": 0.1}
    live = _run(found, tmp_path / "live")
    shown.clear()
    written = _cache(found, tmp_path / "out", tmp_path / "cache", storage="float32")
    assert (written.examples, written.computed, written.finished) == (32, 32, True)
    assert set(written.errors.values()) == {0.0}
    teacher = _stamps(tmp_path / "out" / "teacher")
    shown.clear()
    results = _run({**found, "teacher_cache": str(tmp_path / "cache")}, tmp_path / "out")
    assert shown == [], "the teacher was run in training"
    assert _stamps(tmp_path / "out" / "teacher") == teacher
    assert results["seconds"]["teacher"] is None
    assert results["scores"].keys() == live["scores"].keys()
    for label, scores in live["scores"].items():
        assert results["scores"][label] == pytest.approx(scores, rel=1e-3), label
    expected = _weights(tmp_path / "live", task)
    for name, tensor in _weights(tmp_path / "out", task).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert "read from a cache (float32)\n" in _card(tmp_path / "out")
    assert "read from a cache" not in _card(tmp_path / "live")


@pytest.mark.parametrize("auto", [False, True])
def test_a_run_with_a_cache_resumes_bit_equal(
    tmp_path: Path, classes: Recipe, monkeypatch: pytest.MonkeyPatch, auto: bool
) -> None:
    """Batches of a resumed run that find other rows, or draws that writing or reading took away."""
    classes["training"] |= {"save_steps": 2, "max_steps": 6, "save_total_limit": 1}
    place = "auto" if auto else str(tmp_path / "cache")
    for output in ("whole", "cut"):
        # Each folder has a teacher of its own, equal to the last bit: one cache serves both.
        _cache(classes, tmp_path / output, tmp_path / "cache")
    found = {**classes, "teacher_cache": place}
    _run(found, tmp_path / "whole")
    with monkeypatch.context() as patch:
        examples.interrupt(patch, DistillationTrainer, 3)
        with pytest.raises(KeyboardInterrupt):
            _run(found, tmp_path / "cut")
    with pytest.raises(ValueError, match="recipe must be the one that"):
        _run(classes, tmp_path / "cut", resume=True)
    steps = _steps(monkeypatch, DistillationTrainer)
    _run(found, tmp_path / "cut", resume=True)
    assert steps == [2, 3, 4, 5]
    assert _same(tmp_path / "cut", tmp_path / "whole")


def test_auto_writes_once(tmp_path: Path, home: Path, classes: Recipe, shown: list[int]) -> None:
    """A key that differs from run to run writes a cache for each, and none is ever read."""
    _run(classes, tmp_path / "live")
    shown.clear()
    named = {**classes, "teacher": {"model": str(tmp_path / "live" / "teacher")}}
    named |= {"teacher_cache": "auto"}
    _run(named, tmp_path / "first")
    assert sum(shown) >= 32
    assert "read from a cache (bfloat16)\n" in _card(tmp_path / "first")
    held = {name: at for name, at in _stamps(home).items() if name.endswith(".safetensors")}
    shown.clear()
    _run({**named, "seed": 4, "student": {"size": "L1-H8"}, "objectives": None}, tmp_path / "other")
    _run(named, tmp_path / "second")
    assert held.items() <= _stamps(home).items()
    assert _same(tmp_path / "first", tmp_path / "second")
    other = [each for each in (home / "teachers").iterdir() if each.name not in str(held)]
    assert len(other) == 1, "other objectives need other signals"
    shown.clear()
    _run(named, tmp_path / "third")
    assert shown == []


def test_another_student_learns_from_the_same_cache(
    tmp_path: Path, classes: Recipe, shown: list[int]
) -> None:
    """A cache that serves one student alone saves nothing where it matters: in a sweep."""
    classes["mapping"] = [[1, 2], [2, 4]]
    _cache(classes, tmp_path / "out", tmp_path / "cache", storage="int8")
    shown.clear()
    found = {**classes, "teacher": {"model": str(tmp_path / "out" / "teacher")}, "seed": 9}
    found |= {"student": {"size": "L3-H24-A3-F32", "init": "random"}, "mapping": [[3, 4]]}
    _run({**found, "teacher_cache": str(tmp_path / "cache")}, tmp_path / "other")
    assert shown == []
    assert "read from a cache (int8)" in _card(tmp_path / "other")
    with pytest.raises(ValueError, match=r"got one that does not: it lacks hidden\.3\. Write an"):
        _run(
            {**found, "mapping": [[3, 3]], "teacher_cache": str(tmp_path / "cache")},
            tmp_path / "lacking",
        )


def test_the_likeliest_classes_alone_are_kept(tmp_path: Path, classes: Recipe) -> None:
    """A card that hides that logits were cut off would have nobody look for it."""
    del classes["objectives"]["hidden"]
    written = _cache(classes, tmp_path / "out", tmp_path / "cache", top=2)
    assert 0 < written.errors["logits"] < 0.1
    _run({**classes, "teacher_cache": str(tmp_path / "cache")}, tmp_path / "out")
    assert "read from a cache (bfloat16, the 2 likeliest classes)" in _card(tmp_path / "out")


def test_writing_goes_on_and_repairs(
    tmp_path: Path, classes: Recipe, said: list[str], shown: list[int]
) -> None:
    """Hours of a teacher that are spent again, or a damaged file that is taught from."""
    place = tmp_path / "cache"
    _cache(classes, tmp_path / "out", place)
    costs = r"Teacher cache: 32 of 32 examples are to be shown once: [\d.]+ MB in 1 files, about"
    assert any(re.match(costs, line) for line in said), said
    again, before = _cache(classes, tmp_path / "out", place), _stamps(place)
    assert (again.computed, again.examples, again.finished) == (0, 32, True)
    (shard,) = place.glob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"got 1 of 1 damaged: .*Write the cache again with its"):
        _run({**classes, "teacher_cache": str(place)}, tmp_path / "out")
    shown.clear()
    repaired = _cache(classes, tmp_path / "out", place)
    assert repaired.computed == 32
    assert any("is damaged" in line for line in said)
    assert _stamps(place).keys() == before.keys()
    classes["data"]["limit"] = 12
    fewer = _cache(classes, tmp_path / "fewer", tmp_path / "growing")
    del classes["data"]["limit"]
    classes["teacher"] = {"model": str(tmp_path / "fewer" / "teacher")}
    more = _cache(classes, tmp_path / "more", tmp_path / "growing")
    assert (fewer.computed, more.computed, more.examples) == (12, 20, 32)


@pytest.mark.parametrize("machines", [1, 2])
def test_places_may_be_urls_and_machines_may_share(
    tmp_path: Path, classes: Recipe, machines: int
) -> None:
    """A URL that is taken for a path makes a folder `memory:`, and other machines see nothing."""
    place = f"memory://{tmp_path.name}/cache"
    classes["training"] |= {"per_device_train_batch_size": 4}
    done = [
        _cache(classes, tmp_path / "out", place, share=(part, machines))
        for part in range(1, machines + 1)
    ]
    assert [each.finished for each in done] == [False] * (machines - 1) + [True]
    assert sum(each.computed for each in done) == 32
    assert all(each.computed for each in done)
    _run({**classes, "teacher_cache": place}, tmp_path / "out")
    assert "read from a cache" in _card(tmp_path / "out")


def test_one_machine_fine_tunes_the_teacher(tmp_path: Path, classes: Recipe) -> None:
    """Eight machines with a teacher each would write a cache of eight teachers."""
    with pytest.raises(ValueError, match=r"must have been carried out by share 1/8, got no such t"):
        _cache(classes, tmp_path / "out", tmp_path / "cache", share=(2, 8))
    assert not (tmp_path / "out").exists()
    _cache(classes, tmp_path / "out", tmp_path / "cache", share=(1, 8))
    teacher = _stamps(tmp_path / "out" / "teacher")
    _cache(classes, tmp_path / "out", tmp_path / "cache", share=(2, 8))
    assert _stamps(tmp_path / "out" / "teacher") == teacher


def test_file_systems_that_are_not_installed_are_named(
    tmp_path: Path, classes: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A traceback out of another library, and the one line that says what to install at its end."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    told = r"must be on a file system that is installed, got 's3://bucket/cache'\. Install s3fs"
    with pytest.raises(ValueError, match=told):
        _cache(classes, tmp_path / "out", "s3://bucket/cache")


def test_several_teachers_are_kept_as_one(tmp_path: Path, classes: Recipe) -> None:
    """Of an ensemble the mean is kept: of one teacher alone it would be another lesson."""
    del classes["objectives"]["hidden"]
    classes["training"] |= {"optim": "sgd", "learning_rate": 0.1}
    classes["teacher"]["models"] = [classes["teacher"].pop("model")] * 2
    live = _run(classes, tmp_path / "live")
    _cache(classes, tmp_path / "out", tmp_path / "cache", storage="float32")
    assert (tmp_path / "out" / "teachers" / "2").is_dir()
    results = _run({**classes, "teacher_cache": str(tmp_path / "cache")}, tmp_path / "out")
    assert "read from a cache (float32)" in _card(tmp_path / "out")
    assert results["scores"] == live["scores"]
    expected = _weights(tmp_path / "live")
    for name, tensor in _weights(tmp_path / "out").items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_chains_keep_each_teacher_by_itself(tmp_path: Path, home: Path, classes: Recipe) -> None:
    """One cache for all links would have the first teacher teach the student."""
    classes |= {"assistants": [{"size": "L4-H24-A3-F32"}], "teacher_cache": "auto"}
    _run(classes, tmp_path / "out")
    assert len(list((home / "teachers").iterdir())) == 2
    assert "read from a cache" in _card(tmp_path / "out" / "assistants" / "1")
    assert "read from a cache" in _card(tmp_path / "out")
    assistant = read(tmp_path / "out" / "assistants" / "1" / "recipe.yaml")
    assert assistant.teacher_cache == "auto"
    with pytest.raises(ValueError, match=r"assistants must be left out .*, got 1: each .* auto\."):
        _cache(classes, tmp_path / "refused", tmp_path / "cache")
    with pytest.raises(RecipeError, match="teacher_cache must be auto where there are assistants"):
        checked({**classes, "teacher_cache": "here"}, "recipe.yaml")


def test_fine_tuning_is_continued(
    tmp_path: Path, classes: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher of half the old settings and half the new ones would look like any other."""
    classes["teacher"]["training"] |= {"save_steps": 2, "max_steps": 6}
    _cache(classes, tmp_path / "whole", tmp_path / "cache")
    for changed, expected in ((False, [2, 3, 4, 5]), (True, [0, 1, 2, 3, 4, 5])):
        output = tmp_path / f"cut-{changed}"
        with monkeypatch.context() as patch:
            examples.interrupt(patch, transformers.Trainer, 3)
            with pytest.raises(KeyboardInterrupt):
                _cache(classes, output, tmp_path / f"cache-{changed}")
        if changed:
            classes["teacher"]["training"] |= {"learning_rate": 3e-3}
        with monkeypatch.context() as patch:
            steps = _steps(patch, transformers.Trainer)
            _cache(classes, output, tmp_path / f"cache-{changed}")
        assert steps == expected
        assert {path.name for path in output.iterdir()} == {"recipe.yaml", "teacher"}
    whole, cut = (
        load_file(tmp_path / name / "teacher" / "model.safetensors")
        for name in ("whole", "cut-False")
    )
    if "bert.embeddings.LayerNorm.gamma" in whole:
        pytest.skip("transformers 5.0 saves norms by old names, and loses them when it resumes")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_teacher_of_other_settings_is_kept(tmp_path: Path, classes: Recipe) -> None:
    """A cache whose teacher is gone: the next student would be cut out of another."""
    _cache(classes, tmp_path / "out", tmp_path / "cache")
    before = _stamps(tmp_path)
    classes["teacher"]["training"] |= {"max_steps": 3}
    told = r"output must be free of teachers that other settings made, got '.*/out/teacher'\. Name"
    with pytest.raises(ValueError, match=told):
        _cache(classes, tmp_path / "out", tmp_path / "other")
    with pytest.raises(ValueError, match=told):
        _run(classes, tmp_path / "out")
    assert _stamps(tmp_path) == before
    _run(classes, tmp_path / "out", overwrite=True)
    assert _stamps(tmp_path)["out/teacher/config.json"] != before["out/teacher/config.json"]


def test_the_run_that_is_in_the_folder_is_left_alone(
    tmp_path: Path, classes: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that costs the checkpoints of a run, or the teacher that its card speaks of."""
    classes["training"] |= {"save_steps": 2, "max_steps": 6}
    _run(classes, tmp_path / "whole")
    with monkeypatch.context() as patch:
        examples.interrupt(patch, DistillationTrainer, 3)
        with pytest.raises(KeyboardInterrupt):
            _run(classes, tmp_path / "cut")
    for output in ("whole", "cut"):
        before = _stamps(tmp_path / output)
        assert _cache(classes, tmp_path / output, tmp_path / "cache").finished
        assert _stamps(tmp_path / output) == before
        classes["teacher"]["training"] |= {"max_steps": 3}
        with pytest.raises(ValueError, match=r"recipe must be the one .* with --output"):
            _cache(classes, tmp_path / output, tmp_path / "other")
        classes["teacher"]["training"] |= {"max_steps": 4}
        assert _stamps(tmp_path / output) == before
    _run(classes, tmp_path / "cut", resume=True)
    assert _same(tmp_path / "cut", tmp_path / "whole")


def test_foreign_folders_are_left_alone(tmp_path: Path, classes: Recipe) -> None:
    """A folder `teacher` that is somebody's own must not become ours."""
    mine = tmp_path / "mine"
    (mine / "teacher").mkdir(parents=True)
    (mine / "teacher" / "thesis.txt").write_text("years", encoding="utf-8")
    with pytest.raises(ValueError, match="output must be a new or empty folder, or one of a run"):
        _cache(classes, mine, tmp_path / "cache")
    with pytest.raises(ValueError, match="the folder of a cache must be new, empty or a cache"):
        _cache(classes, tmp_path / "out", mine)
    with pytest.raises(ValueError, match="the folder of a cache must be new, empty or a cache"):
        _cache(classes, tmp_path / "out", mine / "teacher" / "thesis.txt")
    assert not (tmp_path / "out").exists(), "said before the teacher was fine-tuned"
    assert _stamps(mine).keys() == {"teacher/thesis.txt"}


def test_a_cache_without_its_teacher_is_refused_before_anything_is_done(
    tmp_path: Path, classes: Recipe
) -> None:
    """Fine-tuned anew, a teacher is the same on one machine only; found out hours later."""
    _cache(classes, tmp_path / "out", tmp_path / "cache")
    found = {**classes, "teacher_cache": str(tmp_path / "cache")}
    with pytest.raises(ValueError, match=r"teacher\.training must have been carried out before"):
        _run(found, tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="teacher_cache must be the folder of a cache, got"):
        _run({**classes, "teacher_cache": str(tmp_path / "nowhere")}, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    other = {**classes["teacher"], "training": {**examples.TRAINING, "max_steps": 2}}
    _cache({**classes, "teacher": other}, tmp_path / "other", tmp_path / "cache-of-other")
    named = {**found, "teacher": {"model": str(tmp_path / "other" / "teacher")}}
    with pytest.raises(ValueError, match="teacher must be the one of the cache"):
        _run(named, tmp_path / "third")
    mine = {**found, "teacher": {"model": str(tmp_path / "out" / "teacher")}}
    _run(mine, tmp_path / "fourth")
    assert "read from a cache (bfloat16)" in _card(tmp_path / "fourth")
