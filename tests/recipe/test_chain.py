"""Chains of teacher assistants: each link an ordinary run, all of them one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.recipe import run as running
from hf_distill.recipe.chain import links
from hf_distill.recipe.classes import mapping_of, objectives_of
from hf_distill.recipe.faults import RecipeError
from hf_distill.recipe.reading import checked, plain, read, written
from hf_distill.recipe.run import Request, run
from hf_distill.student.indices import EXTRACTION_FILE, IndexSets
from hf_distill.training.trainer import DistillationTrainer
from tests.recipe import examples

Recipe = dict[str, Any]

RECIPES = Path(__file__).parent.parent.parent / "recipes"
WIDE, NARROW, SMALL = "L4-H24-A3-F32", "L4-H16-A2-F24", "L2-H16-A2-F24"
HIDDEN = {"hidden": {"type": "HiddenMSE"}, "kl": {"type": "KLDivergence"}}


def _run(found: Recipe, output: Path, **options: Any) -> dict[str, Any]:
    return run(Request(recipe=checked(found, "recipe.yaml"), name="tiny", output=output, **options))


def _weights(folder: Path, head: str = "ForSequenceClassification") -> dict[str, torch.Tensor]:
    auto = getattr(transformers, f"AutoModel{head}")
    return dict(auto.from_pretrained(folder).state_dict())


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def _card(folder: Path) -> str:
    return (folder / "student" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def chain(tmp_path: Path) -> Recipe:
    """A recipe with two assistants."""
    found = examples.recipe(tmp_path, "text-classification", objectives=HIDDEN)
    return {**found, "assistants": [{"size": WIDE}, {"size": NARROW}], "student": {"size": SMALL}}


def test_the_example_recipe_runs(tmp_path: Path) -> None:
    """A recipe that is only read may still name sizes or layers that do not fit each other."""
    path = RECIPES / "trec" / "l3-h192-from-minilm-assistant.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    found["data"] = {"path": examples.data(tmp_path / "data", "text-classification"),
                     "evaluation": "test", "max_length": 24}  # fmt: skip
    found["teacher"] |= {"model": examples.teacher(tmp_path / "teacher")}
    assert [each["size"] for each in (*found["assistants"], found["student"])] == [
        "L6-H192", "L3-H192",
    ]  # fmt: skip
    found["assistants"][0]["size"] = NARROW
    found["student"]["size"] = SMALL
    for training in (found["training"], found["teacher"]["training"]):
        training |= {"max_steps": 2, "disable_tqdm": True}
    output = tmp_path / "out"
    results = _run(found, output, baseline=True, command="hf-distill train it.yaml --baseline")
    assert list(results["scores"]) == ["teacher", "assistant 1", "student", "baseline"]
    assert set(results["speeds"]) == set(results["sizes"]) == set(results["scores"])
    layers = {label: size["layers"] for label, size in results["sizes"].items()}
    assert layers == {"teacher": 4, "assistant 1": 4, "student": 2, "baseline": 2}
    assert {path.name for path in output.iterdir()} == {
        "recipe.yaml", "results.json", "student", "teacher", "assistants",
    }  # fmt: skip
    below = output / "assistants" / "1"
    assert {each.name for each in below.iterdir()} == {"recipe.yaml", "results.json", "student"}
    card = _card(output)
    assert "distilled from teacher fine-tuned on the same examples with hf_distill" in card
    assert "the teacher → assistant 1 (L4-H16) → this student" in card
    assert "| assistant 1 (L4-H16) |" in card
    assert "cut out of assistant 1: layers 2, 4" in card
    assert str(tmp_path) not in card + _card(below)


def test_a_card_without_baseline_says_so(tmp_path: Path, chain: Recipe) -> None:
    """An assistant beside the student is no baseline: it does not show what the teacher added."""
    _run(chain, tmp_path / "out")
    assert "No baseline was measured" in _card(tmp_path / "out")


def test_every_link_is_an_ordinary_run(tmp_path: Path, chain: Recipe) -> None:
    """Links that share state, or the wrong teacher, would not be what their recipes say."""
    output = tmp_path / "out"
    results = _run(chain, output)
    assistants = [output / "assistants" / name for name in ("1", "2")]
    for number, folder in enumerate(assistants, 1):
        alone = run(
            Request(
                recipe=read(folder / "recipe.yaml"),
                name="alone",
                output=tmp_path / f"alone-{number}",
            )
        )
        assert _same(_weights(folder / "student"), _weights(tmp_path / f"alone-{number}/student"))
        held = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert alone["scores"] == held["scores"]
        label = f"assistant {number}"
        assert results["scores"][label] == held["scores"]["student"]
        assert results["seconds"][label] == held["seconds"]["student"]
    taught = [read(folder / "recipe.yaml").teacher.model for folder in assistants]
    assert taught == [str(output / "teacher"), str(assistants[0] / "student")]
    last = {key: each for key, each in chain.items() if key != "assistants"}
    last["teacher"] = {"model": str(assistants[1] / "student")}
    direct = _run(last, tmp_path / "direct")
    assert _same(_weights(output / "student"), _weights(tmp_path / "direct" / "student"))
    assert results["scores"]["student"] == direct["scores"]["student"]
    assert results["scores"]["assistant 2"] == direct["scores"]["teacher"]
    assert read(output / "recipe.yaml") == checked(chain, "recipe.yaml")


def test_cards_of_assistants_name_their_own_teachers(tmp_path: Path, chain: Recipe) -> None:
    """A card that says `distilled from student` has forgotten whose."""
    output = tmp_path / "out"
    _run(chain, output)
    first, second = (_card(output / "assistants" / name) for name in ("1", "2"))
    assert "# tiny-assistant-1" in first
    assert "distilled from teacher fine-tuned on the same examples" in first
    assert "# tiny-assistant-2" in second
    assert "distilled from tiny-assistant-1 with hf_distill" in second
    final = _card(output)
    assert "the teacher → assistant 1 (L4-H24) → assistant 2 (L4-H16) → this student" in final


def _interrupting(step: int, run_number: int) -> Callable[..., Any]:
    """A training step of the trainer that is interrupted in the n-th distillation."""
    original = DistillationTrainer.training_step
    # Held, not their ids: a trainer that is gone leaves its id to the next one.
    seen: list[Any] = []

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self not in seen:
            seen.append(self)
        if len(seen) == run_number and self.state.global_step == step:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    return cut


def _stamps(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, dict[str, Any]]:
    """A chain that nobody interrupted."""
    place = tmp_path_factory.mktemp("whole")
    found = examples.recipe(place, "text-classification", objectives=HIDDEN)
    found |= {"assistants": [{"size": WIDE}, {"size": NARROW}], "student": {"size": SMALL}}
    found["training"] |= {"save_steps": 2}
    return found, place / "out", _run(found, place / "out")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_chain_resumes_where_it_was_cut(
    tmp_path: Path,
    whole: tuple[Recipe, Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """Hours of assistants would be trained again, or a student taught by half of one."""
    found, uncut, expected = whole
    output = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "training_step", _interrupting(3, number))
        with pytest.raises(KeyboardInterrupt):
            _run(found, output)
    finished = [output / "teacher", *(output / "assistants" / str(at) for at in range(1, number))]
    before = [_stamps(folder) for folder in finished]
    assert not (output / "results.json").exists()
    with pytest.raises(ValueError, match=r"which holds an interrupted run\. Continue it with --re"):
        _run(found, output)

    steps: list[int] = []
    original = DistillationTrainer.training_step

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "training_step", counted)
    resumed = _run(found, output, resume=True)
    assert steps == [2, 3, *[0, 1, 2, 3] * (3 - number)]
    assert [_stamps(folder) for folder in finished] == before
    assert resumed["scores"] == expected["scores"]
    for place in ("student", "assistants/1/student", "assistants/2/student"):
        assert _same(_weights(output / place), _weights(uncut / place)), place
    assert _run(found, output, resume=True) == resumed


def _killed(*_: Any) -> Any:
    raise KeyboardInterrupt


def _killing(patch: pytest.MonkeyPatch, moment: str, output: Path) -> None:
    begin, distiller = running.RunFolder.begin, running.distiller

    def half_begun(self: Any, recipe: str) -> None:
        if self.path != output / "assistants" / "2":
            return begin(self, recipe)
        self.path.mkdir(parents=True)
        (self.path / "recipe.yaml.partial").write_text("# Writ", encoding="utf-8")
        return _killed()

    def assistants_only(site: Any, *models: Any) -> Any:
        return _killed() if site.folder.path == output else distiller(site, *models)

    if moment == "an assistant's recipe is half written":
        patch.setattr(running.RunFolder, "begin", half_begun)
    elif moment == "the student has not begun":
        patch.setattr(running, "distiller", assistants_only)
    else:
        patch.setattr(running, "scores", _killed)


@pytest.mark.parametrize(
    "moment",
    [
        "an assistant's recipe is half written",
        "the student has not begun",
        "an assistant is saved and not measured",
    ],
)
def test_a_chain_resumes_from_between_its_links(
    tmp_path: Path,
    whole: tuple[Recipe, Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """Between two files of a link there is no checkpoint that would tell what is done."""
    found, uncut, expected = whole
    output = tmp_path / "cut"
    with monkeypatch.context() as patch:
        _killing(patch, moment, output)
        with pytest.raises(KeyboardInterrupt):
            _run(found, output)
    resumed = _run(found, output, resume=True)
    assert resumed["scores"] == expected["scores"]
    assert _same(_weights(output / "student"), _weights(uncut / "student"))


def test_overwriting_begins_anew_and_keeps_the_teacher(tmp_path: Path, chain: Recipe) -> None:
    """An assistant of other settings that is finished would teach on without a word."""
    output = tmp_path / "out"
    first = _run(chain, output)
    teacher = _stamps(output / "teacher")
    chain["assistants"] = [{"size": NARROW, "training": {**examples.TRAINING, "max_steps": 2}}]
    with pytest.raises(ValueError, match="which holds a finished run"):
        _run(chain, output)
    with pytest.raises(ValueError, match="recipe must be the one that"):
        _run(chain, output, resume=True)
    second = _run(chain, output, overwrite=True)
    assert _stamps(output / "teacher") == teacher
    assert [path.name for path in (output / "assistants").iterdir()] == ["1"]
    assert list(second["scores"]) == ["teacher", "assistant 1", "student"]
    assert second["scores"]["teacher"] == first["scores"]["teacher"]


def _kept(folder: Path) -> IndexSets:
    return IndexSets.from_json((folder / EXTRACTION_FILE).read_text(encoding="utf-8"))


def test_whose_weights_are_cut(tmp_path: Path, chain: Recipe) -> None:
    """A student that is cut out of another model than the card says starts elsewhere."""
    chain["training"] |= {"learning_rate": 0.0, "max_steps": 1}
    chain["assistants"] = [{"size": WIDE, "layers": "last"}]
    chain["student"] = {"size": SMALL, "layers": [1, 2]}
    starts = {}
    finished = tmp_path / "last" / "teacher"
    for name, cut_from in {"last": None, "first": "teacher", "path": str(finished)}.items():
        if cut_from is not None:
            chain["student"]["cut_from"] = cut_from
        _run(chain, tmp_path / name)
        starts[name] = _weights(tmp_path / name / "student")
    words = {"last": "assistant 1", "first": "the teacher", "path": "teacher"}
    for name, said in words.items():
        assert f"cut out of {said}: layers 1, 2" in _card(tmp_path / name)
    # Nothing was learnt: the start is what is handed over.
    assert not _same(starts["last"], starts["first"])
    assert _same(starts["path"], starts["first"])
    teacher = _weights(finished)
    rows = _kept(tmp_path / "first" / "student").hidden
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(starts["first"][name], teacher[name][:, list(rows)])
    assistant = _weights(tmp_path / "last" / "assistants" / "1" / "student")
    rows = _kept(tmp_path / "last" / "student").hidden
    assert torch.equal(starts["last"][name], assistant[name][:, list(rows)])


def test_models_that_are_cut_have_the_student_s_classes(tmp_path: Path, chain: Recipe) -> None:
    """A head that is cut with its classes in another order begins by confusing them."""
    _run({**chain, "assistants": []}, tmp_path / "first")
    folder = tmp_path / "first" / "teacher"
    config = transformers.AutoConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(reversed(examples.ANIMALS)))
    config.save_pretrained(folder)
    chain["student"]["cut_from"] = str(folder)
    with pytest.raises(ValueError, match=r"student\.cut_from must have its classes in the order"):
        _run(chain, tmp_path / "out")


def test_encoders_have_assistants_too(tmp_path: Path) -> None:
    """The chain of MiniLM's own setting; fidelity is to the first teacher, not to an assistant."""
    found = examples.recipe(tmp_path, "text", assistants=[{"size": NARROW}])
    results = _run(found, tmp_path / "out")
    assert list(results["scores"]) == ["teacher", "assistant 1", "start", "student"]
    assert results["scores"]["teacher"] == {"fidelity": pytest.approx(1.0)}
    own = json.loads((tmp_path / "out/assistants/1/results.json").read_text(encoding="utf-8"))
    assert results["scores"]["assistant 1"] == own["scores"]["student"]
    assert "student before training" in _card(tmp_path / "out")


# What a chain is taken apart into


def test_assistants_have_their_own_or_the_recipe_s(tmp_path: Path, chain: Recipe) -> None:
    """An assistant that is trained with the student's rate was given its own for nothing."""
    chain |= {"mapping": "last", "seed": 7, "log_gradient_norms": True}
    chain["assistants"][0] |= {
        "training": {"learning_rate": 1e-5},
        "objectives": {"only": {"type": "KLDivergence", "temperature": 3.0}},
        "mapping": "uniform",
        "dropout": 0.2,
    }
    recipe = checked(chain, "recipe")
    first, second, student = links(recipe)
    assert objectives_of(first) == {"only": (1.0, KLDivergence(3.0))}
    assert (first.training, mapping_of(first)) == ({"learning_rate": 1e-5}, "uniform")
    assert first.student.model_dump(exclude_unset=True) == {"size": WIDE, "dropout": 0.2}
    for link in (second, student):
        assert objectives_of(link) == {"hidden": (1.0, HiddenMSE()), "kl": (1.0, KLDivergence())}
        assert (link.training, mapping_of(link)) == (recipe.training, "last")
    for link in (first, second, student):
        assert (link.assistants, link.seed, link.log_gradient_norms) == ([], 7, True)
        assert link.data == recipe.data
    assert [link.student.size for link in (second, student)] == [NARROW, SMALL]


def test_a_recipe_without_assistants_is_its_only_link() -> None:
    """Whatever a chain adds must not change what an ordinary recipe says."""
    for path in sorted(RECIPES.glob("*/*.yaml")):
        if path.parent.name != "accelerate":
            recipe = read(path)
            if not recipe.assistants:
                assert list(map(plain, links(recipe))) == [plain(recipe)]


def test_chains_are_written_and_read(tmp_path: Path, chain: Recipe) -> None:
    """recipe.yaml decides what may be resumed: a lost assistant would make it another recipe."""
    found = checked(chain, "recipe")
    (tmp_path / "again.yaml").write_text(written(found), encoding="utf-8")
    assert read(tmp_path / "again.yaml") == found
    changed = read(tmp_path / "again.yaml", ["assistants.1.size=L3", "assistants.0.dropout=0"])
    assert [each.size for each in changed.assistants] == [WIDE, "L3"]
    assert changed.assistants[0].dropout == 0
    with pytest.raises(RecipeError, match=r"assistants is a list of 2\."):
        read(tmp_path / "again.yaml", ["assistants.2.size=L3"])


def test_faults_of_assistants_are_told_together(chain: Recipe) -> None:
    """A typing error in the second assistant is otherwise found when the first is trained."""
    chain["assistants"] = [
        {"size": WIDE, "siz": 3},
        {
            "size": NARROW,
            "training": {"learning_rat": 1},
            "objectives": {"kl": {"type": "KLDivergense"}},
            "mapping": "unifrom",
        },
        {"size": NARROW, "init": "random", "cut_from": "teacher"},
        {"size": NARROW, "model": "other"},
    ]
    with pytest.raises(RecipeError) as caught:
        checked(chain, "recipe")
    found = {fault.key: fault.text for fault in caught.value.faults}
    assert set(found) == {
        "assistants.0.siz", "assistants.3", "assistants.1.training.learning_rat",
        "assistants.1.objectives.kl.type", "assistants.1.mapping", "assistants.2",
    }  # fmt: skip
    assert "Did you mean 'size'?" in found["assistants.0.siz"]
    assert "Did you mean 'learning_rate'?" in found["assistants.1.training.learning_rat"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assistants": [{"size": "L9"}]}, r"assistants\.0: layers of size must be at most"),
        (
            {"assistants": [{"size": SMALL}, {"size": WIDE}]},
            r"assistants\.1: layers of size must be at most the teacher's \(2\)",
        ),
        (
            {"assistants": [{"size": SMALL}], "student": {"size": NARROW}},
            r"^layers of size must be at most the teacher's \(2\)",
        ),
        (
            {"assistants": [{"size": NARROW, "mapping": [[9, 1]]}]},
            r"assistants\.0: mapping must be with",
        ),
        (
            {"assistants": [{"size": NARROW, "training": {"fp16": True, "bf16": True}}]},
            r"assistants\.0\.training must be arguments that go together",
        ),
        (
            {"assistants": [{"model": "./nowhere"}]},
            r"assistants\.0: student\.model must be a model that can be loaded",
        ),
        (
            {"student": {"size": SMALL, "cut_from": "./nowhere"}},
            r"student\.cut_from must be a model that can be loaded",
        ),
    ],
)
def test_misfits_are_said_before_anything_is_trained(
    tmp_path: Path, chain: Recipe, changes: Recipe, message: str
) -> None:
    """The last link would be found impossible after all the others were trained."""
    with pytest.raises(ValueError, match=message):
        _run({**chain, **changes}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_student_may_be_larger_than_the_assistant_it_is_not_cut_from(
    tmp_path: Path, chain: Recipe
) -> None:
    """What is cut must fit the model that it is cut from, not the one that teaches."""
    chain["assistants"] = [{"size": "L2-H24-A3-F32"}]
    chain["student"] = {"size": "L3-H16-A2-F24", "cut_from": "teacher"}
    chain["objectives"] = {"kl": {"type": "KLDivergence"}}
    _run(chain, tmp_path / "out")
    assert _kept(tmp_path / "out" / "student").sources == (1, 3, 4)
