"""Small trainings: ragged examples, tiny students and teachers, quiet arguments."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_distill import DistillationTrainer
from hf_distill.signals.head import LABELS
from tests import tiny

# Every training collects garbage several times; what is imported by now never becomes any.
gc.freeze()

Example = dict[str, Tensor]

SEQUENCE, TOKEN, SPAN = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
MASKED, HEADLESS = "ForMaskedLM", "Model"
CAUSAL, SEQ2SEQ = "ForCausalLM", "ForConditionalGeneration"
CLASSES = {"num_labels": 3}
HEADS: dict[str, dict[str, Any]] = {
    SEQUENCE: CLASSES,
    TOKEN: CLASSES,
    SPAN: {},
    MASKED: {},
    CAUSAL: {},
    SEQ2SEQ: {},
    HEADLESS: {},
}
"""Head -> changes of the config."""

FAMILY = {CAUSAL: "GPT2", SEQ2SEQ: "T5"}
"""Head -> the family that is taken where none is named, if it is not BERT."""

REFUSED = {
    **dict.fromkeys(((each, CAUSAL) for each in ("Roberta", "XLMRoberta", "Electra")), "decoders"),
    ("Bart", CAUSAL): "decoders",
    ("Bart", HEADLESS): "no decoder",
}
"""What transformers offers and we do not -> a word of the error."""

OFFERED = [
    (family, head)
    for family in tiny.FAMILIES
    for head in tiny.heads(family, HEADS)
    if (family, head) not in REFUSED
]
"""Every family with every head that there is for it."""

IGNORED = -100
START, END = 0, 2
PADDED = ("input_ids", "attention_mask", "token_type_ids", "labels", "decoder_input_ids")


def student(head: str = SEQUENCE, family: str | None = None, seed: int = 1, **changes: Any) -> Any:
    """2 layers of width 32, always the same weights; large, so that logits tell classes apart."""
    torch.manual_seed(seed)
    family = FAMILY.get(head, "Bert") if family is None else family
    return tiny.model(family, head, **{"initializer_range": 0.2, **HEADS[head], **changes})


def teacher(head: str = SEQUENCE, family: str | None = None, **changes: Any) -> Any:
    """4 layers of width 48, always the same weights."""
    shape = {"hidden_size": 48, "num_hidden_layers": 4}
    return student(head, family, seed=2, **{**shape, **changes})


def examples(count: int, head: str = SEQUENCE, *, labelled: bool = True) -> list[Example]:
    """Sequences of 3 to 10 tokens, their labels very unevenly spread."""
    make = torch.Generator().manual_seed(count)
    made = [_example(index, head, make) for index in range(count)]
    if labelled:
        return made
    for one in made:
        if head == SEQ2SEQ:
            one["decoder_input_ids"] = torch.cat([torch.tensor([START]), one["labels"]])
    return [{name: one[name] for name in one if name not in LABELS} for one in made]


def _example(index: int, head: str, make: torch.Generator) -> Example:
    length = int(torch.randint(3, 11, (), generator=make))
    one: Example = {"input_ids": torch.randint(3, tiny.VOCABULARY, (length,), generator=make)}
    one["input_ids"][-1] = END
    one["attention_mask"] = torch.ones_like(one["input_ids"])
    classes = torch.randint(0, 3, (length,), generator=make)
    if head == SEQUENCE:
        one["labels"] = classes[0]
    if head in (TOKEN, MASKED):
        one["labels"] = _from(index % length, classes)
    if head == CAUSAL:
        one["labels"] = _from(index % length, one["input_ids"])
    if head == SEQ2SEQ:
        one["labels"] = one["input_ids"][index % length :]
    if head == SPAN:
        one["start_positions"], one["end_positions"] = classes[0] % length, classes[1] % length
    return one


def _from(first: int, labels: Tensor) -> Tensor:
    return labels.masked_fill(torch.arange(len(labels)) < first, IGNORED)


def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Pad to the longest of the batch."""
    columns = {}
    for name in batch[0]:
        values = [torch.as_tensor(one[name]) for one in batch]
        if values[0].ndim and name in PADDED:
            fill = IGNORED if name == "labels" else 0
            columns[name] = torch.nn.utils.rnn.pad_sequence(values, True, fill)
        else:
            columns[name] = torch.stack(values)
    return columns


def arguments(folder: Path | str, **changes: Any) -> TrainingArguments:
    """Two steps of four examples on the CPU, every step logged, nothing saved or clipped."""
    quiet: dict[str, Any] = {
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 0,
    }
    return TrainingArguments(str(folder), **{**quiet, **changes})


def lora(model: Any, **config: Any) -> Any:
    """The model with LoRA adapters, whose weights are drawn so that they change something."""
    with warnings.catch_warnings():
        # peft asks by a name that transformers has since replaced.
        warnings.filterwarnings("ignore", ".is_gradient_checkpointing", FutureWarning)
        made = get_peft_model(model, LoraConfig(**{"init_lora_weights": False, **config}))
    return made.eval()


def checkpointing(**options: Any) -> dict[str, Any]:
    """Gradient checkpointing, under the name that the installed transformers has for it."""
    newer = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if newer else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": options or None}


def trainer(
    folder: Path | str, head: str = SEQUENCE, *, count: int = 8, labelled: bool = True, **given: Any
) -> DistillationTrainer:
    """A trainer over `count` examples; arguments of the Trainer and of `arguments` alike."""
    fields = TrainingArguments.__dataclass_fields__
    changes = {name: given.pop(name) for name in list(given) if name in fields}
    defaults = {
        "model": None if "model" in given else student(head),
        "teacher": None if "teacher" in given else teacher(head),
        "train_dataset": examples(count, head, labelled=labelled),
        "data_collator": collate,
    }
    made = {**defaults, **given}
    return DistillationTrainer(args=arguments(folder, **changes), **made)


def logged(run: Trainer, name: str = "loss") -> list[float]:
    """What was logged under a name, in order."""
    return [entry[name] for entry in run.state.log_history if name in entry]


def terms(run: Trainer) -> set[str]:
    """Names of the terms that were logged."""
    names = {name for entry in run.state.log_history for name in entry}
    return {name.removeprefix("loss_") for name in names if name.startswith("loss_")}


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimizer step."""

    def __init__(self) -> None:
        """Before the first step."""
        self.steps: list[dict[str, Tensor]] = []

    def on_pre_optimizer_step(self, *_: Any, model: Any, **kwargs: Any) -> None:
        """Called after clipping."""
        named = model.named_parameters()
        self.steps.append({n: p.grad.clone() for n, p in named if p.grad is not None})


def calls(model: nn.Module) -> list[dict[str, Any]]:
    """The inputs of every forward pass from now on."""
    found: list[dict[str, Any]] = []
    model.register_forward_pre_hook(lambda _, args, given: found.append(given), with_kwargs=True)
    return found


def relative_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Of all gradients together; a parameter without gradient on one side has gradient 0."""
    zero = torch.zeros(())
    names = {*found, *expected}
    difference = [(found.get(n, zero) - expected.get(n, zero)).flatten() for n in names]
    size = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    return float(torch.cat(difference).norm() / size)
