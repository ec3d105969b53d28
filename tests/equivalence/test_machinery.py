"""Compilation, checkpointing and autocast change how a step is computed, not what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_distill.objectives import CrossEntropy, HiddenMSE, KLDivergence, MiniLMv2
from tests.equivalence.cases import EXAMPLES, Case, Step, first_step
from tests.training.runs import SEQUENCE, checkpointing, relative_error

FEATURES = {"hidden": (1.0, HiddenMSE()), "relations": (1.0, MiniLMv2())}
LOGITS = {"kl": (0.5, KLDivergence()), "task": (1.0, CrossEntropy())}
SHALLOW: dict[str, Any] = {"layer_mapping": [(1, 1), (2, 2)]}
BFLOAT16 = {"teacher_dtype": "bfloat16"}


def step(folder: Path, objectives: dict[str, Any], batches: int = 2, **arguments: Any) -> Step:
    case = Case(SEQUENCE, objectives)
    return first_step(case, folder, EXAMPLES // batches, batches, **arguments)


@pytest.mark.slow
# Dynamo looks for it on every tensor that crosses two graphs.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("objectives", "given", "taught"),
    [
        ({**FEATURES, **LOGITS}, {}, "BertForSequenceClassification"),
        (FEATURES, SHALLOW, "BertModel"),
        ({**FEATURES, **LOGITS}, BFLOAT16, "BertForSequenceClassification"),
        (FEATURES, {**SHALLOW, **BFLOAT16}, "BertModel"),
    ],
    ids=["whole", "truncated", "whole in bfloat16", "truncated in bfloat16"],
)
def test_compiled_gradients_are_those_of_eager(
    objectives: dict[str, Any],
    given: dict[str, Any],
    taught: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A compiled graph that ignores the hooks shows features of no batch, or of an old one."""
    # Dynamo's own records would be kept as text, megabytes of them.
    caplog.set_level("ERROR", "torch.__trace")
    plain = step(tmp_path, objectives, batches=1, **given)
    torch.compiler.reset()
    compile_one, seen = torch.compile, []

    def watched(model: Any, **options: Any) -> Any:
        seen.append(type(model).__name__)
        return compile_one(model, **options)

    monkeypatch.setattr(torch, "compile", watched)
    backend = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    compiled = step(tmp_path, objectives, batches=1, **given, **backend)
    assert seen == [taught, "BertForSequenceClassification"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2, "nothing was compiled."
    torch.compiler.reset()
    assert relative_error(compiled.gradients, plain.gradients) <= 1e-4
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)


@pytest.mark.parametrize("objectives", [FEATURES, {**FEATURES, **LOGITS}], ids=["features", "all"])
def test_checkpointed_gradients_are_plain_ones(objectives: Any, tmp_path: Path) -> None:
    """Features recorded inside a checkpoint without gradient: the loss falls, the student stays."""
    plain = step(tmp_path, objectives)
    found = step(tmp_path, objectives, **checkpointing())
    assert relative_error(found.gradients, plain.gradients) <= 1e-5
    assert found.losses == pytest.approx(plain.losses, rel=1e-6)


@pytest.mark.parametrize("objectives", [FEATURES, LOGITS], ids=["features", "logits"])
def test_autocast_gradients_are_close(objectives: Any, tmp_path: Path) -> None:
    """Losses in bfloat16 lose what differs between student and teacher: the part that matters."""
    plain = step(tmp_path, objectives)
    found = step(tmp_path, objectives, bf16=True)
    assert relative_error(found.gradients, plain.gradients) <= 0.05
    assert found.losses == pytest.approx(plain.losses, rel=0.02)
