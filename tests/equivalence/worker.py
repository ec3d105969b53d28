"""What two processes find, for the tests: `torchrun -m tests.equivalence.worker <folder>`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from safetensors.torch import save_file

from hf_distill.objectives import HiddenMSE, KLDivergence
from tests.equivalence.cases import CASES, EXAMPLES, comparable, first_step
from tests.training.runs import TOKEN, logged, trainer

CUTS = {"2 processes": 1, "2 processes, accumulated": 2}
"""Name -> accumulation steps; together always one batch of all examples."""

RESUMES = Version(transformers.__version__) >= Version("5.17")
"""Older ones ask torch for the optimizer's state on a device "cpu:0", which there is not."""


def learning(folder: Path, **changes: Any) -> Any:
    """A run that moves: projections, token classification, clipping, two epochs."""
    return trainer(
        folder,
        TOKEN,
        count=EXAMPLES,
        objectives={"kl": (1.0, KLDivergence()), "hidden": (1.0, HiddenMSE())},
        learning_rate=1e-2,
        max_grad_norm=0.1,
        max_steps=4,
        **changes,
    )


def _counted(mask: torch.Tensor) -> tuple[int, int]:
    """The real tokens of a batch, and all of them."""
    return int(mask.sum()), mask.numel()


def main(folder: Path) -> None:
    """Rank 0 writes gradients and losses of every case; every rank its learnt weights."""
    torch.set_num_threads(1)
    gradients, losses = {}, {}
    for cut, accumulation in CUTS.items():
        for name, case in CASES.items():
            if not comparable(case, accumulation):
                continue
            size = EXAMPLES // 2 // accumulation
            step = first_step(case, folder / "run", size, accumulation)
            key = f"{cut}: {name}"
            gradients.update({f"{key}/{n}": g.contiguous() for n, g in step.gradients.items()})
            losses[key] = step.losses
    run = learning(
        folder / "learnt", per_device_train_batch_size=2, save_strategy="steps", save_steps=3
    )
    given: list[tuple[int, int]] = []
    run.model.register_forward_pre_hook(
        lambda _, args, inputs: given.append(_counted(inputs["attention_mask"])), with_kwargs=True
    )
    run.train()
    rank = run.accelerator.process_index
    (folder / f"given-{rank}.json").write_text(json.dumps(given))
    save_file(dict(run.model.state_dict()), folder / f"weights-{rank}.safetensors")
    names = ("loss", "grad_norm", "padding_fraction")
    losses["learning"] = {name: logged(run, name) for name in names}
    losses["processes"] = run.accelerator.num_processes
    if RESUMES:
        checkpoint = str(folder / "learnt" / "checkpoint-3")
        run = learning(folder / "learnt", per_device_train_batch_size=2)
        run.train(resume_from_checkpoint=checkpoint)
        save_file(dict(run.model.state_dict()), folder / f"resumed-{rank}.safetensors")
    if rank == 0:
        save_file(gradients, folder / "gradients.safetensors")
        (folder / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
