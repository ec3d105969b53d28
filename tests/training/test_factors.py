"""Students with factorised embeddings: trained by factors, saved as a table, resumed exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer

from hf_distill import DistillationTrainer
from hf_distill.objectives import HiddenMSE, KLDivergence
from hf_distill.student import factorise_embeddings, fold_embeddings, freeze_embeddings
from hf_distill.student.factorised import FACTORS_FILE, factorised
from hf_distill.training.requests import check_factors
from tests.training.runs import (
    CAUSAL,
    MASKED,
    SEQ2SEQ,
    SEQUENCE,
    arguments,
    collate,
    examples,
    lora,
    student,
    trainer,
)

HEADS = [SEQUENCE, MASKED, CAUSAL, SEQ2SEQ]


def small(head: str = SEQUENCE, seed: int = 1, **given: Any) -> Any:
    model = student(head, seed=seed)
    factorise_embeddings(model, 6, **given)
    return model


def run_of(folder: Path, head: str = SEQUENCE, **given: Any) -> DistillationTrainer:
    """Four steps, each of them saved, of a student with projections beside it too."""
    given.setdefault("model", small(head))
    objectives = {"kl": (1.0, KLDivergence()), "hidden": (1.0, HiddenMSE())}
    defaults = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "weight_decay": 0.1}
    return trainer(
        folder, head, count=16, objectives=objectives, **{**defaults, "max_grad_norm": 1.0, **given}
    )


def factors(run: Any) -> dict[str, Tensor]:
    found = factorised(run.model)
    assert found is not None
    return {name: each.detach().clone() for name, each in found.named_parameters()}


def logits(model: Any, head: str) -> Tensor:
    given = {
        name: each for name, each in collate(examples(4, head)).items() if "labels" not in name
    }
    if head == SEQ2SEQ:
        given["decoder_input_ids"] = given["input_ids"]
    with torch.no_grad():
        return model.eval()(**given).logits


@pytest.mark.parametrize("head", HEADS)
def test_saved_students_are_ordinary(head: str, tmp_path: Path) -> None:
    """A checkpoint of factors that plain transformers opens with a random table."""
    run = run_of(tmp_path, head)
    before = factors(run)
    run.train()
    for name, each in factors(run).items():
        assert not torch.equal(each, before[name]), f"{name} was not trained"
    run.save_model()
    expected = logits(run.model, head)
    ordinary = student(head)
    opened, info = type(ordinary).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert torch.allclose(logits(opened, head), expected, atol=1e-5)
    assert {each.shape for each in opened.parameters()} == {
        each.shape for each in ordinary.parameters()
    }
    saved = load_file(tmp_path / "model.safetensors")
    ordinary.save_pretrained(tmp_path / "ordinary")
    assert set(saved) == set(load_file(tmp_path / "ordinary" / "model.safetensors"))
    fold_embeddings(run.model)
    assert torch.allclose(logits(run.model, head), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "center", "freeze"),
    [
        (SEQUENCE, True, False),
        (SEQUENCE, False, True),
        (MASKED, True, True),
        (CAUSAL, False, False),
        (SEQ2SEQ, True, False),
    ],
)
def test_resumed_runs_are_bit_equal(head: str, center: bool, freeze: bool, tmp_path: Path) -> None:
    """Factors found anew from the saved table, under moments that belong to other factors."""
    given = {"center": center, "freeze": freeze}
    whole = run_of(tmp_path / "whole", head, model=small(head, **given))
    began = factors(whole)
    whole.train()
    assert torch.equal(factors(whole)["weight"], began["weight"]) == freeze
    resumed = run_of(tmp_path / "resumed", head, model=small(head, seed=5, **given))
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    expected = factors(whole)
    assert set(expected) == {"weight", "projection", *(["projection_bias"] if center else [])}
    for name, each in factors(resumed).items():
        assert torch.equal(each, expected[name]), name
    for name, each in whole.model.state_dict().items():
        assert torch.equal(each, resumed.model.state_dict()[name]), name
    assert [entry["loss"] for entry in resumed.state.log_history if "loss" in entry] == [
        entry["loss"] for entry in whole.state.log_history if "loss" in entry
    ]


def test_factors_are_decayed_as_tables_and_biases_are(tmp_path: Path) -> None:
    """The mean of the rows, drawn towards 0; or a frozen table that shrinks without a gradient."""
    run = run_of(tmp_path, model=small(freeze=True), max_steps=1)
    run.train()
    found = factorised(run.model)
    assert found is not None
    decayed, plain = ({id(p) for p in group["params"]} for group in run.optimizer.param_groups)
    assert id(found.projection) in decayed
    assert id(found.projection_bias) in plain
    assert id(found.weight) not in decayed | plain


def test_the_best_checkpoint_is_loaded_whole(tmp_path: Path) -> None:
    """The last step's factors, with all else of the best one's."""
    run = run_of(
        tmp_path,
        eval_dataset=examples(8, SEQUENCE),
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
        learning_rate=3e-2,
    )
    run.train()
    best = Path(str(run.state.best_model_checkpoint))
    assert best.name != "checkpoint-4"
    saved = load_file(best / FACTORS_FILE)
    for name, each in factors(run).items():
        assert torch.equal(each, saved[name]), name
    table = load_file(best / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    shown = run.model.state_dict()["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(shown, table)


def test_checkpoints_without_factors_are_refused(tmp_path: Path) -> None:
    """Another basis than that of the optimizer's moments, and no word of it."""
    run_of(tmp_path).train()
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / FACTORS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"checkpoint must hold {FACTORS_FILE}"):
        run_of(tmp_path / "again").train(resume_from_checkpoint=str(checkpoint))


def test_ordinary_students_have_no_such_file(tmp_path: Path) -> None:
    """A file of nothing beside every checkpoint."""
    run_of(tmp_path, model=student(), max_steps=1).train()
    assert not list(tmp_path.rglob(FACTORS_FILE))


def test_the_plain_trainer_saves_ordinary_models_and_resumes_none(tmp_path: Path) -> None:
    """It knows no factors: what it saves must be whole; what it cannot resume, it must say."""

    def plain(folder: Path) -> Trainer:
        return Trainer(
            small(),
            arguments(folder, save_strategy="steps", save_steps=1),
            train_dataset=examples(8, SEQUENCE),
            data_collator=collate,
        )

    run = plain(tmp_path / "first")
    run.train()
    checkpoint = tmp_path / "first" / "checkpoint-2"
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert torch.allclose(logits(opened, SEQUENCE), logits(run.model, SEQUENCE), atol=1e-5)
    with pytest.raises(RuntimeError, match=r"must be the product of the factors"):
        plain(tmp_path / "second").train(
            resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-1")
        )


@pytest.mark.parametrize("frozen", [True, False])
def test_ordinary_tables_resume_frozen(frozen: bool, tmp_path: Path) -> None:
    """A frozen table that is trained after the resume, or one that was never frozen."""

    def made(folder: str) -> DistillationTrainer:
        model = student()
        if frozen:
            freeze_embeddings(model)
        return run_of(tmp_path / folder, model=model)

    whole = made("whole")
    name = "bert.embeddings.word_embeddings.weight"
    began = whole.model.state_dict()[name].clone()
    whole.train()
    assert torch.equal(whole.model.state_dict()[name], began) == frozen
    resumed = made("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for key, each in whole.model.state_dict().items():
        assert torch.equal(each, resumed.model.state_dict()[key]), key


def test_gradient_norms_pass_over_frozen_tables(tmp_path: Path) -> None:
    """Asked for the gradient of what has none, autograd raises in the middle of a run."""
    run = run_of(tmp_path, model=small(freeze=True), log_gradient_norms=True, max_steps=1)
    run.train()
    assert any("gradient_norm_kl" in entry for entry in run.state.log_history)


def test_factors_that_would_not_be_folded_are_refused(tmp_path: Path) -> None:
    """Adapters are saved beside a base whose table nobody has; shards are gathered as they are."""
    adapted = lora(small(), target_modules=["query"], task_type="SEQ_CLS")
    with pytest.raises(ValueError, match=r"got adapters\. Fold them first, fold_embeddings"):
        run_of(tmp_path, model=adapted)
    with pytest.raises(ValueError, match="got FSDP or DeepSpeed"):
        check_factors(small(), sharded=True)
    check_factors(small(), sharded=False)
    check_factors(student(), sharded=True)
