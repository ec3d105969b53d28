"""Recipes are carried out, task by task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from hf_distill.recipe.reading import checked, read
from hf_distill.recipe.run import Request, run
from hf_distill.student.indices import EXTRACTION_FILE, IndexSets
from hf_distill.training.trainer import DistillationTrainer
from tests.recipe import examples

Recipes = dict[str, Any]


def _run(found: Recipes, output: Path, **options: Any) -> dict[str, Any]:
    asked = checked(found, "recipe.yaml")
    return run(Request(recipe=asked, name="tiny", output=output, **options))


def _weights(folder: Path, head: str = "ForSequenceClassification") -> dict[str, torch.Tensor]:
    auto = getattr(transformers, f"AutoModel{head}")
    return dict(auto.from_pretrained(folder).state_dict())


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def classes(tmp_path: Path) -> Recipes:
    """A recipe for text-classification."""
    return examples.recipe(tmp_path, "text-classification")


@pytest.mark.parametrize(
    ("task", "head", "metric"),
    [
        ("text-classification", "ForSequenceClassification", "accuracy"),
        ("token-classification", "ForTokenClassification", "f1"),
        ("question-answering", "ForQuestionAnswering", "exact_match"),
        ("text", "", "fidelity"),
    ],
)
def test_every_task_runs(tmp_path: Path, task: str, head: str, metric: str) -> None:
    """A task that trains may still fail in measuring, or leave what nobody can load."""
    output, alone = tmp_path / "out", task != "text"
    results = _run(examples.recipe(tmp_path, task), output, baseline=alone)
    others = {"baseline"} if alone else {"start"}
    assert set(results["scores"]) == {"teacher", "student", *others}
    assert all(metric in scores for scores in results["scores"].values())
    assert results == json.loads((output / "results.json").read_text(encoding="utf-8"))
    assert set(results["speeds"]["student"]) == {"1", "32"}
    assert results["examples"] == {"train": 32, "evaluation": 12}
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["recipe.yaml", "results.json", "student", *(["teacher"] if alone else [])]
    )
    auto = getattr(transformers, f"AutoModel{head}")
    model, report = auto.from_pretrained(output / "student", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.num_hidden_layers == 2
    assert (
        sum(each.numel() for each in model.parameters())
        == (results["sizes"]["student"]["parameters"])
    )


def test_student_is_complete(tmp_path: Path, classes: Recipes) -> None:
    """What is handed over must stand alone: classes by name, a tokenizer that cuts, a card."""
    _run(classes, tmp_path / "out", command="hf-distill train tiny.yaml")
    folder = tmp_path / "out" / "student"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "config.json", EXTRACTION_FILE, "model.safetensors", "tokenizer.json",
         "tokenizer_config.json", "vocab.txt"]
    )  # fmt: skip
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(examples.ANIMALS))
    assert config.label2id == {name: at for at, name in enumerate(examples.ANIMALS)}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == 40
    assert len(tokenizer("cat " * 99, truncation=True)["input_ids"]) == 40
    text = (folder / "vocab.txt").read_text(encoding="utf-8")
    assert text.splitlines() == examples.VOCABULARY
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert not {"is_local", "local_files_only"} & set(settings)
    kept = IndexSets.from_json((folder / EXTRACTION_FILE).read_text(encoding="utf-8"))
    assert kept.sources == (2, 4)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "hf-distill train tiny.yaml" in card
    assert "layers 2, 4, by magnitude" in card
    assert str(tmp_path) not in card


def test_recipe_in_the_folder_makes_the_same_student(tmp_path: Path, classes: Recipes) -> None:
    """recipe.yaml without what `--set` changed would document another run."""
    _run(classes, tmp_path / "one")
    again = read(tmp_path / "one" / "recipe.yaml")
    run(Request(recipe=again, name="again", output=tmp_path / "two"))
    assert _same(_weights(tmp_path / "one" / "student"), _weights(tmp_path / "two" / "student"))


def test_seed_decides(tmp_path: Path, classes: Recipes) -> None:
    """A seed that reaches nothing gives a spread of 0 over seeds."""
    _run({**classes, "seed": 1}, tmp_path / "one")
    _run({**classes, "seed": 2}, tmp_path / "two")
    for name in ("teacher", "student"):
        assert not _same(_weights(tmp_path / "one" / name), _weights(tmp_path / "two" / name))


def test_finished_teacher_is_taken_as_it_is(tmp_path: Path, classes: Recipes) -> None:
    """A teacher with its classes in another order would be asked for the wrong ones."""
    _run(classes, tmp_path / "first")
    folder = tmp_path / "first" / "teacher"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    order = [2, 0, 1]
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order])
        model.classifier.bias.copy_(model.classifier.bias[order])
    names = [examples.ANIMALS[at] for at in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: at for at, name in enumerate(names)}
    model.save_pretrained(folder)
    second = _run({**classes, "teacher": {"model": str(folder)}}, tmp_path / "second")
    first = json.loads((tmp_path / "first" / "results.json").read_text(encoding="utf-8"))
    assert second["scores"]["teacher"] == first["scores"]["teacher"]
    config = transformers.AutoConfig.from_pretrained(tmp_path / "second" / "student")
    assert [config.id2label[at] for at in range(3)] == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"size": "L9"}}, "layers of size must be at most the teacher's"),
        ({"student": {"size": "13"}}, "size must be one of"),
        ({"mapping": [[9, 1]], "objectives": {"h": {"type": "HiddenMSE"}}}, "mapping must be with"),
        ({"objectives": {"a": {"type": "AttentionKL"}}}, "heads"),
        ({"metrics": ["acuracy"]}, "metric must be one of"),
        ({"teacher": {"model": "./nowhere"}}, r"teacher\.model must be a model"),
    ],
)
def test_misfits_are_said_before_the_teacher_is_trained(
    tmp_path: Path, classes: Recipes, changes: Recipes, message: str
) -> None:
    """A student that cannot be built would be noticed only after hours of fine-tuning."""
    with pytest.raises(ValueError, match=message):
        _run({**classes, **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_teacher_without_a_head_is_refused(tmp_path: Path, classes: Recipes) -> None:
    """A random head teaches noise."""
    del classes["teacher"]["training"]
    with pytest.raises(ValueError, match=r"teacher\.model must have the classes of the data"):
        _run(classes, tmp_path / "out")


def test_random_and_loaded_students(tmp_path: Path, classes: Recipes) -> None:
    """A start that is ignored makes an ablation of it worthless."""
    extracted = _run(classes, tmp_path / "extracted")
    teacher = {"model": str(tmp_path / "extracted" / "teacher")}
    for name, student in {
        "random": {"size": "L2-H16-A2-F24", "init": "random"},
        "loaded": {"model": str(tmp_path / "extracted" / "student")},
    }.items():
        found = _run({**classes, "teacher": teacher, "student": student}, tmp_path / name)
        assert found["sizes"]["student"] == extracted["sizes"]["student"]
        assert not (tmp_path / name / "student" / EXTRACTION_FILE).exists()
        before = _weights(tmp_path / "extracted" / "student")
        assert not _same(_weights(tmp_path / name / "student"), before)


def test_baseline_needs_labels(tmp_path: Path) -> None:
    """A baseline on plain text would train on nothing and be called one all the same."""
    with pytest.raises(ValueError, match="--baseline must be left out for task text"):
        _run(examples.recipe(tmp_path, "text"), tmp_path / "out", baseline=True)


def test_resumed_run_is_bit_equal(
    tmp_path: Path, classes: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is begun anew, or continued from half a checkpoint, looks like a resumed one."""
    classes["training"] |= {"save_steps": 2, "max_steps": 6}
    whole = _run(classes, tmp_path / "whole", baseline=True)
    with monkeypatch.context() as patch:
        examples.interrupt(patch, DistillationTrainer, 3)
        with pytest.raises(KeyboardInterrupt):
            _run(classes, tmp_path / "cut", baseline=True)
    assert not (tmp_path / "cut" / "results.json").exists()
    half = tmp_path / "cut" / "checkpoints" / "student" / "checkpoint-3"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"which holds an interrupted run\. Continue it with --re"):
        _run(classes, tmp_path / "cut", baseline=True)

    steps: list[int] = []
    plain = DistillationTrainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", counted)
    resumed = _run(classes, tmp_path / "cut", baseline=True, resume=True)
    assert steps == [2, 3, 4, 5], "begun again at the last complete checkpoint"
    assert resumed["scores"] == whole["scores"]
    assert _same(_weights(tmp_path / "cut" / "student"), _weights(tmp_path / "whole" / "student"))


def test_finished_teacher_is_kept_and_half_of_one_is_not(
    tmp_path: Path, classes: Recipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher of other settings, or one that was cut off, would teach without a word."""
    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        examples.interrupt(patch, transformers.Trainer, 3)
        with pytest.raises(KeyboardInterrupt):
            _run(classes, output)
    assert not (output / "teacher").exists()
    first = _run(classes, output, resume=True)
    made = (output / "teacher" / "model.safetensors").stat().st_mtime_ns
    classes["training"] |= {"max_steps": 2}
    second = _run(classes, output, overwrite=True)
    assert (output / "teacher" / "model.safetensors").stat().st_mtime_ns == made
    assert (first["seconds"]["teacher"] is None, second["seconds"]["teacher"]) == (False, None)
    classes["teacher"]["training"] |= {"max_steps": 2}
    third = _run(classes, output, overwrite=True)
    assert third["seconds"]["teacher"] is not None


def test_finished_run_is_not_overwritten(tmp_path: Path, classes: Recipes) -> None:
    """A command that is repeated by accident must not cost the results of a night."""
    output = tmp_path / "out"
    results = _run(classes, output)
    with pytest.raises(ValueError, match=r"which holds a finished run\. Replace it with --overw"):
        _run(classes, output)
    assert _run(classes, output, resume=True) == results
    with pytest.raises(ValueError, match="recipe must be the one that"):
        _run({**classes, "seed": 9}, output, resume=True)
    with pytest.raises(ValueError, match="--baseline must be asked for before"):
        _run(classes, output, resume=True, baseline=True)
    with pytest.raises(ValueError, match="--resume must be left out beside --overwrite"):
        _run(classes, output, resume=True, overwrite=True)
    assert results == json.loads((output / "results.json").read_text(encoding="utf-8"))


def test_foreign_folder_is_left_alone(tmp_path: Path, classes: Recipes) -> None:
    """`--output . --overwrite` must not delete a folder `student` that is not ours."""
    mine = tmp_path / "mine"
    (mine / "student").mkdir(parents=True)
    (mine / "student" / "thesis.txt").write_text("years", encoding="utf-8")
    (mine / "recipe.yaml").write_text("task: text\n", encoding="utf-8")
    with pytest.raises(ValueError, match="output must be a new or empty folder, or one of a run"):
        _run(classes, mine, overwrite=True)
    assert (mine / "student" / "thesis.txt").is_file()
