"""What two processes keep of a teacher: `torchrun -m tests.equivalence.caching <folder>`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.equivalence.cases import CASES, EXAMPLES, first_step
from tests.training.runs import TOKEN, examples, trainer

CASE = CASES["uneven tokens"]


def _trainer(folder: Path, **changes: Any) -> Any:
    given = {"objectives": CASE.objectives, "count": EXAMPLES, "per_device_train_batch_size": 1}
    return trainer(folder / "run", CASE.head, **{**given, **changes})


def main(folder: Path) -> None:
    """Rank 0 writes gradients; every rank what it wrote, and how it was refused."""
    torch.set_num_threads(1)
    run = _trainer(folder)
    rank = run.accelerator.process_index
    place = folder / "cache"
    told = asdict(run.write_teacher_cache(place, storage="float32"))
    (folder / f"written-{rank}.json").write_text(json.dumps(told))
    run.accelerator.wait_for_everyone()
    if rank == 0:
        both = [json.loads((folder / f"written-{each}.json").read_text()) for each in (0, 1)]
        (folder / "written.json").write_text(json.dumps(both))
    gradients = {}
    for name, cache in (("uneven tokens", place), ("auto", "auto")):
        step = first_step(CASE, folder / "run", EXAMPLES // 2, 1, teacher_cache=cache)
        gradients.update({f"{name}/{n}": g.contiguous() for n, g in step.gradients.items()})
    # One example more, which is looked for by one of the processes alone.
    other = examples(EXAMPLES + 1, TOKEN)[-1]
    data = [*examples(EXAMPLES, TOKEN), other]
    try:
        _trainer(folder, train_dataset=data, teacher=None, teacher_cache=place).train()
    except ValueError as error:
        (folder / f"missing-{rank}.txt").write_text(str(error))
    if rank == 0:
        save_file(gradients, folder / "gradients.safetensors")
    # A process that ends while threads of its group still run is aborted.
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
