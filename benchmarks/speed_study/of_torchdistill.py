"""The library torchdistill, as its example of text classification says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import get_linear_schedule_with_warmup

from speed_study.protocol import Gate, Gated
from speed_study.work import CLIP, PAIRS, RATE, TEMPERATURE, Task, collate

_STUDENT = "+student_model."
"""Of the paths of what a wrapper holds."""

_DECLARED: list[torch.library.Library] = []
"""What is declared is gone with its library."""


def distil(task: Task, gate: Gate) -> None:
    """Its distillation box; the projections live in a wrapper around the student."""
    _declare_vision()
    from torchdistill.core.distillation import get_distillation_box

    _register(task)
    student, teacher = task.new_student(), task.new_teacher()
    data = {"train": task.read()}
    device = torch.device(task.device)
    box = get_distillation_box(teacher, student, data, _config(task), device, None, False, 1.0)
    box.pre_epoch_process(epoch=0)
    for batch in Gated(gate, box.train_data_loader):
        loss = box.forward_process(batch, targets=None, supp_dict=None)
        box.post_forward_process(loss)
        gate.note(loss)


def _declare_vision() -> None:
    """Import torchvision, which is not used: its compiled part may be of another torch."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)


def _register(task: Task) -> None:
    """What a configuration cannot say: batches on the device, the schedule, the projections."""
    from torchdistill.datasets.registry import register_collate_func
    from torchdistill.models.registry import register_auxiliary_model_wrapper
    from torchdistill.models.wrapper import AuxiliaryModelWrapper
    from torchdistill.optim.registry import register_scheduler

    @register_collate_func(key="on_device")
    def on_device(examples: Any) -> dict[str, Tensor]:
        return {name: each.to(task.device) for name, each in collate(examples).items()}

    register_scheduler(get_linear_schedule_with_warmup, key="linear")

    @register_auxiliary_model_wrapper(key="Projected")
    class Projected(AuxiliaryModelWrapper):  # type: ignore[misc]
        """The student, and projections of what its layers gave."""

        def __init__(self, student_model: nn.Module, paths: list[str], **_: Any) -> None:
            super().__init__()
            self.student_model, self.paths = student_model, paths
            self.projections = task.new_projections()

        def forward(self, **inputs: Any) -> Any:
            return self.student_model(**inputs)

        def secondary_forward(self, io_dict: dict[str, dict[str, Tensor]]) -> None:
            for path, projection in zip(self.paths, self.projections, strict=True):
                projection(io_dict[path]["output"])


def _config(task: Task) -> dict[str, Any]:
    mine = [_STUDENT + _layer(pair[0]) for pair in PAIRS]
    projected = [f"+projections.{number}" for number in range(len(PAIRS))]
    theirs = [_layer(pair[1]) for pair in PAIRS]
    head = {"student": f"{_STUDENT}classifier", "teacher": "classifier"}
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": SequentialSampler, "kwargs": None},
        "collate_fn": "on_device",
        "requires_supp": False,
        "kwargs": {"batch_size": task.batch},
    }
    schedule = {"num_warmup_steps": 0, "num_training_steps": task.steps}
    return {
        "num_epochs": 1,
        "train_data_loader": loader,
        "teacher": _side([*theirs, head["teacher"]], requires_grad=False),
        "student": {
            **_side([*mine, *projected, head["student"]], requires_grad=True),
            "auxiliary_model_wrapper": {"key": "Projected", "kwargs": {"paths": mine}},
        },
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": RATE, "weight_decay": 0.0, "fused": True},
            "max_grad_norm": CLIP,
        },
        "scheduler": {"key": "linear", "kwargs": schedule, "scheduling_step": 1},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": _terms(head, projected, theirs)},
        },
    }


def _side(paths: list[str], *, requires_grad: bool) -> dict[str, Any]:
    return {
        "forward_proc": "forward_batch_only_as_kwargs",
        "requires_grad": requires_grad,
        "forward_hook": {"input": [], "output": paths},
    }


def _terms(head: dict[str, str], projected: list[str], theirs: list[str]) -> dict[str, Any]:
    paths = {f"{side}_module_path": path for side, path in head.items()}
    ends = {f"{side}_module_io": "output" for side in head}
    kd = {"temperature": TEMPERATURE, "alpha": 0, **paths, **ends}
    # Without labels it leaves the square of the temperature out.
    terms: dict[str, Any] = {
        "kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": TEMPERATURE**2}
    }
    for number, (path, layer) in enumerate(zip(projected, theirs, strict=True)):
        wrapped = {
            "input": {"is_from_teacher": False, "module_path": path, "io": "output"},
            "target": {"is_from_teacher": True, "module_path": layer, "io": "output"},
        }
        terms[f"hidden{number}"] = {
            "criterion": {"key": "MSELoss", "kwargs": {}},
            "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": wrapped},
            "weight": 1 / len(PAIRS),
        }
    return terms


def _layer(number: int) -> str:
    """The module whose output is a hidden state."""
    return f"bert.encoder.layer.{number - 1}" if number else "bert.embeddings"
