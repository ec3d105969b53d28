"""A teacher in half precision teaches nearly the same; in a type of its own, exactly that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill import objectives
from hf_distill.objectives import HiddenMSE, KLDivergence
from tests.contract.smallest import SMALLEST, VARIANTS
from tests.equivalence.cases import EXAMPLES, Case, Step, first_step
from tests.training.runs import (
    SEQUENCE,
    collate,
    examples,
    relative_error,
    student,
    teacher,
    trainer,
)

BOUNDS = {"bfloat16": (0.04, 0.02), "float16": (0.01, 0.005)}
"""Type of the teacher -> relative error of all gradients together, and of the loss."""
MODELS: dict[str, dict[str, Any]] = {
    # Few classes are nearly equal in one sentence or the other; their correlation is all noise.
    "single_label": {"num_labels": 8},
    "multi_label": {"problem_type": "multi_label_classification"},
    "regression": {"num_labels": 1},
}


def cases() -> list[Any]:
    """Every objective that reads the teacher, with its variants."""
    found = []
    for name in objectives.__all__:
        for given in [SMALLEST[name], *VARIANTS.get(name, [])]:
            objective = getattr(objectives, name)(**given)
            if objective.reads_teacher:
                found.append(pytest.param(objective, id=f"{name} {given}"))
    return found


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("objective", cases())
def test_teachers_in_half_precision_teach_the_same(
    objective: Any, dtype: str, tmp_path: Path
) -> None:
    """A loss in the teacher's type has three digits, or is no number at all."""
    problem = next(each for each in MODELS if each in objective.problems)
    labelled = "labels" in objective.needs
    case = Case(SEQUENCE, {"term": (1.0, objective)}, labelled, MODELS[problem])
    wide = first_step(case, tmp_path, EXAMPLES, 1)
    found = first_step(case, tmp_path, EXAMPLES, 1, teacher_dtype=dtype)
    gradients, losses = BOUNDS[dtype]
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())
    assert all(gradient.dtype == torch.float32 for gradient in found.gradients.values())
    assert relative_error(found.gradients, wide.gradients) <= gradients
    assert found.losses == pytest.approx(wide.losses, rel=losses, abs=1e-3)
    assert found.losses != wide.losses, "the teacher was not cast"


BOTH = {"hidden": (1.0, HiddenMSE()), "kl": (1.0, KLDivergence())}
HIDDEN = {"hidden": (1.0, HiddenMSE())}


def taught(folder: Path, **given: Any) -> Any:
    """What a trainer's teacher shows of four examples."""
    run = trainer(folder, model=student(), teacher=teacher(), **given)
    batch = run._prepare_inputs(collate(examples(4)))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given.get("bf16", False)):
        return run.teacher.show(batch, run.head.targets(batch))


@pytest.mark.parametrize("mixture", [BOTH, HIDDEN], ids=["whole", "truncated"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_autocast_is_not_for_a_teacher_with_a_type(
    dtype: str, mixture: Any, tmp_path: Path
) -> None:
    """It would round a float32 teacher after all, and keep a bfloat16 one's norms in float32."""
    plain = taught(tmp_path, objectives=mixture, teacher_dtype=dtype)
    mixed = taught(tmp_path, objectives=mixture, teacher_dtype=dtype, bf16=True)
    assert plain.hidden[4].dtype == getattr(torch, dtype)
    for layer, states in plain.hidden.items():
        assert mixed.hidden[layer].dtype == states.dtype
        assert torch.equal(mixed.hidden[layer], states)
    usual = taught(tmp_path, objectives=mixture, bf16=True)
    rounded = taught(tmp_path, objectives=mixture)
    assert not torch.equal(usual.hidden[4].float(), rounded.hidden[4]), "there is no autocast"


def test_autocast_of_an_earlier_training_is_left_behind(tmp_path: Path) -> None:
    """A teacher that was fine-tuned in bfloat16 just before has autocast in its forward pass."""
    tuned = teacher()
    trainer(tmp_path, model=student(), teacher=tuned, objectives=BOTH, bf16=True)
    assert "_original_forward" in vars(tuned)
    batch = collate(examples(4))
    shown = []
    for model in (tuned, teacher()):
        run = trainer(
            tmp_path, model=student(), teacher=model, objectives=BOTH, teacher_dtype="float32"
        )
        shown.append(run.teacher.show(batch, run.head.targets(batch)))
    assert torch.equal(shown[0].logits, shown[1].logits)
    assert torch.equal(shown[0].hidden[4], shown[1].hidden[4])


def step(folder: Path, case: Case, **more: Any) -> Step:
    return first_step(case, folder, EXAMPLES, 1, **more)


@pytest.mark.parametrize("name", ["whole", "truncated"])
def test_cast_teachers_teach_beside_autocast(name: str, tmp_path: Path) -> None:
    """Losses of a bfloat16 student and a bfloat16 teacher are float32 all the same."""
    case = Case(SEQUENCE, {"whole": BOTH, "truncated": HIDDEN}[name])
    wide = step(tmp_path, case)
    found = step(tmp_path, case, bf16=True, teacher_dtype="bfloat16")
    assert relative_error(found.gradients, wide.gradients) <= 0.05
    assert found.losses == pytest.approx(wide.losses, rel=0.02)
