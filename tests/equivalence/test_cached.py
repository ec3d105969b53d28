"""A teacher that was run before teaches what a live one does, however the step is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_distill import Ensemble
from hf_distill.cache import folder as folder_room
from hf_distill.cache.cache import Cache
from hf_distill.cache.folder import Folder
from hf_distill.objectives import HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.training.heads import NAME
from tests.equivalence.cases import CASES as EVERY
from tests.equivalence.cases import EXAMPLES, Case, Step, first_step
from tests.equivalence.launching import launched
from tests.training.runs import (
    CLASSES,
    SEQUENCE,
    SPAN,
    TOKEN,
    examples,
    logged,
    relative_error,
    student,
    teacher,
    trainer,
)

TOLERANCE = 1e-6


def _mean() -> dict[str, Any]:
    both = [teacher(SEQUENCE), student(SEQUENCE, seed=9)]
    return {"model": student(SEQUENCE), "teacher": Ensemble(both, weights=(2, 1))}


CASES = {
    # An adapter of the student's own is no teacher to be cached.
    **{name: case for name, case in EVERY.items() if "adapter" not in name},
    "the mean of several": Case(SEQUENCE, {"kl": (1.0, KLDivergence())}, models=_mean),
    "several spans": Case(
        SPAN,
        {"kl": (1.0, KLDivergence())},
        models=lambda: {
            "model": student(SPAN),
            "teacher": Ensemble([teacher(SPAN), student(SPAN, seed=9)], combine="confidence"),
        },
    ),
}
EXACT: dict[str, Any] = {"storage": "float32"}


def written(case: Case, folder: Path, **how: Any) -> Path:
    """The cache of a case's teacher."""
    run = trainer(
        folder / "writing",
        case.head,
        count=EXAMPLES,
        labelled=case.labelled,
        **(case.models or case.usual)(),
        objectives=case.objectives,
        per_device_train_batch_size=1,
        **case.arguments,
    )
    assert run.write_teacher_cache(folder / "cache", **{**EXACT, **how}).finished
    return folder / "cache"


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The cache of a case, whose teacher was run on one example at a time."""

    @cache
    def made(name: str) -> Path:
        return written(CASES[name], tmp_path_factory.mktemp("cached"))

    return made


@pytest.mark.parametrize("name", CASES)
def test_batches_of_one_are_bit_equal(
    name: str, cached: Callable[[str], Path], tmp_path: Path
) -> None:
    """A cache that is exact but for a layout, an order or a random draw is another training."""
    live = first_step(CASES[name], tmp_path, 1, 4)
    found = first_step(CASES[name], tmp_path, 1, 4, teacher_cache=cached(name))
    assert found.losses == live.losses
    assert found.gradients.keys() == live.gradients.keys()
    for parameter, gradient in live.gradients.items():
        assert torch.equal(found.gradients[parameter], gradient), parameter


@pytest.mark.parametrize("cut", [(EXAMPLES, 1), (4, 2), (3, 1)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_cuts_differ_by_rounding_alone(
    cut: tuple[int, int], name: str, cached: Callable[[str], Path], tmp_path: Path
) -> None:
    """Rows that are found by place in a batch, not by example, are right in one order only."""
    live = first_step(CASES[name], tmp_path, *cut)
    found = first_step(CASES[name], tmp_path, *cut, teacher_cache=cached(name))
    assert relative_error(found.gradients, live.gradients) <= TOLERANCE
    # A bound on mutual information is a small difference of logarithms.
    assert found.losses == pytest.approx(live.losses, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize(("storage", "bound"), [("bfloat16", 0.02), ("int8", 0.04)])
@pytest.mark.parametrize("name", ["sequences", "next tokens", "MiniLM only", "spans"])
def test_rounded_caches_are_close(name: str, storage: str, bound: float, tmp_path: Path) -> None:
    """A storage that is chosen for its size must not choose the gradient."""
    place = written(CASES[name], tmp_path, storage=storage)
    live = first_step(CASES[name], tmp_path, 4, 1)
    found = first_step(CASES[name], tmp_path, 4, 1, teacher_cache=place)
    assert 0 < relative_error(found.gradients, live.gradients) <= bound
    assert found.losses == pytest.approx(live.losses, rel=bound)


FEATURES = {"hidden": (1.0, HiddenMSE()), "kl": (1.0, KLDivergence()), "v2": (1.0, MiniLMv2())}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def learning(folder: Path, **given: Any) -> Any:
    """Two epochs with dropout over an uneven number of examples, saved after each step."""
    return trainer(
        folder,
        SEQUENCE,
        count=14,
        model=student(SEQUENCE, **DROPOUT),
        objectives=FEATURES,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=-1,
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=1,
        **given,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A live run, the same one from a cache, and the cache."""
    folder = tmp_path_factory.mktemp("runs")
    learning(folder / "w").write_teacher_cache(folder / "cache", **EXACT)
    live = learning(folder / "live")
    live.train()
    found = learning(folder / "cached", teacher=None, teacher_cache=folder / "cache")
    found.train()
    return live, found, folder / "cache"


def test_a_cache_draws_no_random_number(runs: tuple[Any, Any, Path]) -> None:
    """Scanning the data draws: other dropout, another order, and no way to compare two runs."""
    live, found, _ = runs
    assert logged(found) == pytest.approx(logged(live), rel=1e-5)
    assert relative_error(found.model.state_dict(), live.model.state_dict()) <= 1e-4


def test_auto_draws_no_random_number(
    runs: tuple[Any, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing before the first step must not move what is trained after it."""
    monkeypatch.setattr(folder_room, "HOME", tmp_path / "home")
    monkeypatch.setattr("hf_distill.training.caching.HOME", tmp_path / "home")
    live, _, _ = runs
    for _ in range(2):
        found = learning(tmp_path / "run", teacher_cache="auto")
        found.train()
        assert logged(found) == pytest.approx(logged(live), rel=0.01)


@pytest.mark.parametrize("step", [2, 4, 6])
def test_resumed_runs_are_bit_equal(step: int, runs: tuple[Any, Any, Path], tmp_path: Path) -> None:
    """A cache that is scanned between restoring random numbers and using them resumes elsewhere."""
    _, whole, place = runs
    resumed = learning(tmp_path, teacher=None, teacher_cache=place)
    checkpoint = Path(whole.args.output_dir) / f"checkpoint-{step}"
    resumed.train(resume_from_checkpoint=str(checkpoint))
    expected = whole.model.state_dict()
    assert any(NAME in name for name in expected)
    for name, weight in resumed.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def losses(folder: Path, model: Any, **given: Any) -> list[float]:
    run = trainer(folder, TOKEN, count=EXAMPLES, model=model, **given)
    run.train()
    return logged(run)


def test_another_student_learns_from_the_same_cache(tmp_path: Path) -> None:
    """A cache that knows its first student serves one row of a search."""
    layers = [(1, 1), (1, 2), (2, 3), (2, 4)]
    wide = {"hidden": (1.0, HiddenMSE()), "kl": (1.0, KLDivergence())}
    writing = trainer(
        tmp_path / "w", TOKEN, count=EXAMPLES, objectives=wide, layer_mapping={"hidden": layers}
    )
    writing.write_teacher_cache(tmp_path / "cache", **EXACT)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    for objectives in (wide, {"hidden": (0.5, HiddenMSE())}):
        given = {"objectives": objectives, "layer_mapping": {"hidden": [(3, 4), (1, 2)]}}
        live = losses(tmp_path / "l", student(TOKEN, **shape), **given)
        cached = {"teacher": None, "teacher_cache": tmp_path / "cache"}
        found = losses(tmp_path / "c", student(TOKEN, **shape), **given, **cached)
        assert found == pytest.approx(live, rel=TOLERANCE)


def test_students_classes_may_be_in_another_order(tmp_path: Path) -> None:
    """The cache's order taken for the student's: a teacher that says B where it means A."""
    names = ["a", "b", "c"]

    def named(order: list[int], make: Callable[..., Any]) -> Any:
        chosen = {index: names[at] for index, at in enumerate(order)}
        numbers = {name: index for index, name in chosen.items()}
        return make(TOKEN, **CLASSES, id2label=chosen, label2id=numbers)

    terms = {"objectives": {"kl": (1.0, KLDivergence())}}
    taught = named([1, 2, 0], teacher)
    writing = trainer(
        tmp_path / "w",
        TOKEN,
        count=EXAMPLES,
        model=named([0, 1, 2], student),
        teacher=taught,
        **terms,
    )
    writing.write_teacher_cache(tmp_path / "cache", **EXACT)
    found = {}
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        live = losses(tmp_path / "l", named(order, student), teacher=taught, **terms)
        cached = {"teacher": None, "teacher_cache": tmp_path / "cache"}
        found[str(order)] = losses(tmp_path / "c", named(order, student), **cached, **terms)
        assert found[str(order)] == pytest.approx(live, rel=TOLERANCE)
    assert len({tuple(each) for each in found.values()}) == 3


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote and learnt."""
    folder = tmp_path_factory.mktemp("processes")
    launched("tests.equivalence.caching", folder)
    return folder


@pytest.mark.slow
def test_two_processes_write_what_one_does(processes: Path, tmp_path: Path) -> None:
    """Files that both write, or neither; an index that knows one process's alone."""
    told = json.loads((processes / "written.json").read_text())
    assert [each["finished"] for each in told] == [True, True]
    assert sum(each["computed"] for each in told) == EXAMPLES
    alone = Cache(Folder(written(CASES["uneven tokens"], tmp_path)))
    both = Cache(Folder(processes / "cache"))
    assert both.about == alone.about
    assert len(both) == len(alone) == EXAMPLES
    keys = torch.cat([shard.keys for shard in alone._shards])
    mine, theirs = (one.rows("logits", "token", one.find(keys).tolist()) for one in (both, alone))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["uneven tokens", "auto"])
def test_two_processes_learn_from_it_what_one_does(
    name: str, processes: Path, tmp_path: Path
) -> None:
    """Each process asks for its own part: rows counted over all of them are the others'."""
    live: Step = first_step(CASES["uneven tokens"], tmp_path, EXAMPLES, 1)
    stored = load_file(processes / "gradients.safetensors")
    found = {n.split("/")[1]: g for n, g in stored.items() if n.startswith(f"{name}/")}
    bound = 1e-6 if name != "auto" else 0.02
    assert relative_error(found, live.gradients) <= bound
    assert len(examples(EXAMPLES)) == EXAMPLES


@pytest.mark.slow
def test_all_processes_refuse_what_is_missing(processes: Path) -> None:
    """One process raises and the other waits for it, until the night is over."""
    for rank in (0, 1):
        told = (processes / f"missing-{rank}.txt").read_text()
        assert "must hold every example, got 1 of 17 that it lacks" in told
