"""Recipes with several teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from packaging.version import Version
from transformers import AutoTokenizer

from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked
from hf_distill.recipe.run import Request, run
from hf_distill.recipe.schema import Teacher
from hf_distill.recipe.teachers import Whole
from hf_distill.student.indices import EXTRACTION_FILE, IndexSets
from hf_distill.teacher.several import Blend
from tests.recipe import examples

Recipe = dict[str, Any]

RECIPES = Path(__file__).parent.parent.parent / "recipes"
KL = {"kl": {"type": "KLDivergence"}}


def _run(found: Recipe, output: Path, **options: Any) -> dict[str, Any]:
    asked = Request(recipe=checked(found, "recipe.yaml"), name="tiny", output=output, **options)
    return run(asked)


def _model(folder: Path, head: str = "ForSequenceClassification") -> Any:
    return getattr(transformers, f"AutoModel{head}").from_pretrained(folder).eval()


def _same(left: Any, right: Any) -> bool:
    ours, theirs = left.state_dict(), right.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def _card(folder: Path) -> str:
    return (folder / "student" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def several(tmp_path: Path) -> Recipe:
    """A recipe with two teachers of one base, to be fine-tuned."""
    found = examples.recipe(tmp_path, "text-classification", objectives=KL)
    base = found["teacher"].pop("model")
    found["teacher"]["training"] |= {"learning_rate": 0.01}
    return {**found, "teacher": {"models": [base, base], **found["teacher"]}}


def test_the_example_recipe_runs(tmp_path: Path) -> None:
    """A recipe that is only read may still compare layers that nobody shows."""
    path = RECIPES / "trec" / "l3-h384-from-three-minilm-mean.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    found["data"] = {"path": examples.data(tmp_path / "data", "text-classification"),
                     "evaluation": "test", "max_length": 24}  # fmt: skip
    assert len(found["teacher"]["models"]) == 3
    found["teacher"]["models"] = [examples.teacher(tmp_path / "teacher")] * 3
    found["student"]["size"] = "L3-H16-A2-F24"
    for training in (found["training"], found["teacher"]["training"]):
        training |= {"max_steps": 2, "disable_tqdm": True}
    output = tmp_path / "out"
    results = _run(found, output, baseline=True)
    assert list(results["scores"]) == ["teacher", "student", "baseline"]
    assert sorted(each.name for each in (output / "teachers").iterdir()) == ["1", "2", "3"]
    card = _card(output)
    told = "the mean of teacher, teacher and teacher fine-tuned on the same examples, each with"
    assert f"distilled from {told} another seed" in card
    assert "- Teachers: teacher, teacher, teacher" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("task", ["text-classification", "token-classification", "question-answer"])
def test_teachers_are_measured_as_they_teach(tmp_path: Path, task: str) -> None:
    """The score of one of them, or of their mean logits, is not what the student learnt from."""
    task = task.replace("answer", "answering")
    found = examples.recipe(tmp_path, task, objectives=KL)
    base = found["teacher"].pop("model")
    found["teacher"] |= {"models": [base, base], "weights": [1, 3], "combine": "confidence"}
    found["teacher"]["training"] |= {"learning_rate": 0.01}
    output = tmp_path / "out"
    results = _run(found, output)
    head = {"text": "ForSequenceClassification", "token": "ForTokenClassification"}.get(
        task.split("-")[0], "ForQuestionAnswering"
    )
    models = [_model(output / "teachers" / name, head) for name in "12"]
    assert not _same(*models), "each with a seed of its own"
    asked = Teacher(**found["teacher"])
    whole = Whole(asked, models)
    texts = ["the red cat runs", "a blue dog"]
    tokenizer = AutoTokenizer.from_pretrained(output / "student")
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    said = whole(**batch)
    single = [model(**batch) for model in models]
    for name, logits in said.items():
        mean = Blend("single_label", "confidence")
        real = batch["attention_mask"].bool()
        for weight, each in zip((1, 3), single, strict=True):
            alone = each[name].detach()
            if head == "ForQuestionAnswering":
                alone = alone.masked_fill(~real, -1e4)
            mean.add(alone, weight)
        torch.testing.assert_close(logits, mean.logits())
    size = results["sizes"]["teacher"]
    assert size["parameters"] == sum(each.numel() for m in models for each in m.parameters())
    assert "layers" not in size
    assert set(results["scores"]["teacher"]) == set(results["scores"]["student"])


def test_predictions_are_measured_as_before(tmp_path: Path) -> None:
    """One teacher's score must not depend on how several are measured."""
    output = tmp_path / "out"
    found = examples.recipe(tmp_path, "text-classification")
    results = _run(found, output)
    for label in ("teacher", "student"):
        model, right = _model(output / label), 0
        tokenizer = AutoTokenizer.from_pretrained(output / "student")
        rows = [
            json.loads(line)
            for line in Path(found["data"]["path"], "test.json").read_text().splitlines()
        ]
        for row in rows:
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
            right += model.config.id2label[int(logits.argmax())] == row["label"]
        assert results["scores"][label]["accuracy"] == pytest.approx(right / len(rows))


def test_each_teacher_has_its_own_seed(tmp_path: Path, several: Recipe) -> None:
    """Three teachers of one seed are one teacher; those of the next run must be others too."""
    _run(several, tmp_path / "one")
    _run({**several, "seed": several["seed"] + 1}, tmp_path / "two")
    made = [
        _model(tmp_path / run_name / "teachers" / name)
        for run_name in ("one", "two")
        for name in "12"
    ]
    for at, left in enumerate(made):
        assert not any(_same(left, right) for right in made[at + 1 :])
    alone = {**several, "teacher": {**several["teacher"], "model": several["teacher"]["models"][0]}}
    del alone["teacher"]["models"]
    _run(alone, tmp_path / "alone")
    assert _same(_model(tmp_path / "alone" / "teacher"), made[0]), "the first is that of one alone"


def test_finished_teachers_are_kept(tmp_path: Path, several: Recipe) -> None:
    """A change of how they are combined, or of one of them, must not cost the others."""
    output = tmp_path / "out"
    _run(several, output)
    files = [output / "teachers" / name / "model.safetensors" for name in "12"]
    made = [path.stat().st_mtime_ns for path in files]
    several["teacher"] |= {"weights": [1, 2], "combine": "confidence", "lead": 1}
    second = _run(several, output, overwrite=True)
    assert [path.stat().st_mtime_ns for path in files] == made
    assert second["seconds"]["teacher"] is None
    other = examples.teacher(tmp_path / "other")
    several["teacher"]["models"] = [several["teacher"]["models"][0], other]
    third = _run(several, output, overwrite=True)
    assert third["seconds"]["teacher"] is not None
    assert files[0].stat().st_mtime_ns == made[0]
    assert files[1].stat().st_mtime_ns != made[1]
    assert "the mean weighted 1, 2 by confidence of teacher and other" in _card(output)


def test_an_interrupted_teacher_is_resumed_and_the_others_kept(
    tmp_path: Path, several: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the second teacher must cost neither the first nor its own first half."""
    several["teacher"]["training"] |= {"save_steps": 2}
    whole = _run(several, tmp_path / "whole")
    original, trained = transformers.Trainer.training_step, []

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        place = Path(self.args.output_dir).name
        if place == "teacher-2" and self.state.global_step == 3 and "cut" not in trained:
            trained.append("cut")
            raise KeyboardInterrupt
        trained.append(f"{place} {self.state.global_step}")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, "training_step", cut)
    output = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        _run(several, output)
    first = (output / "teachers" / "1" / "model.safetensors").stat().st_mtime_ns
    resumed = _run(several, output, resume=True)
    after = trained[trained.index("cut") + 1 :]
    assert after == ["teacher-2 2", "teacher-2 3", *(f"student {step}" for step in range(4))]
    assert (output / "teachers" / "1" / "model.safetensors").stat().st_mtime_ns == first
    if Version(transformers.__version__) < Version("5.17"):
        # 5.0 saves the norms of a loaded model under names that its Trainer does not load again.
        return
    assert resumed["scores"] == whole["scores"]
    assert _same(_model(output / "student"), _model(tmp_path / "whole" / "student"))


def test_the_lead_is_cut_and_gives_its_layers(tmp_path: Path, several: Recipe) -> None:
    """The card and the student would speak of different teachers."""
    small = examples.teacher(tmp_path / "small", num_hidden_layers=3)
    several["teacher"] |= {"models": [several["teacher"]["models"][0], small], "lead": 1}
    several |= {
        "objectives": {**KL, "hidden": {"type": "HiddenMSE"}},
        "student": {"size": "L2-H16-A2-F24", "layers": [1, 2]},
        "training": {**several["training"], "learning_rate": 0.0},
    }
    _run(several, tmp_path / "out")
    folder = tmp_path / "out" / "student"
    kept = IndexSets.from_json((folder / EXTRACTION_FILE).read_text(encoding="utf-8"))
    name = "bert.embeddings.word_embeddings.weight"
    lead = _model(tmp_path / "out" / "teachers" / "2").state_dict()[name]
    assert torch.equal(_model(folder).state_dict()[name], lead[:, list(kept.hidden)])
    assert "| 1 → 2, 2 → 3 |" in _card(tmp_path / "out").replace("0 → 0, ", "")


def _renamed(folder: Path, order: list[int]) -> None:
    """Permute a classifier's classes, with their names."""
    model = _model(folder)
    with torch.no_grad():
        for part in (model.classifier.weight, model.classifier.bias):
            part.copy_(part[order])
    names = [model.config.id2label[at] for at in order]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: at for at, name in enumerate(names)}
    model.save_pretrained(folder)


def test_finished_teachers_keep_their_own_order_of_classes(tmp_path: Path, several: Recipe) -> None:
    """Named after the first teacher's classes, the second would vote for the wrong ones."""
    first = _run(several, tmp_path / "first")
    folders = [tmp_path / "first" / "teachers" / name for name in "12"]
    finished = {**several, "teacher": {"models": list(map(str, folders))}}
    again = _run(finished, tmp_path / "again")
    _renamed(folders[1], [2, 0, 1])
    permuted = _run(finished, tmp_path / "permuted")
    for found in (again, permuted):
        assert found["scores"]["teacher"] == first["scores"]["teacher"]
    assert _same(_model(tmp_path / "permuted" / "student"), _model(tmp_path / "again" / "student"))
    finished["teacher"]["lead"] = 1
    led = _run(finished, tmp_path / "led")
    assert led["scores"]["teacher"] == first["scores"]["teacher"]
    config = transformers.AutoConfig.from_pretrained(tmp_path / "led" / "student")
    assert [config.id2label[at] for at in range(3)] == ["dog", "bird", "cat"]


def test_several_teachers_teach_a_chain(tmp_path: Path, several: Recipe) -> None:
    """The assistant must be taught by all of them, the student by the assistant."""
    several["assistants"] = [{"size": "L4-H16-A2-F24"}]
    output = tmp_path / "out"
    results = _run(several, output)
    assert list(results["scores"]) == ["teacher", "assistant 1", "student"]
    held = json.loads((output / "assistants/1/results.json").read_text(encoding="utf-8"))
    assert held["recipe"]["teacher"] == {"models": [str(output / "teachers" / n) for n in "12"]}
    assert held["scores"]["teacher"] == results["scores"]["teacher"]
    card = _card(output)
    assert "- Teachers: teacher, teacher" in card
    assert "the teacher → assistant 1 (L4-H16) → this student" in card


@pytest.mark.parametrize(
    ("teacher", "faults"),
    [
        ({}, {"teacher": "must be given a model or models"}),
        ({"model": "a", "models": ["b", "c"]}, {"teacher": "Name exactly one of the two"}),
        ({"models": ["a"]}, {"teacher.models": "must be two or more, got 1"}),
        (
            {"models": ["a", "b"], "weights": [1], "lead": 2, "combine": "vote"},
            {
                "teacher.weights": "must be one number for each of the 2 teachers, got 1",
                "teacher.lead": "must be the index of a teacher, 0 to 1, got 2",
                "teacher.combine": "must be 'mean' or 'confidence', got 'vote'",
            },
        ),
        ({"models": ["a", "b"], "weights": [1, 0]}, {"teacher.weights": "above 0, got 0"}),
        ({"models": ["a", "a"]}, {"teacher": "must have different models where none is trained"}),
        (
            {"model": "a", "lead": 0, "weights": [1]},
            {"teacher": "must be free of lead, weights beside a single model, got 'a'"},
        ),
    ],
)
def test_faults_of_teachers_are_told_together(
    several: Recipe, teacher: Recipe, faults: dict[str, str]
) -> None:
    """A weight beside a single model would be read by nobody."""
    with pytest.raises(RecipeError) as caught:
        checked({**several, "teacher": teacher}, "recipe")
    found = {fault.key: fault.text for fault in caught.value.faults}
    assert found.keys() == faults.keys()
    for key, text in faults.items():
        assert text in found[key]


def test_encoders_have_one_teacher(several: Recipe) -> None:
    """What they show has no mean."""
    found = {**several, "task": "text", "objectives": {"h": {"type": "HiddenMSE"}}}
    with pytest.raises(RecipeError, match=r"teacher\.models must be one model for task text"):
        checked(found, "recipe")


HIDDEN = {"hidden": {"type": "HiddenMSE"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": {**KL, **HIDDEN}}, r"must name a lead where layers are compared"),
        ({"objectives": {"task": {"type": "CrossEntropy"}}}, r"objectives must compare logits"),
    ],
)
def test_misfits_are_said_before_the_teachers_are_trained(
    tmp_path: Path, several: Recipe, changes: Recipe, message: str
) -> None:
    """Three teachers are trained for hours, for objectives that they cannot serve."""
    with pytest.raises(ValueError, match=message):
        _run({**several, **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_teachers_share_a_tokenizer(tmp_path: Path, several: Recipe) -> None:
    """The same number would be another word to the second teacher."""
    other = Path(examples.teacher(tmp_path / "other"))
    path = other / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"cat"', '"cow"'), encoding="utf-8")
    several["teacher"]["models"][1] = str(other)
    with pytest.raises(ValueError, match=r"teacher\.models\.1 must have the vocabulary of teacher"):
        _run(several, tmp_path / "out")


def test_every_teacher_must_read_the_texts(tmp_path: Path, several: Recipe) -> None:
    """The second teacher would fail at the first long text, after the first was trained."""
    several["teacher"]["models"][1] = examples.teacher(
        tmp_path / "short", max_position_embeddings=20
    )
    with pytest.raises(ValueError, match=r"at most the positions of teacher\.models\.1 \(20\)"):
        _run(several, tmp_path / "out")


def test_a_teacher_of_other_classes_is_named(tmp_path: Path, several: Recipe) -> None:
    """One of several without the task's head teaches noise."""
    _run(several, tmp_path / "first")
    finished = str(tmp_path / "first" / "teachers" / "1")
    several["teacher"] = {"models": [finished, several["teacher"]["models"][0]]}
    with pytest.raises(ValueError, match=r"teacher\.models\.1 must have the classes of the data"):
        _run(several, tmp_path / "out")
