"""How good, how large and how fast the models of a run are, side by side."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from hf_distill.evaluation.fidelity import embed, fidelity
from hf_distill.evaluation.speed import machine, sentences_per_second, sizes
from hf_distill.recipe.features import Prepared
from hf_distill.signals.head import head_of
from hf_distill.training.card import versions

BATCHES = (1, 32)
"""Sentences at a time: one request, and many."""
_SENTENCES = {1: 16, 32: 64}
_SECONDS = 20.0

Scores = dict[str, dict[str, float]]


def scores(
    models: Mapping[str, nn.Module],
    data: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    max_length: int,
) -> Scores:
    """Label -> metric -> score on the evaluation split. Every process must call it.

    Args:
        models: By label; `teacher` and `student` are among them.
        data: The examples.
        tokenizer: The one of all models.
        arguments: Of the training: device and batch size are its.
        max_length: Tokens at which a text is cut.
    """
    if data.compute is None:
        return _fidelities(models, data, tokenizer, arguments, max_length)
    plain = TrainingArguments(
        output_dir=arguments.output_dir,
        per_device_eval_batch_size=arguments.per_device_eval_batch_size,
        use_cpu=arguments.use_cpu,
        dataloader_pin_memory=arguments.dataloader_pin_memory,
        seed=arguments.seed,
        disable_tqdm=True,
        label_names=list(head_of(models["student"]).label_names),
    )
    found = {}
    for label, model in models.items():
        answers = _Asking(model, plain, data_collator=data.collator).predict(data.evaluation)
        found[label] = data.compute(EvalPrediction(answers.predictions, answers.label_ids))
    return found


class _Asking(Trainer):
    """Predicts without a loss: several teachers together have none."""

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        """The outputs, and a loss that nobody reads."""
        asked = {name: value for name, value in inputs.items() if name not in self.label_names}
        loss = torch.zeros((), device=self.args.device)
        return (loss, model(**asked)) if return_outputs else loss


def model_sizes(models: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """Label -> parameters, megabytes, and of a single model layers, width, attention heads."""
    found = {}
    for label, model in models.items():
        found[label] = sizes(model)._asdict()
        if isinstance(model, PreTrainedModel):
            config: Any = model.config
            found[label] |= {
                "layers": config.num_hidden_layers,
                "width": config.hidden_size,
                "heads": config.num_attention_heads,
            }
    return found


def speeds(
    models: Mapping[str, nn.Module],
    data: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> dict[str, dict[str, dict[str, float]]]:
    """Label -> batch size -> sentences per second: median, lowest, highest, rounds."""
    found: dict[str, dict[str, dict[str, float]]] = {label: {} for label in models}
    named: dict[str, nn.Module] = dict(models)
    for size in BATCHES:
        texts = (data.texts * (1 + _SENTENCES[size] // len(data.texts)))[: _SENTENCES[size]]
        measured = sentences_per_second(
            named, tokenizer, texts, size, seconds=_SECONDS, max_length=max_length
        )
        for label, each in measured.items():
            found[label][str(size)] = each._asdict()
    return found


def circumstances(arguments: TrainingArguments) -> dict[str, Any]:
    """On what it was measured: machine, processes, versions."""
    return {
        "machine": machine(arguments.device),
        "processes": arguments.world_size,
        "versions": {"python": platform.python_version(), **versions()},
    }


def _fidelities(
    models: Mapping[str, PreTrainedModel],
    data: Prepared,
    tokenizer: PreTrainedTokenizerBase,
    arguments: TrainingArguments,
    max_length: int,
) -> Scores:
    batch = arguments.per_device_eval_batch_size
    embedded: dict[str, Tensor] = {}
    for label, model in models.items():
        nn.Module.to(model, arguments.device)
        embedded[label] = embed(
            model, tokenizer, data.texts, batch_size=batch, max_length=max_length
        )
    teacher = embedded["teacher"]
    return {label: {"fidelity": fidelity(each, teacher)} for label, each in embedded.items()}
