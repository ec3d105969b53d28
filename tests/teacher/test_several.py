"""Several teachers that teach as one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hf_distill import Ensemble
from hf_distill.objectives import (
    CrossEntropy,
    HiddenMSE,
    KLDivergence,
    LogitMSE,
    MiniLMv2,
    SigmoidKL,
)
from hf_distill.release.card import render
from hf_distill.signals import Demand
from hf_distill.signals.head import head_of
from hf_distill.signals.signals import PADDING_LOGIT
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.several import Blend, SeveralTeachers, entropy
from hf_distill.teacher.waiting import WaitingTeacher
from tests.training.runs import (
    HEADLESS,
    HEADS,
    MASKED,
    SEQUENCE,
    TOKEN,
    collate,
    examples,
    logged,
    student,
    teacher,
    terms,
    trainer,
)

KL = {"kl": (1.0, KLDivergence())}
HIDDEN = {"hidden": (1.0, HiddenMSE())}
WEIGHTS = [0.5, 2.0, 1.0]


def blended(said: Tensor, problem: Any, weights: list[float], combine: Any = "mean") -> Tensor:
    together = Blend(problem, combine)
    for logits, weight in zip(said, weights, strict=True):
        together.add(logits, weight)
    return together.logits()


# What is computed


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(value - max(row)) for value in row]
    return [power / sum(powers) for power in powers]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def naive(said: list[list[float]], problem: str, weights: list[float], combine: str) -> list[float]:
    """One row of C classes, by loops: what K teachers say together, as probabilities or numbers."""
    classes = range(len(said[0]))
    spoken = {
        "single_label": lambda row: softmax(row),
        "multi_label": lambda row: [sigmoid(value) for value in row],
        "regression": lambda row: row,
    }[problem]
    shares = []
    for row, weight in zip(said, weights, strict=True):
        lost = 0.0
        for p in spoken(row) if combine == "confidence" else []:
            if problem == "single_label":
                lost -= p * math.log(p)
            else:
                lost -= (p * math.log(p) + (1 - p) * math.log(1 - p)) / len(row)
        shares.append(weight * math.exp(-lost))
    return [
        sum(share * spoken(row)[at] for share, row in zip(shares, said, strict=True)) / sum(shares)
        for at in classes
    ]


COMBINED = [
    ("single_label", "mean"),
    ("single_label", "confidence"),
    ("multi_label", "mean"),
    ("multi_label", "confidence"),
    ("regression", "mean"),
]


@pytest.mark.parametrize(("problem", "combine"), COMBINED)
def test_the_blend_is_the_loop(problem: Any, combine: Any) -> None:
    """A mean of logits is another distribution, and trains as well as the right one."""
    said = torch.randn(3, 5, 4, dtype=torch.float64) * 3
    found = blended(said, problem, WEIGHTS, combine)
    if problem == "single_label":
        found = found.softmax(-1)
    elif problem == "multi_label":
        found = found.sigmoid()
    for row in range(5):
        expected = naive(said[:, row].tolist(), problem, WEIGHTS, combine)
        assert found[row].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_hand_worked_mean() -> None:
    """(3/4, 1/4) and (1/4, 3/4) with weights 3 and 1: 5/8 and 3/8."""
    said = torch.tensor([[[math.log(3), 0.0]], [[0.0, math.log(3)]]])
    found = blended(said, "single_label", [3.0, 1.0]).exp()
    torch.testing.assert_close(found, torch.tensor([[5 / 8, 3 / 8]]))
    numbers = torch.tensor([[[1.0]], [[5.0]]])
    assert blended(numbers, "regression", [3.0, 1.0]).item() == 2.0


def test_a_hand_worked_confidence() -> None:
    """A certain teacher weighs 1, one that knows nothing of four classes 1/4: 4/5 and 1/5."""
    sure, lost = torch.tensor([[60.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 4)
    assert entropy(lost, "single_label").item() == pytest.approx(math.log(4))
    assert entropy(sure, "single_label").item() == pytest.approx(0)
    assert entropy(torch.zeros(1, 4), "multi_label").item() == pytest.approx(math.log(2))
    found = blended(torch.stack([sure, lost]), "single_label", [1.0, 1.0], "confidence").exp()
    torch.testing.assert_close(found, torch.tensor([[0.85, 0.05, 0.05, 0.05]]))


@pytest.mark.parametrize(("problem", "combine"), COMBINED)
def test_teachers_that_agree_say_what_each_says(problem: Any, combine: Any) -> None:
    """Otherwise no objective is 0 where student and teachers are the same."""
    one = torch.randn(4, 3)
    found = blended(torch.stack([one, one, one]), problem, WEIGHTS, combine)
    expected = one.log_softmax(-1) if problem == "single_label" else one
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("problem", "combine"), COMBINED)
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_large_logits_stay_finite(problem: Any, combine: Any, kind: torch.dtype) -> None:
    """A probability of 0 has no logarithm, and one infinite logit makes every loss NaN."""
    said = (torch.randn(3, 4, 3) * 1000).to(kind)
    found = blended(said, problem, WEIGHTS, combine)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    expected = blended(said.double(), problem, WEIGHTS, combine)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("combine", ["mean", "confidence"])
def test_padding_of_spans_stays_padding(combine: Any) -> None:
    """Log-probabilities of padding that count as tokens would be learnt like answers."""
    real = torch.randn(2, 3, 5)
    padded = torch.cat([real, torch.full((2, 3, 2), PADDING_LOGIT)], dim=-1)
    found = blended(padded, "single_label", [1.0, 2.0], combine)
    assert torch.equal(found[..., :5], blended(real, "single_label", [1.0, 2.0], combine))
    assert (found[..., 5:] <= PADDING_LOGIT / 2).all()


# What is shown


def others(count: int, head: str = SEQUENCE, **changes: Any) -> list[Any]:
    """Teachers of one shape and different weights."""
    shape = {"hidden_size": 48, "num_hidden_layers": 4}
    return [student(head, seed=seed, **{**shape, **changes}) for seed in range(2, 2 + count)]


def live(models: list[Any], head: Any, **given: Any) -> SeveralTeachers:
    lead = given.get("lead")
    layers = {"hidden": frozenset({0, 4}), "query": frozenset({3})}
    asked = [Demand(logits=True, layers=layers if at == lead else {}) for at in range(len(models))]
    shown = [LiveTeacher(model, demand, head) for model, demand in zip(models, asked, strict=True)]
    return SeveralTeachers(shown, head.problem, **given)


@pytest.mark.parametrize("head", [head for head in HEADS if head != HEADLESS])
def test_every_head_is_combined_row_by_row(head: str) -> None:
    """Rows that are dropped or stacked per teacher must answer to the same tokens."""
    models, kind = others(3, head), head_of(student(head))
    batch = kind.complete(collate(examples(4, head)))
    targets = kind.targets(batch)
    found = live(models, kind, weights=WEIGHTS).show(batch, targets)
    single = [LiveTeacher(one, Demand(True), kind).show(batch, targets).logits for one in models]
    parts = [weight * logits.softmax(-1) for weight, logits in zip(WEIGHTS, single, strict=True)]
    torch.testing.assert_close(found.logits.softmax(-1), sum(parts) / sum(WEIGHTS))
    assert torch.equal(found.rows, targets.rows)
    assert found.hidden == {}


def test_the_lead_shows_its_layers() -> None:
    """Layers of the wrong teacher are layers all the same."""
    models, head, batch = others(3), head_of(student()), collate(examples(4))
    targets = head.targets(batch)
    found = live(models, head, lead=1).show(batch, targets)
    layers = {"hidden": frozenset({0, 4}), "query": frozenset({3})}
    expected = LiveTeacher(models[1], Demand(layers=layers), head).show(batch, targets)
    for signal in layers:
        torch.testing.assert_close(getattr(found, signal), getattr(expected, signal))
    without = live(models, head).show(batch, targets)
    assert torch.equal(found.logits, without.logits)


# Taking turns on the accelerator


class Marked(nn.Module):
    """Prepares nothing, and can be told from the model that it prepared."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


def waiting(models: list[Any], head: Any, prepare: Callable[..., Any]) -> list[WaitingTeacher]:
    # The CPU stands for an accelerator: weights that are copied in have storage of their own.
    place = torch.device("cpu")
    demand = Demand(logits=True)
    return [WaitingTeacher(one, demand, head, device=place, prepare=prepare) for one in models]


def homes(models: list[Any]) -> list[list[int]]:
    """Where the tensors of each model are in memory."""
    return [[each.data_ptr() for each in tensors(model)] for model in models]


def tensors(model: nn.Module) -> list[Tensor]:
    return [each for each in (*model.parameters(), *model.buffers()) if each.numel()]


def test_one_teacher_at_a_time_is_on_the_accelerator() -> None:
    """With all of them resident, three teachers need three times the memory of one."""
    models, head = others(3), head_of(student())
    resident: list[list[int]] = []

    def away(at_home: list[list[int]]) -> list[int]:
        now = homes(models)
        gone = [
            [here != home for here, home in zip(*both, strict=True)]
            for both in zip(now, at_home, strict=True)
        ]
        assert all(len(set(moved)) == 1 for moved in gone), "half of a model moved"
        return [at for at, moved in enumerate(gone) if all(moved)]

    together = SeveralTeachers(waiting(models, head, Marked), head.problem)
    at_home = homes(models)
    for model in models:
        model.register_forward_pre_hook(lambda *_: resident.append(away(at_home)))
        model.bert.encoder.layer[3].register_forward_hook(lambda *_: resident.append(away(at_home)))
    batch = collate(examples(4))
    targets = head.targets(batch)
    found = together.show(batch, targets)
    assert resident == [[0], [0], [1], [1], [2], [2]]
    assert away(at_home) == []
    assert torch.equal(found.logits, live(models, head).show(batch, targets).logits)


def test_teachers_wait_from_the_beginning() -> None:
    """Prepared one after the other and moved out at the end, all would be resident at once."""
    models, head = others(2), head_of(student())
    moved: list[Tensor] = []

    def prepare(model: nn.Module) -> nn.Module:
        assert all(each.data_ptr() in kept for each in moved), "the one before is still there"
        for each in tensors(model):
            # As `Module.to` does.
            each.data = each.data.clone()
        moved.extend(tensors(model))
        return model

    kept: set[int] = set()
    original = WaitingTeacher._settled

    def settled(self: Any, *args: Any) -> Any:
        model = original(self, *args)
        kept.update(each.data_ptr() for each in self._weights if each.numel())
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WaitingTeacher, "_settled", settled)
        waiting(models, head, prepare)
    assert len(kept) == len(moved)


def test_a_teacher_that_fails_makes_room_for_the_others() -> None:
    """A teacher left behind by an error is there for the rest of a notebook's session."""
    models, head = others(2), head_of(student())
    together = SeveralTeachers(waiting(models, head, lambda model: model), head.problem)
    at_home = homes(models)
    hook = models[1].bert.pooler.register_forward_hook(_broken)
    batch = collate(examples(4))
    with pytest.raises(RuntimeError, match="broken"):
        together.show(batch, head.targets(batch))
    assert homes(models) == at_home
    hook.remove()
    together.show(batch, head.targets(batch))


def _broken(*_: Any) -> None:
    raise RuntimeError("broken")


def test_tied_weights_stay_tied() -> None:
    """Moved one by one, a masked LM's decoder would no longer be its embeddings."""
    model, head = teacher(MASKED), head_of(student(MASKED))
    (only,) = waiting([model], head, lambda model: model)
    batch = collate(examples(4, MASKED))
    seen: list[bool] = []
    words = model.bert.embeddings.word_embeddings
    model.register_forward_pre_hook(
        lambda *_: seen.append(
            model.cls.predictions.decoder.weight.data_ptr() == words.weight.data_ptr()
        )
    )
    only.show(batch, head.targets(batch))
    assert seen == [True]


def test_teachers_take_turns_on_accelerators_alone(tmp_path: Path) -> None:
    """Copied about on a CPU they would only be slower; resident on a GPU they would not fit."""
    run = trainer(tmp_path, teacher=Ensemble(others(2)), objectives=KL)
    demand = Demand(logits=True)
    assert [type(each) for each in run.teacher._teachers] == [LiveTeacher] * 2
    begun = run._teaching.begin(demand, lambda model: model, torch.device("cuda"))
    assert [type(each) for each in begun._teachers] == [WaitingTeacher] * 2
    one = trainer(tmp_path, teacher=teacher(), objectives=KL)
    begun = one._teaching.begin(demand, lambda model: model, torch.device("cuda"))
    assert type(begun) is LiveTeacher, "a single teacher stays"


def test_quantized_teachers_cannot_take_turns() -> None:
    """Their weights cannot be copied to and fro; they would stay, or break at the first step."""
    model = teacher()
    model.hf_device_map = {"bert": 0, "classifier": 1}
    with pytest.raises(ValueError, match=r"movable between devices.*without device_map"):
        waiting([model], head_of(student()), lambda model: model)


# Given to the trainer


def test_a_student_learns_from_several(tmp_path: Path) -> None:
    """What trains must be the blend, not the first teacher or the last."""
    models = others(3)
    together = Ensemble(models, weights=WEIGHTS)
    run = trainer(tmp_path, teacher=together, objectives=KL, learning_rate=0.0, max_steps=1)
    run.train()
    batch = {name: each for name, each in collate(examples(8)).items() if name != "labels"}
    said = torch.stack([model(**batch).logits for model in models])
    mean = blended(said.detach(), "single_label", WEIGHTS)
    signals = run.teacher.show(batch, run.head.targets(batch))
    torch.testing.assert_close(signals.logits, mean)
    assert not run.model(**batch).logits.isnan().any()
    assert logged(run, "loss_kl")[0] > 0


def test_the_loss_is_that_of_the_blend(tmp_path: Path) -> None:
    """With any temperature: it divides the logarithm of the mean distribution."""
    models = others(2)
    run = trainer(
        tmp_path,
        count=4,
        teacher=Ensemble(models, combine="confidence"),
        objectives={"kl": (1.0, KLDivergence(temperature=3.0))},
        max_steps=1,
        learning_rate=0.0,
    )
    run.train()
    batch = {name: each for name, each in collate(examples(4)).items() if name != "labels"}
    said = torch.stack([model(**batch).logits for model in models]).detach()
    mean = blended(said, "single_label", [1.0, 1.0], "confidence")
    ours = (run.model.eval()(**batch).logits / 3).log_softmax(-1)
    theirs = (mean / 3).log_softmax(-1)
    expected = 9 * (theirs.exp() * (theirs - ours)).sum(-1).mean()
    assert logged(run)[0] == pytest.approx(expected.item(), rel=1e-4)


HEADED: dict[str, tuple[dict[str, Any], Any]] = {
    "regression": ({"num_labels": 1}, LogitMSE()),
    "multi-label": ({"problem_type": "multi_label_classification"}, SigmoidKL()),
}


@pytest.mark.parametrize("kind", HEADED)
def test_other_problems_are_combined(tmp_path: Path, kind: str) -> None:
    """A softmax over independent classes, or of one number, teaches a constant."""
    changes, objective = HEADED[kind]
    models = others(2, **changes)
    run = trainer(
        tmp_path,
        labelled=False,
        model=student(**changes),
        teacher=Ensemble(models, weights=[1, 3]),
        objectives={"taught": (1.0, objective)},
    )
    batch = collate(examples(4, labelled=False))
    shown = run.teacher.show(batch, run.head.targets(batch)).logits
    said = [model(**batch).logits for model in models]
    if kind == "regression":
        expected = (said[0] + 3 * said[1]) / 4
    else:
        expected = ((said[0].sigmoid() + 3 * said[1].sigmoid()) / 4).logit()
    torch.testing.assert_close(shown, expected.detach(), rtol=1e-4, atol=1e-5)
    run.train()


def test_layers_come_from_the_lead(tmp_path: Path) -> None:
    """Teachers of other shapes may teach beside it: nothing of their layers is compared."""
    wide = others(1)[0]
    odd = student(seed=9, hidden_size=40, num_hidden_layers=3, num_attention_heads=5)
    objectives = {**KL, **HIDDEN, "relations": (1.0, MiniLMv2(relation_heads=4))}
    run = trainer(tmp_path, teacher=Ensemble([odd, wide], lead=1), objectives=objectives)
    assert run.mixture.terms["hidden"].pairs[-1] == (2, 4)
    run.train()
    assert terms(run) == {"kl", "hidden", "relations"}
    batch = collate(examples(4))
    shown = run.teacher.show(batch, run.head.targets(batch))
    assert {layer: values.shape[-1] for layer, values in shown.hidden.items()} == {
        layer: 48 for _, layer in run.mixture.terms["hidden"].pairs
    }


def test_usual_objectives_without_a_lead_compare_predictions(tmp_path: Path) -> None:
    """The default names hidden states, of which several teachers have no mean."""
    run = trainer(tmp_path, teacher=Ensemble(others(2)))
    assert set(run.mixture.terms) == {"kl", "task"}
    led = trainer(tmp_path, teacher=Ensemble(others(2), lead=0))
    assert set(led.mixture.terms) == {"kl", "task", "hidden"}


def renamed(model: Any, *names: str) -> Any:
    model.config.id2label = dict(enumerate(names))
    return model


def test_classes_of_each_teacher_are_matched_by_name(tmp_path: Path) -> None:
    """Averaged class by class in their own orders, good is half bad."""
    first, second = others(2)
    renamed(second, "LABEL_2", "LABEL_0", "LABEL_1")
    run = trainer(tmp_path, teacher=Ensemble([first, second]), objectives=KL)
    batch = {name: each for name, each in collate(examples(4)).items() if name != "labels"}
    said = torch.stack([first(**batch).logits, second(**batch).logits[:, [1, 2, 0]]])
    expected = blended(said.detach(), "single_label", [1.0, 1.0])
    shown = run.teacher.show(batch, run.head.targets(batch)).logits
    torch.testing.assert_close(shown, expected)


def test_teachers_are_given_the_columns_they_name(tmp_path: Path) -> None:
    """One that reads token types must get them though the first teacher knows none."""
    plain, typed = others(1)[0], student(seed=7)
    short = student(family="DistilBert", seed=8)
    run = trainer(
        tmp_path,
        model=student(family="DistilBert"),
        teacher=Ensemble([short, plain, typed]),
        objectives=KL,
    )
    assert "token_type_ids" in run.teacher.columns
    batch = collate(examples(4))
    targets = run.head.targets(batch)
    ones = {**batch, "token_type_ids": torch.ones_like(batch["input_ids"])}
    assert not torch.allclose(
        run.teacher.show(batch, targets).logits, run.teacher.show(ones, targets).logits
    )


def test_training_leaves_all_teachers_alone(tmp_path: Path) -> None:
    """A second teacher that is trained along, counted, clipped or saved is seen by size only."""
    models = others(3, hidden_dropout_prob=0.1)
    before = [{n: t.clone() for n, t in model.state_dict().items()} for model in models]
    modes: list[bool] = []
    for model in models:
        model.train()
        model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    together = Ensemble(models, lead=0)
    run = trainer(tmp_path, teacher=together, save_strategy="steps", save_steps=2, max_steps=2)
    run.model.train()
    run.train()
    assert modes == [False] * 6
    for model, held in zip(models, before, strict=True):
        assert not any(part.training for part in model.modules())
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, held[name]), name
    optimised = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(parameter) for parameter in run.model.parameters()}
    assert not any("teacher" in name for name in run.model.state_dict())
    saved = (tmp_path / "checkpoint-2" / "model.safetensors").stat().st_size
    assert saved < 4 * sum(tensor.numel() for tensor in before[0].values())


def test_an_ensemble_resumes_bit_equal(tmp_path: Path) -> None:
    """Teachers that draw random numbers, in turns, would shift those of the student."""

    def begun(folder: Path) -> Any:
        model = student(hidden_dropout_prob=0.1)
        together = Ensemble(others(2, hidden_dropout_prob=0.1), combine="confidence", lead=1)
        return trainer(
            folder, model=model, teacher=together, max_steps=4, save_strategy="steps", save_steps=2
        )

    whole = begun(tmp_path / "whole")
    whole.train()
    resumed = begun(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_paths_are_loaded(tmp_path: Path) -> None:
    """An ensemble of paths must be that of the models saved there."""
    models = others(2)
    for name, model in zip("ab", models, strict=True):
        model.save_pretrained(tmp_path / name)
    by_path = trainer(
        tmp_path, teacher=Ensemble([tmp_path / "a", str(tmp_path / "b")]), objectives=KL
    )
    by_path.train()
    by_model = trainer(tmp_path, teacher=Ensemble(models), objectives=KL)
    by_model.train()
    assert logged(by_path) == logged(by_model)


def test_the_card_names_all_teachers(tmp_path: Path) -> None:
    """A card that names one of three teachers tells a third of how the student was made."""
    models = others(3)
    for name, model in zip(("ada", "bob", "cid"), models, strict=True):
        model.name_or_path = f"someone/{name}"
    run = trainer(tmp_path, teacher=Ensemble(models, weights=[1, 2, 0.5], combine="confidence"))
    facts = run.describe()
    sizes = [sum(p.numel() for p in model.parameters()) for model in models]
    assert facts.teacher is not None
    assert facts.teacher.parameters == sum(sizes)
    text = render(facts)
    assert "distilled from the mean weighted 1, 2, 0.5 by confidence of ada, bob and cid" in text
    assert "- Teachers: someone/ada, someone/bob, someone/cid" in text
    for name in ("ada", "bob", "cid"):
        assert f"- someone/{name}\n" in text.split("---")[1], "in the metadata"


# What is refused


def same() -> Ensemble:
    model = teacher()
    return Ensemble([model, model])


def taught_by_itself() -> dict[str, Any]:
    model = student()
    return {"model": model, "teacher": Ensemble([teacher(), model]), "objectives": KL}


ALONE: dict[str, tuple[Callable[[], Any], str]] = {
    "one": (lambda: Ensemble([teacher()]), r"teachers must be two or more, got 1"),
    "the same twice": (same, r"teachers must be different ones, got one of them twice"),
    "the same path twice": (lambda: Ensemble(["a", "a"]), r"teachers must be different ones"),
    "nested": (lambda: Ensemble([Ensemble(["a", "b"]), "c"]), r"got Ensemble\. Name the teach"),
    "none": (lambda: Ensemble(["a", None]), r"models, paths or adapters, got NoneType"),
    "weights too few": (
        lambda: Ensemble(["a", "b"], weights=[1]),
        r"weights must be one number for each of the 2 teachers, got 1",
    ),
    "a weight of 0": (
        lambda: Ensemble(["a", "b"], weights=[1, 0]),
        r"weights must be finite numbers above 0, got 0\. Leave out a teacher",
    ),
    "an infinite weight": (
        lambda: Ensemble(["a", "b"], weights=[1, math.inf]),
        r"weights must be finite numbers above 0, got inf",
    ),
    "another combination": (
        lambda: Ensemble(["a", "b"], combine="vote"),  # type: ignore[arg-type]
        r"combine must be one of mean, confidence, got 'vote'",
    ),
    "a lead that there is not": (
        lambda: Ensemble(["a", "b"], lead=2),
        r"lead must be the index of a teacher, 0 to 1, got 2",
    ),
}


@pytest.mark.parametrize("asked", ALONE)
def test_ensembles_are_checked_by_themselves(asked: str) -> None:
    """Each would teach something else than what was meant."""
    made, message = ALONE[asked]
    with pytest.raises(ValueError, match=message):
        made()


REFUSED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "layers without a lead": (
        lambda: {"teacher": Ensemble(others(2)), "objectives": {**KL, **HIDDEN}},
        r"must name a lead where layers are compared, got none for objectives \['hidden'\]",
    ),
    "no predictions": (
        lambda: {"teacher": Ensemble(others(2), lead=0), "objectives": HIDDEN},
        r"objectives must compare logits where several teachers teach, got \['hidden'\]",
    ),
    "labels alone": (
        lambda: {
            "teacher": Ensemble(others(2)),
            "objectives": {"task": (1.0, CrossEntropy())},
        },
        r"objectives must compare logits where several",
    ),
    "no head": (
        lambda: {
            "model": student(HEADLESS),
            "teacher": Ensemble(others(2, HEADLESS)),
            "train_dataset": examples(8, HEADLESS),
        },
        r"must name a lead where layers are compared",
    ),
    "confidence of numbers": (
        lambda: {
            "model": student(num_labels=1),
            "teacher": Ensemble(others(2, num_labels=1), combine="confidence"),
            "objectives": {"mse": (1.0, LogitMSE())},
        },
        r"combine must be 'mean' for regression, got 'confidence'",
    ),
    "one of another task": (
        lambda: {"teacher": Ensemble([teacher(), teacher(TOKEN)]), "objectives": KL},
        r"teachers\[1\] \(BertForTokenClassification\): teacher must have the student's kind",
    ),
    "one of other classes": (
        lambda: {
            "teacher": Ensemble([renamed(teacher(), "a", "b", "c"), teacher()]),
            "objectives": KL,
        },
        r"teachers\[0\] \(BertForSequenceClassification\): labels of student and teacher",
    ),
    "one of another vocabulary": (
        lambda: {"teacher": Ensemble([teacher(), teacher(vocab_size=61)]), "objectives": KL},
        r"teachers\[1\] \(.*\): teacher's vocabulary must be of the student's size 60, got 61",
    ),
    "the student itself": (
        taught_by_itself,
        r"teachers\[1\] \(.*\): teacher must be another model than the student",
    ),
    "a lead that cannot show it": (
        lambda: {
            "teacher": Ensemble([teacher(), student(family="ModernBert")], lead=1),
            "objectives": {**KL, "relations": (1.0, MiniLMv2(relation_heads=5))},
        },
        r"teachers\[1\] \(.*\): relation_heads must divide the widths",
    ),
}


@pytest.mark.parametrize("asked", REFUSED)
def test_refused(asked: str, tmp_path: Path) -> None:
    """What does not fit must name the teacher, or one looks for it in all of them."""
    given, message = REFUSED[asked]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        trainer(tmp_path, **given())


def test_an_untrained_head_is_named(tmp_path: Path) -> None:
    """One random teacher of three is not noticed in a mean."""
    teacher(HEADLESS).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"teachers\[1\] \(.*bare\): teacher must be fine-tuned"):
        trainer(tmp_path, teacher=Ensemble([teacher(), tmp_path / "bare"]), objectives=KL)
