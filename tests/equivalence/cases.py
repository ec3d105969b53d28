"""One optimizer step over the same 16 examples, cut into batches in several ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor

from hf_distill import Adapter, Ensemble
from hf_distill.objectives import (
    CrossEntropy,
    HiddenMSE,
    InfoNCE,
    KLDivergence,
    LogitMSE,
    MIAlpha,
    MiniLM,
    MiniLMv2,
    SquaredError,
)
from tests.training.runs import (
    CAUSAL,
    HEADLESS,
    MASKED,
    SEQ2SEQ,
    SEQUENCE,
    SPAN,
    TOKEN,
    Gradients,
    checkpointing,
    logged,
    lora,
    student,
    teacher,
    terms,
    trainer,
)

EXAMPLES = 16


@dataclass(frozen=True)
class Case:
    """What is trained, and on which mixture."""

    head: str
    objectives: dict[str, Any]
    labelled: bool = True
    model: dict[str, Any] = field(default_factory=dict)
    """Changes of both configs."""
    models: Callable[[], dict[str, Any]] | None = None
    """Both models, where they are others than those of the head."""
    arguments: dict[str, Any] = field(default_factory=dict)
    accumulates: bool = True
    """Whether micro-batches are one big batch: not where sequences are compared with each other."""

    def usual(self) -> dict[str, Any]:
        """A student and a teacher of the head."""
        models = student(self.head, **self.model), teacher(self.head, **self.model)
        return dict(zip(("model", "teacher"), models, strict=True))


@dataclass(frozen=True)
class Step:
    """Gradients of the first step, and what was logged of it."""

    gradients: dict[str, Tensor]
    losses: dict[str, float]


_KL = {"kl": (0.5, KLDivergence())}
_CE = {"task": (1.0, CrossEntropy())}
_HIDDEN = {"hidden": (1.0, HiddenMSE())}
_SMALL = {"hidden": 8, "width": 4}
_RELATIONS = {"relations": (1.0, MiniLMv2())}


def _several() -> dict[str, Any]:
    both = [teacher(SEQUENCE), student(SEQUENCE, seed=9)]
    return {"model": student(SEQUENCE), "teacher": Ensemble(both, combine="confidence", lead=0)}


def _shared() -> dict[str, Any]:
    config = {"target_modules": ["query", "dense"], "task_type": "SEQ_CLS"}
    model = lora(student(SEQUENCE), **config)
    model.add_adapter("expert", LoraConfig(**config, init_lora_weights=False))
    return {"model": model, "teacher": Adapter("expert")}


CASES: dict[str, Case] = {
    "sequences": Case(SEQUENCE, {**_KL, **_CE}),
    "uneven tokens": Case(TOKEN, {**_KL, **_CE}),
    "masked tokens": Case(MASKED, {**_KL, **_CE}),
    "spans": Case(SPAN, {**_KL, **_CE}),
    "regression": Case(
        SEQUENCE,
        {"mse": (0.5, LogitMSE()), "task": (1.0, SquaredError())},
        model={"num_labels": 1},
    ),
    "next tokens": Case(CAUSAL, {**_KL, **_CE, **_HIDDEN}),
    "unlabelled next tokens": Case(CAUSAL, _KL, labelled=False),
    "targets of a decoder": Case(SEQ2SEQ, {**_KL, **_CE, **_HIDDEN}),
    "an encoder beside a decoder": Case(SEQ2SEQ, _HIDDEN),
    "unlabelled, headless": Case(HEADLESS, _HIDDEN, labelled=False),
    "projections beside logits": Case(SEQUENCE, {**_KL, **_CE, **_HIDDEN}),
    "relations beside logits": Case(SEQUENCE, {**_KL, **_CE, **_RELATIONS}),
    "hidden only": Case(SEQUENCE, _HIDDEN),
    "MiniLM only": Case(SEQUENCE, {"minilm": (1.0, MiniLM())}),
    "mutual information": Case(
        SEQUENCE,
        {
            "mi": (1.0, MIAlpha(alpha=0.5, critic=_SMALL)),
            "tokens": (0.5, InfoNCE(critic={**_SMALL, "pooling": "tokens", "queue": 8})),
            **_KL,
        },
        accumulates=False,
    ),
    "several teachers": Case(SEQUENCE, {**_KL, **_CE, **_HIDDEN}, models=_several),
    "an adapter of the same base": Case(SEQUENCE, {**_KL, **_CE, **_HIDDEN}, models=_shared),
    "an adapter, checkpointed": Case(
        SEQUENCE, {**_KL, **_RELATIONS}, models=_shared, arguments=checkpointing()
    ),
    "features only, checkpointed": Case(
        SEQUENCE, {**_HIDDEN, **_RELATIONS}, arguments=checkpointing()
    ),
}


def first_step(case: Case, folder: Path, batch_size: int, accumulation: int, **more: Any) -> Step:
    """Train for two steps without learning, so that DDP meets the second one too."""
    gradients = Gradients()
    run = trainer(
        folder,
        case.head,
        count=EXAMPLES,
        labelled=case.labelled,
        **(case.models or case.usual)(),
        objectives=case.objectives,
        callbacks=[gradients],
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=0.0,
        **case.arguments,
        **more,
    )
    run.train()
    names = ["loss", *(f"loss_{name}" for name in sorted(terms(run)))]
    return Step(gradients.steps[0], {name: logged(run, name)[0] for name in names})


def comparable(case: Case, accumulation: int) -> bool:
    """Whether batches that are cut like this are one big batch for the case."""
    return case.accumulates or accumulation == 1
