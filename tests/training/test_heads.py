"""What is learnt beside the student: trained with it, kept with it, never released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from hf_distill.objectives import HiddenMSE, KLDivergence, MiniLMv2
from hf_distill.training.heads import FILE, NAME, DistillationHeads
from tests.training.runs import (
    HEADLESS,
    HEADS,
    SEQ2SEQ,
    SEQUENCE,
    Gradients,
    logged,
    student,
    teacher,
    trainer,
)

HIDDEN = {"hidden": (1.0, HiddenMSE())}


def projections(run: Any) -> dict[str, torch.Tensor]:
    return {n: w.detach().clone() for n, w in run.model.state_dict().items() if NAME in n}


def norm(gradients: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())


def test_projections_are_trained_and_decayed_like_the_student(tmp_path: Path) -> None:
    """Projections that no optimizer knows stay random: the student learns a random rotation."""
    run = trainer(tmp_path, objectives=HIDDEN, weight_decay=0.1)
    before = projections(run)
    run.train()
    assert sorted(before) == sorted(
        f"{NAME}.projections.{layer}.{kind}" for layer in (0, 1, 2) for kind in ("weight", "bias")
    )
    for name, weight in projections(run).items():
        assert not torch.equal(weight, before[name]), name
    decayed = {id(p) for group in run.optimizer.param_groups[:1] for p in group["params"]}
    for name, parameter in run.model.named_parameters():
        if NAME in name:
            assert (id(parameter) in decayed) == name.endswith("weight")


def test_clipping_covers_projections(tmp_path: Path) -> None:
    """Clipping that leaves the projections out lets them explode beside a bounded student."""
    whole, clipped = Gradients(), Gradients()
    trainer(tmp_path, objectives=HIDDEN, callbacks=[whole]).train()
    run = trainer(tmp_path, objectives=HIDDEN, callbacks=[clipped], max_grad_norm=0.05)
    run.train()
    plain, scaled = whole.steps[0], clipped.steps[0]
    assert logged(run, "grad_norm")[0] == pytest.approx(norm(plain), rel=1e-4)
    assert norm(scaled) == pytest.approx(0.05, rel=1e-3)
    heads = {name: gradient for name, gradient in plain.items() if NAME in name}
    assert norm(heads) > 0.05 * norm(plain)
    for name, gradient in heads.items():
        expected = gradient * 0.05 / norm(plain)
        torch.testing.assert_close(scaled[name], expected, rtol=1e-3, atol=1e-7)


def test_equal_widths_need_no_projection(tmp_path: Path) -> None:
    """A projection where none is needed hides from the student what the teacher's states are."""
    run = trainer(tmp_path, teacher=teacher(hidden_size=32), objectives=HIDDEN, save_strategy="no")
    run.train()
    run.save_model()
    assert projections(run) == {}
    assert not (tmp_path / FILE).exists()
    relations = trainer(tmp_path, objectives={"relations": (1.0, MiniLMv2())})
    assert projections(relations) == {}


def test_a_wider_student_is_projected_too(tmp_path: Path) -> None:
    """A projection that is only built upwards leaves a wider student to an error of shapes."""
    run = trainer(tmp_path, teacher=teacher(hidden_size=16), objectives=HIDDEN)
    run.train()
    shapes = {tuple(weight.shape) for name, weight in projections(run).items() if "weight" in name}
    assert shapes == {(16, 32)}
    assert all(logged(run, "loss_hidden"))


def test_initialisation_is_seeded_and_leaves_the_random_state_alone() -> None:
    """Heads drawn from the global generator shift the order of data of every run that has them."""
    state = torch.get_rng_state()
    first = DistillationHeads(frozenset({1}), 4, 6, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    second = DistillationHeads(frozenset({1}), 4, 6, seed=3).state_dict()
    other = DistillationHeads(frozenset({1}), 4, 6, seed=4).state_dict()
    name = "projections.1.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_checkpoints_are_ordinary_and_keep_heads_apart(tmp_path: Path) -> None:
    """A student whose file has keys that its class does not know warns every user, for ever."""
    run = trainer(tmp_path, objectives=HIDDEN, save_strategy="steps", save_steps=1)
    run.train()
    for folder in (tmp_path / "checkpoint-1", tmp_path / "checkpoint-2"):
        weights = load_file(folder / "model.safetensors")
        assert not any(NAME in name for name in weights)
        assert sorted(load_file(folder / FILE)) == sorted(
            name.removeprefix(f"{NAME}.") for name in projections(run)
        )
    run.save_model(str(tmp_path / "final"))
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "final", output_loading_info=True
    )
    assert not any(report.values()), report
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, run.model.state_dict()[name]), name


@pytest.mark.parametrize("head", HEADS)
def test_students_of_every_head_load_without_a_missing_key(head: str, tmp_path: Path) -> None:
    """A tied decoder or a pooler that got lost on the way is drawn anew on loading."""
    run = trainer(tmp_path, head, objectives=HIDDEN)
    run.train()
    run.save_model()
    named = {HEADLESS: "AutoModel", SEQ2SEQ: "AutoModelForSeq2SeqLM"}
    auto = getattr(transformers, named.get(head, f"AutoModel{head}"))
    _, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report


@pytest.mark.slow
def test_students_load_where_hf_distill_is_not_installed(tmp_path: Path) -> None:
    """A checkpoint that needs this package at loading is not an ordinary checkpoint."""
    run = trainer(tmp_path, objectives=HIDDEN)
    run.train()
    run.save_model()
    script = f"""
import sys
sys.modules["hf_distill"] = None  # an import of it fails
import transformers
auto = transformers.AutoModelForSequenceClassification
model, report = auto.from_pretrained({str(tmp_path)!r}, output_loading_info=True)
assert not any(report.values()), report
assert type(model).__name__ == "BertForSequenceClassification"
try:
    import hf_distill
except ImportError:
    print("loaded", model.num_parameters())
"""
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded", str(student().num_parameters())], done.stderr


def test_the_best_checkpoint_brings_its_projections_back(tmp_path: Path) -> None:
    """The best student beside the last projections: training on starts from a wrong loss."""
    scores = iter([1.0, 3.0, 2.0])
    run = trainer(
        tmp_path,
        SEQUENCE,
        objectives={**HIDDEN, "kl": (1.0, KLDivergence())},
        max_steps=3,
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=trainer(tmp_path).train_dataset,
        compute_metrics=lambda _: {"score": next(scores)},
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
    )
    run.train()
    best = tmp_path / "checkpoint-2"
    assert run.state.best_model_checkpoint == str(best)
    kept = {**load_file(best / "model.safetensors"), **projected(best)}
    last = projected(tmp_path / "checkpoint-3")
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, kept[name]), name
    assert not all(torch.equal(kept[name], weight) for name, weight in last.items())


def projected(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{NAME}.{name}": weight for name, weight in load_file(folder / FILE).items()}
