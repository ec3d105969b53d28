"""DistillationTrainer: the Hugging Face Trainer with a teacher."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from hf_distill.objectives.mixture import Learnt
from hf_distill.objectives.reduce import masked_mean
from hf_distill.signals.head import Head, Targets, head_of
from hf_distill.signals.signals import Signals, Unit
from hf_distill.teacher.weights import Dtype
from hf_distill.training import heads
from hf_distill.training.caching import Caching
from hf_distill.training.defaults import (
    LayerMapping,
    Objectives,
    build_mixture,
    default_objectives,
    task_objective,
)
from hf_distill.training.described import Described
from hf_distill.training.held import AUTO, teaching
from hf_distill.training.learner import Learner
from hf_distill.training.pairing import shape_of
from hf_distill.training.placement import place
from hf_distill.training.requests import (
    check_devices,
    check_factors,
    check_logging,
    check_request,
    has_labels,
    settle,
)
from hf_distill.training.resuming import ExactlyResumed
from hf_distill.training.terms import TermLog, check_finite, gradient_norms


class DistillationTrainer(ExactlyResumed, Described, Caching):
    """A Trainer whose student also learns from a teacher.

    Everything of the Trainer stays: arguments, callbacks, datasets, `accelerate launch`,
    checkpoints, push_to_hub. What is trained is the student; what is saved is an ordinary
    checkpoint. Losses are divided by the number of sequences, tokens or labels of the whole
    optimizer step, so that accumulation and several processes give the gradient of one big batch.
    Evaluation gives the task loss and the student's plain outputs, and does not run the teacher.

    Example:
        >>> trainer = DistillationTrainer(student, args, teacher=teacher, train_dataset=dataset)
        >>> trainer.train()
    """

    # The losses are normalised here; the Trainer must not divide them by accumulation steps
    # (transformers >= 5.19).
    loss_is_scaled_for_ga = True
    _signature_columns: list[str] | None

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *positional: Any,
        teacher: nn.Module | str | os.PathLike[str] | Any = None,
        objectives: Objectives | None = None,
        layer_mapping: LayerMapping | None = None,
        log_gradient_norms: bool = False,
        teacher_dtype: Dtype | None = None,
        teacher_cache: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check that everything fits, then build what the Trainer builds.

        Args:
            model: The student. It is given the learnt projections as a submodule.
            args: Plain `TrainingArguments`.
            *positional: The Trainer's other arguments, in its order.
            teacher: A transformers or PEFT model, or a path or Hub id of one with the student's
                kind of head; an `Ensemble` of several; or an `Adapter` of a PEFT student. It is
                frozen.
            objectives: Name -> (weight, objective); without, a mixture that suits the head.
            layer_mapping: A name of `hf_distill.mapping.MAPPINGS`, such as "uniform", "last-4",
                "emd-50" or "skip:no-embeddings", or (student layer, teacher layer) pairs: for all
                terms or by the term's name; without, each objective's own default.
            log_gradient_norms: Whether each log says how strongly each weighted term pulls at the
                student, `gradient_norm_<name>`: of the first micro-batch of the step that is
                logged, one more backward pass for each term.
            teacher_dtype: "float32", "bfloat16" or "float16": the teacher's weights are cast (in a
                copy, of a model that is given), and it is run in exactly that; "auto" is what the
                device computes fastest in. Without, it is run as it is, in autocast as the student.
            teacher_cache: The folder of a cache, of `write_teacher_cache` or `hf-distill cache`:
                the teacher is neither loaded nor run, nor need it be named. "auto": its signals are
                written before the first step, as far as no earlier run did, and read then.
            **kwargs: The Trainer's other arguments.

        Raises:
            ValueError: Something cannot work: said before the first step, with a remedy.
        """
        args = TrainingArguments("trainer_output") if args is None else args
        given = (
            inspect.signature(Trainer.__init__)
            .bind_partial(self, model, args, *positional, **kwargs)
            .arguments
        )
        named = teacher if teacher_cache in (None, AUTO) else teacher_cache
        check_request(model, named, given, own_objectives=objectives is not None)
        check_devices(args)
        check_logging(args, log_gradient_norms)
        self._log_gradient_norms = log_gradient_norms
        self.head: Head = head_of(model)
        self._teaching = teaching(teacher, model, self.head, teacher_dtype, teacher_cache)
        if objectives is None:
            objectives = self._usual_objectives(model, args, given)
        self._teaching.check_objectives(objectives)
        shapes = shape_of(model), self._teaching.shape
        self.mixture = build_mixture(objectives, layer_mapping, *shapes)
        self._teaching.check(self.mixture, given.get("processing_class"))
        self._task_objective = task_objective(self.head.problem, args.label_smoothing_factor)
        student_demand, teacher_demand = self.mixture.demands()
        self._heads = heads.heads_for(self.mixture, *shapes, args.seed)
        self.student = Learner(model, student_demand, self.head, self._heads)
        settle(args)
        super().__init__(model, args, *positional, **kwargs)
        if Version(transformers.__version__) < Version("5.19"):
            # What `loss_is_scaled_for_ga` says later on; never called: compute_loss is our own.
            self.model_accepts_loss_kwargs = False
            self.compute_loss_func = lambda *_: None
        self.teacher_facts = self._teaching.facts(self.accelerator.device)
        self.measured: dict[str, Any] = {}
        check_factors(model, sharded=self._sharded)
        placed = partial(place, self.accelerator)
        self.teacher = self._teaching.begin(
            teacher_demand, placed, self.accelerator.device, sharded=self._sharded
        )
        self._keeps = teacher_cache == AUTO
        self._counts: dict[Unit, Tensor] | None = None
        self._term_log = TermLog()
        self._step_begins = False

    @property
    def _sharded(self) -> bool:
        """Whether the student's weights are spread over processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _usual_objectives(
        self, model: nn.Module, args: TrainingArguments, given: Mapping[str, Any]
    ) -> Objectives:
        dataset, collator = given.get("train_dataset"), given.get("data_collator")
        usual = default_objectives(
            self.head,
            labelled=has_labels(dataset, self.head, collator),
            teaches_logits=self._teaching.teaches_logits(),
            same_width=shape_of(model).width == self._teaching.shape.width,
            label_smoothing=args.label_smoothing_factor,
        )
        return self._teaching.usual(usual)

    # What reaches the models

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            known = [*(self._signature_columns or ()), *self.teacher.columns]
            self._signature_columns = list(dict.fromkeys(known))

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self.head.complete(super()._prepare_inputs(inputs))

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> Any:
        """The micro-batches of one optimizer step; their units are counted over all processes."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_begins = True
        targets = [self.head.targets(batch) for batch in batches]
        if targets:
            counted = [each.counts() for each in targets]
            units = list(counted[0])
            sums = [torch.stack([one[unit] for one in counted]).sum() for unit in units]
            totals = self.accelerator.reduce(torch.stack(sums).to(device), "sum")
            self._counts = dict(zip(units, totals, strict=True))
            self._term_log.count_step(each.mask for each in targets)
        return batches, items

    # The loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mixture in training, the task loss in evaluation; the units are our own counts."""
        targets = self.head.targets(inputs)
        if not model.training:
            outputs = model(**self.student.inputs(inputs))
            loss = self._task_loss(outputs, targets)
            return (loss, outputs) if return_outputs else loss
        taught = self.teacher.show(inputs, targets)
        outputs, shown, learnt = self.student.show(model, inputs, targets, taught)
        progress = self.state.global_step / max(self.state.max_steps, 1)
        if self._step_begins:
            self._renew_plans(shown, taught, learnt, progress)
        plans = self._heads.transports.plans()
        loss, terms = self.mixture(shown, taught, self._counts, learnt, progress, plans)
        check_finite(loss, terms)
        self._term_log.add(terms)
        if self._step_begins and self._logs_norms():
            weighted = self.mixture.weighted(terms, progress)
            self._term_log.add_norms(gradient_norms(weighted, self.student.parameters()))
        self._step_begins = False
        # DDP averages gradients over processes; the divisor already counted all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _renew_plans(
        self, shown: Signals, taught: Signals, learnt: Learnt, progress: float
    ) -> None:
        facts = self._heads.transports.renew(
            self.state.global_step,
            lambda name: self.mixture.costs(name, shown, taught, learnt, progress),
            lambda sums: self.accelerator.reduce(sums, "sum"),
        )
        self._term_log.add_facts(facts)

    def _logs_norms(self) -> bool:
        done = self.state.global_step + 1
        return self._log_gradient_norms and done % self.state.logging_steps == 0

    def _task_loss(self, outputs: Mapping[str, Any], targets: Targets) -> Tensor:
        """The mean loss against gold labels."""
        shown = Signals(logits=self.head.logits(outputs, targets), **targets.said())
        values = self._task_objective.forward(shown, shown, ())
        return masked_mean(values, shown.counted(self._task_objective.unit))

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The Trainer's, without the columns that only the teacher reads."""
        kept = {*self.student.columns, *self.label_names}
        return super().prediction_step(
            model, {k: v for k, v in inputs.items() if k in kept}, *args, **kwargs
        )

    # Logs, checkpoints

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, without what an earlier call summed and did not log."""
        self._term_log.forget()
        return super().train(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the unweighted mean of each term, `loss_<name>`, to the training logs."""
        if "loss" in logs:
            logs = {**logs, **self._term_log.take(self.accelerator)}
        super().log(logs, *args, **kwargs)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        with self._teaching.saved_without():
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            heads.save(self._heads, output_dir or self.args.output_dir, state_dict)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        heads.load(self._heads, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        heads.load(self._heads, self.state.best_model_checkpoint)
