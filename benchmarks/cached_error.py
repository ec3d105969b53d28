"""What half precision of the teacher and its cache lose: errors of each objective's gradient.

    python benchmarks/cached_error.py --data FOLDER

FOLDER holds trec/train.parquet and trec/test.parquet, as on the Hub. The teacher is
all-MiniLM-L6-v2, fine-tuned on the questions; the student is three of its layers. The teacher in
float32, in half precision and out of caches is shown the same batches, and the loss of each is
computed with one student.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from studies.tasks import Examples
from studies.teachers import machine_and_versions, obtain_teacher
from studies.trainers import arguments
from torch import Tensor
from transformers import AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from hf_distill import DistillationTrainer, extract, objectives
from hf_distill.cache.cache import Cache
from hf_distill.cache.encoding import Storage
from hf_distill.cache.folder import Folder
from hf_distill.objectives.base import Objective
from hf_distill.teacher.cached import CachedTeacher
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.weights import spelt

DTYPES = torch.bfloat16, torch.float16
"""That the teacher is run in."""
STORAGES: tuple[Storage, ...] = ("float32", "bfloat16", "int8")
"""Of a cache, which a teacher in float32 fills."""
PROBLEMS = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
Measured = tuple[float, Tensor]
"""Loss and gradient of one batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of trec/")
    parser.add_argument("--examples", type=int, default=128, help="that are measured (128)")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150, help="of the teacher's fine-tuning (150)")
    parser.add_argument("--only", nargs="+", choices=objectives.__all__)
    options = parser.parse_args()
    set_verbosity_error()
    disable_progress_bar()
    ways = [f"run in {spelt(each)}" for each in DTYPES] + [f"kept in {each}" for each in STORAGES]
    header = [f"{way}, {what}" for way in ways for what in ("loss", "gradient")]
    with tempfile.TemporaryDirectory() as folder:
        examples = Examples(options.data, "trec", limit=max(options.examples, 4800))
        teacher, reached = obtain_teacher(Path(folder), "trec", examples, "fp32", options.steps)
        teacher.save_pretrained(f"{folder}/teacher")
        print(f"| objective | {' | '.join(header)} |")
        print("|---|" + "---:|" * len(header))
        for name in options.only or objectives.__all__:
            objective = getattr(objectives, name)()
            if objective.reads_teacher:
                errors = measured(objective, examples, options, folder)
                print(f"| {name} | {' | '.join(f'{each:.1e}' for each in errors)} |", flush=True)
    size = f"{options.examples} questions in batches of {options.batch}"
    print(f"\n{size}; the teacher reaches {reached:.1f}. Machine: {machine_and_versions()}.")


def measured(
    objective: Objective, examples: Examples, options: argparse.Namespace, folder: str
) -> list[float]:
    """Of each way to less precision, the relative error of the losses and of the gradients."""
    problem = next(each for each in PROBLEMS if each in objective.problems)
    teacher = _model(f"{folder}/teacher", PROBLEMS[problem])
    data = examples.train.select(range(options.examples))
    if problem != "single_label":
        # Gold labels would have to be of the problem; no such objective here reads them.
        data = data.remove_columns("labels")
    trainer = DistillationTrainer(
        extract(teacher, "L3-H384").model,
        arguments(f"{folder}/out", options.batch, 1, dataloader_pin_memory=False),
        teacher=teacher,
        objectives={"term": (1.0, objective)},
        train_dataset=data,
        data_collator=examples.collator,
    )
    live = list(of_batches(trainer, trainer.teacher))
    demand = trainer.mixture.demands()[1]
    found: list[float] = []
    for dtype in DTYPES:
        narrow = LiveTeacher(teacher, demand, trainer.head, dtype=dtype)
        found += _errors(live, list(of_batches(trainer, narrow)))
    for storage in STORAGES:
        place = f"{folder}/{type(objective).__name__}-{storage}"
        trainer.write_teacher_cache(place, storage=storage, say=lambda line: None)
        cached = of_batches(trainer, CachedTeacher(Cache(Folder(place)), demand, trainer.head))
        found += _errors(live, list(cached))
    return found


def of_batches(trainer: DistillationTrainer, teacher: Any) -> Iterator[Measured]:
    """Loss and gradient of each batch, of a student that does not move."""
    model = trainer.model.eval()
    for batch in trainer.get_eval_dataloader(trainer.train_dataset):
        inputs = trainer.head.complete(dict(batch))
        targets = trainer.head.targets(inputs)
        taught = teacher.show(inputs, targets)
        _, shown, learnt = trainer.student.show(model, inputs, targets, taught)
        loss, _ = trainer.mixture(shown, taught, learnt=learnt)
        model.zero_grad()
        loss.backward()
        own = [
            each.grad.flatten() for each in trainer.student.parameters() if each.grad is not None
        ]
        yield loss.item(), torch.cat(own)


def _model(folder: str, problem: str) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder, problem_type=problem)


def _errors(live: list[Measured], cached: list[Measured]) -> tuple[float, float]:
    """Absolute differences, over all batches, divided by what is right."""
    pairs = list(zip(cached, live, strict=True))
    loss = sum(abs(mine[0] - theirs[0]) for mine, theirs in pairs)
    gradient = sum(float((mine[1] - theirs[1]).norm()) for mine, theirs in pairs)
    whole = sum(float(theirs[1].norm()) for _, theirs in pairs)
    return loss / sum(abs(theirs[0]) for _, theirs in pairs), gradient / whole


if __name__ == "__main__":
    main()
