"""The facts of a model card, from what happened in a trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from hf_distill.architectures import base_model, decoder_layers, plain_model
from hf_distill.objectives.mixture import Mixture
from hf_distill.objectives.schedule import Schedule
from hf_distill.release.card import ModelFacts, TermFacts, TrainingFacts
from hf_distill.signals.head import Head
from hf_distill.teacher.adapters import silent_adapters
from hf_distill.training.heads import NAME

_HEADS = {
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "masked-lm",
    "ForCausalLM": "causal-lm",
    "ForConditionalGeneration": "seq2seq-lm",
    "Model": "encoder",
}
_PACKAGES = ("hf-distill", "torch", "transformers", "accelerate", "datasets")
_UNSCORED = ("runtime", "per_second", "epoch", "steps", "model_preparation_time")


def model_facts(model: Any, adapters: Sequence[str] | None = None) -> ModelFacts:
    """Sizes of a model, without what is learnt beside it.

    Args:
        model: The model.
        adapters: Those of a PEFT model that are counted; the active one without.
    """
    config = base_model(model).config
    return ModelFacts(
        **_sizes(_tensors(model, adapters)),
        layers=config.num_hidden_layers,
        decoder_layers=decoder_layers(model) or None,
        width=config.hidden_size,
        heads=config.num_attention_heads,
    )


def joint_facts(models: Sequence[tuple[Any, Sequence[str] | None]]) -> ModelFacts:
    """Sizes of several models together, with their adapters as in `model_facts`.

    A base that they share is counted once.
    """
    held: dict[int, Tensor] = {}
    for model, adapters in models:
        held |= _tensors(model, adapters)
    return ModelFacts(**_sizes(held))


def _tensors(model: Any, adapters: Sequence[str] | None) -> dict[int, Tensor]:
    """What is saved of a model, each tensor once."""
    silent = silent_adapters(model, adapters)
    return {
        id(value): value
        for key, value in model.state_dict(keep_vars=True).items()
        if not key.startswith(f"{NAME}.") and silent.isdisjoint(key.split("."))
    }


def _sizes(tensors: Mapping[int, Tensor]) -> dict[str, Any]:
    held = tensors.values()
    return {
        "parameters": sum(value.numel() for value in held if isinstance(value, nn.Parameter)),
        "megabytes": sum(value.numel() * value.element_size() for value in held) / 1e6,
    }


def card_head(head: Head) -> Any:
    """A head's name in cards."""
    return _HEADS[head.suffix]


def versions() -> dict[str, str]:
    """Versions of the packages that shape a result."""
    return {package: version(package) for package in _PACKAGES}


def term_facts(mixture: Mixture) -> list[TermFacts]:
    """What was compared."""
    return [
        TermFacts(
            name=name,
            objective=type(term.objective).__name__,
            weight=str(term.weight) if isinstance(term.weight, Schedule) else term.weight,
            settings=term.objective.settings(),
            pairs=list(term.pairs),
            renewed_every=term.renewed_every,
            citation=term.objective.citation,
        )
        for name, term in mixture.terms.items()
    ]


def training_facts(trainer: Trainer) -> TrainingFacts:
    """How long, how fast, in batches of which size."""
    state, args = trainer.state, trainer.args
    runtime = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    processes = trainer.accelerator.num_processes
    return TrainingFacts(
        epochs=None if state.epoch is None else round(state.epoch, 2),
        steps=state.global_step,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps * processes,
        learning_rate=args.learning_rate,
        seed=args.seed,
        seconds=sum(runtime) if runtime else None,
    )


def last_scores(history: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The last evaluation."""
    evaluations = [entry for entry in history if any(key.startswith("eval_") for key in entry)]
    if not evaluations:
        return {}
    scores = {
        key.removeprefix("eval_"): value
        for key, value in evaluations[-1].items()
        if key.startswith("eval_") and not key.endswith(_UNSCORED)
    }
    return {"student": scores} if scores else {}


def named(model: nn.Module) -> str:
    """A model's name: where it was loaded from, else its class."""
    return plain_model(model).name_or_path or type(plain_model(model)).__name__


def refuse_given(unsupported: Mapping[str, Any]) -> None:
    """Raise ValueError for those of the Trainer's card arguments that ours would not use."""
    given = sorted(name for name, value in unsupported.items() if value is not None)
    if given:
        raise ValueError(
            f"a card's arguments must not hold {given}. Put data into trainer.measured['data']."
        )
