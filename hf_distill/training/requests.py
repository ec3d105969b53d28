"""What a user may ask of the trainer, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, TrainingArguments

from hf_distill.signals.head import Head
from hf_distill.student.factorised import factorised
from hf_distill.teacher.adapters import check_adapted, is_adapted


class HubToken(str):
    """A token that is pickled as None: checkpoints, which are uploaded, hold the arguments."""

    __slots__ = ()

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Pickle as None."""
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> HubToken:
        """A copy in memory keeps the token."""
        return self


def check_request(
    model: Any, teacher: Any, given: Mapping[str, Any], *, own_objectives: bool
) -> None:
    """Refuse what the trainer cannot do.

    Args:
        model: The student.
        teacher: The teacher, or its path.
        given: The Trainer's arguments, by name.
        own_objectives: Whether the user named objectives.

    Raises:
        ValueError: With a remedy.
    """
    arguments: TrainingArguments = given["args"]
    _check_student(model, arguments)
    if teacher is None:
        raise ValueError(
            "teacher must be a model or a path, got None. Use transformers.Trainer to train alone."
        )
    for name in ("model_init", "compute_loss_func"):
        if given.get(name) is not None:
            raise ValueError(
                f"{name} must be left out, got {given[name]!r}. The loss is the mixture of "
                "objectives."
            )
    if own_objectives and arguments.label_smoothing_factor:
        raise ValueError(
            "label_smoothing_factor must be 0 beside objectives, got "
            f"{arguments.label_smoothing_factor}. Set label_smoothing of CrossEntropy instead."
        )
    _check_nothing_generates(arguments)
    if _is_reentrant(model, arguments):
        raise ValueError(
            "gradient checkpointing must not be reentrant, got use_reentrant=True: recorded "
            "layers would have no gradient. Use use_reentrant=False."
        )


def _check_student(model: Any, arguments: TrainingArguments) -> None:
    if not is_adapted(model):
        if isinstance(model, PreTrainedModel) and not getattr(
            model, "_hf_peft_config_loaded", False
        ):
            return
        raise ValueError(
            "model must be a transformers model without adapters of its own, or a peft.PeftModel "
            f"(the student), got {type(model).__name__}. Add adapters with peft.get_peft_model, or "
            "merge them with merge_and_unload(); model_init is not supported."
        )
    check_adapted(model)
    # The Trainer looks for it where PEFT saves the adapter of that name.
    if arguments.load_best_model_at_end and model.active_adapters != ["default"]:
        raise ValueError(
            "load_best_model_at_end must be left out for a student whose adapter is not named "
            f"'default', got {model.active_adapters}: the Trainer would not find it. Rename the "
            "adapter, or load the best checkpoint yourself."
        )


def _check_nothing_generates(arguments: TrainingArguments) -> None:
    if arguments.use_cache:
        raise ValueError(
            "use_cache must be False, got True. Neither student nor teacher generates in training."
        )
    if getattr(arguments, "predict_with_generate", False):
        raise ValueError(
            "predict_with_generate must be left out, got True. Generate after training: "
            "evaluate the student with transformers.Seq2SeqTrainer."
        )


def _is_reentrant(model: PreTrainedModel, arguments: TrainingArguments) -> bool:
    """Whether checkpointing is, or will be, reentrant: enabled on the model or by the arguments."""
    if arguments.gradient_checkpointing:
        return bool((arguments.gradient_checkpointing_kwargs or {}).get("use_reentrant"))
    enabled = (getattr(each, "_gradient_checkpointing_func", None) for each in model.modules())
    return any(getattr(each, "keywords", {}).get("use_reentrant") for each in enabled)


def check_devices(arguments: TrainingArguments) -> None:
    """Raise ValueError where the Trainer would use nn.DataParallel."""
    if arguments.n_gpu > 1:
        raise ValueError(
            f"one process must use one device, got {arguments.n_gpu} GPUs in one process "
            "(nn.DataParallel). Start with `accelerate launch`, or set CUDA_VISIBLE_DEVICES to "
            "one GPU."
        )


def check_factors(model: Any, *, sharded: bool) -> None:
    """Refuse factorised embeddings where they would not be folded into what is saved.

    Args:
        model: The student.
        sharded: Whether its weights are spread over processes.

    Raises:
        ValueError: With a remedy.
    """
    if factorised(model) is not None and (sharded or is_adapted(model)):
        raise ValueError(
            "a student with factorised embeddings must be trained whole, and be held whole by each "
            f"process, got {'FSDP or DeepSpeed' if sharded else 'adapters'}. Fold them first, "
            "fold_embeddings(model), or train with DDP and without adapters."
        )


def check_logging(arguments: TrainingArguments, gradient_norms: bool) -> None:
    """Raise ValueError where gradient norms are asked for and cannot be measured."""
    if not gradient_norms:
        return
    if arguments.logging_strategy != "steps":
        raise ValueError(
            "logging_strategy must be 'steps' with log_gradient_norms, got "
            f"{str(arguments.logging_strategy)!r}. Set logging_steps."
        )
    if arguments.deepspeed or arguments.fsdp:
        raise ValueError(
            "log_gradient_norms must be left out with DeepSpeed and FSDP, got True. They hold a "
            "part of each gradient only: measure on one process, or with DDP."
        )


def has_labels(dataset: Any, head: Head, collator: Any = None) -> bool:
    """Whether training batches carry gold labels; what cannot be looked into is taken to."""
    if hasattr(collator, "mlm"):
        # A collator for language modelling makes them out of the tokens, masked or not.
        return True
    names = {
        name
        for label in head.label_names
        for name in (label, label.removesuffix("s"), f"{label.removesuffix('s')}_ids")
    }
    columns = getattr(dataset, "column_names", None)
    if columns is None and hasattr(dataset, "__getitem__") and len(dataset):
        example = dataset[0]
        columns = list(example) if isinstance(example, Mapping) else None
    return columns is None or bool(names.intersection(columns))


def settle(arguments: TrainingArguments) -> None:
    """Settle what the Trainer would do otherwise, and keep the Hub token out of every file."""
    if arguments.gradient_checkpointing and arguments.ddp_find_unused_parameters is None:
        # The Trainer would say False; layers that no objective reads have no gradient.
        arguments.ddp_find_unused_parameters = True
    if arguments.hub_token is not None:
        arguments.hub_token = HubToken(arguments.hub_token)
