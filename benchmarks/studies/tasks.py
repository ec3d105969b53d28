"""Tasks with gold labels: a folder of <split>.parquet each, as on the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, DataCollatorWithPadding

from hf_distill.objectives import CrossEntropy, KLDivergence, LogitMSE, SquaredError
from hf_distill.objectives.base import Objective
from hf_distill.teacher.embedded import embedded_teacher


@dataclass(frozen=True)
class Task:
    """One data set: a folder of <split>.parquet, and how an answer is scored."""

    texts: tuple[str, ...]
    label: str
    scored: str
    """The split that is measured on."""
    metric: str = "accuracy"
    max_length: int = 128

    @property
    def regression(self) -> bool:
        """Whether the answer is a number."""
        return self.metric == "spearmanr"

    @property
    def gold(self) -> Objective:
        """The term on gold labels."""
        return SquaredError() if self.regression else CrossEntropy()

    @property
    def logits(self) -> Objective:
        """The term on the teacher's logits."""
        return LogitMSE() if self.regression else KLDivergence(temperature=2.0)


_PAIR = ("sentence1", "sentence2")
TASKS: Mapping[str, Task] = {
    "trec": Task(("text",), "coarse_label", scored="test", max_length=64),
    "sst2": Task(("sentence",), "label", scored="validation", max_length=64),
    "stsb": Task(_PAIR, "label", scored="validation", metric="spearmanr"),
    "rte": Task(_PAIR, "label", scored="validation"),
    "mrpc": Task(_PAIR, "label", scored="test"),
}


class Examples:
    """A task's examples as a model reads them."""

    def __init__(self, data: Path, name: str, limit: int | None = None) -> None:
        """Read and tokenise both splits; the scored one in order of length.

        Args:
            data: The folder of the tasks' folders.
            name: Of `TASKS`.
            limit: Examples of every split at most.
        """
        self.task, self._limit, self._folder = TASKS[name], limit, data / name
        self.tokenizer = AutoTokenizer.from_pretrained(embedded_teacher())
        self.collator = DataCollatorWithPadding(self.tokenizer)
        self.names: list[str] | None = None
        self.train, scored = self._read("train"), self._read(self.task.scored)
        lengths = [len(ids) for ids in scored["input_ids"]]
        self.scored = scored.select(sorted(range(len(scored)), key=lengths.__getitem__))

    def _read(self, split: str) -> Dataset:
        table = Dataset.from_parquet(str(self._folder / f"{split}.parquet"))
        table = table.shuffle(seed=0).select(range(min(len(table), self._limit or 10**9)))
        texts = [list(table[column]) for column in self.task.texts]
        encoded = self.tokenizer(*texts, truncation=True, max_length=self.task.max_length)
        if not self.task.regression:
            self.names = table.features[self.task.label].names
        return Dataset.from_dict({**encoded, "labels": list(table[self.task.label])})
