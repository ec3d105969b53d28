"""The work that every tool does: the texts, the models, and the loss that is expected of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

CLASSES, TEMPERATURE, RATE, CLIP = 2, 2.0, 1e-4, 1.0
PAIRS = tuple((layer, 2 * layer) for layer in range(7))
"""Student layer, teacher layer; 0 is the embeddings."""

Example = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """Texts, and how many of which length make a batch."""

    title: str
    folder: str
    column: str
    batch: int
    packed: int | None = None
    """Texts are joined and cut into so many tokens; without, each is padded to the longest."""


WORKS: Mapping[str, Work] = {
    "full": Work("32 x 128 tokens of SST-2", "sst2", "sentence", 32, packed=128),
    "sst2": Work("32 sentences of SST-2, padded to the longest", "sst2", "sentence", 32),
    "squad": Work("8 x 384 tokens of SQuAD", "squad", "context", 8, packed=384),
}


@dataclass(frozen=True)
class Task:
    """What a child process is told: the tool, and what it is to work on."""

    tool: str
    examples: str
    """A file of examples, tokenised once for all tools."""
    batch: int
    steps: int
    """Steps of the schedule, one more than are measured: the last is none like the others."""
    threads: int
    device: str = "cpu"
    peers: str | None = None
    """The folder in which the other libraries are installed."""
    cache: str | None = None
    """The folder of what the teacher shows."""
    attention: str = "sdpa"
    counts: bool = False
    """Whether operations and bytes of the first step are counted."""
    student: Sequence[int] = (256, 6, 8, 1024)
    """Width, layers, heads, inner width: 13M."""
    teacher: Sequence[int] = (768, 12, 12, 3072)
    """BERT-base's."""

    @staticmethod
    def of(text: str) -> Task:
        """As `as_text` wrote it."""
        return Task(**json.loads(text))

    def as_text(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    def read(self) -> list[Example]:
        """The examples."""
        read: list[Example] = json.loads(Path(self.examples).read_text(encoding="utf-8"))
        return read

    def loader(self) -> DataLoader[Example]:
        """Their batches, in order."""
        return DataLoader(self.read(), self.batch, collate_fn=collate)

    def new_student(self) -> Any:
        """The student on the device, in train mode."""
        return self._built(self.student, seed=0).train()

    def new_teacher(self) -> Any:
        """The teacher on the device, in eval mode and frozen."""
        return self._built(self.teacher, seed=1).eval().requires_grad_(False)

    def new_projections(self) -> nn.ModuleList:
        """From the student's width to the teacher's, one for each pair of layers."""
        widths = self.student[0], self.teacher[0]
        projections = nn.ModuleList(nn.Linear(*widths) for _ in PAIRS)
        same_start(projections)
        return projections.to(self.device)

    def _built(self, shape: Sequence[int], seed: int) -> Any:
        """With the same random weights for every tool."""
        from transformers import BertConfig, BertForSequenceClassification

        width, layers, heads, inner = shape
        config = BertConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            num_labels=CLASSES,
            # So that losses can be compared.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation=self.attention,
        )
        torch.manual_seed(seed)
        return BertForSequenceClassification(config).to(self.device)


def examples_of(data: Path, work: Work, count: int) -> list[Example]:
    """So many examples of a work's texts: token ids and a label.

    Args:
        data: The folder of the data sets' folders, each with a train.parquet.
        work: Of `WORKS`.
        count: How many.

    Raises:
        ValueError: There is too little text.
    """
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoTokenizer

    from hf_distill.teacher.embedded import embedded_teacher

    disable_progress_bars()
    table = Dataset.from_parquet(str(data / work.folder / "train.parquet")).shuffle(seed=0)
    # Several questions are asked about one text.
    texts = list(dict.fromkeys(table[work.column]))
    tokenizer = AutoTokenizer.from_pretrained(embedded_teacher())
    if work.packed is None:
        rows = tokenizer(texts[:count])["input_ids"]
    else:
        ids = tokenizer.convert_tokens_to_ids
        ends = ids(tokenizer.cls_token), ids(tokenizer.sep_token)
        read = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
        rows = packed(read, work.packed, count, ends)
    if len(rows) < count:
        raise ValueError(f"{work.folder} must give {count} examples, got {len(rows)}.")
    # A label is read by plain fine-tuning alone, and its time does not depend on it.
    return [{"input_ids": row, "labels": at % CLASSES} for at, row in enumerate(rows)]


def packed(
    texts: Iterable[Sequence[int]], length: int, count: int, ends: tuple[int, int]
) -> list[list[int]]:
    """Texts one after the other, cut into at most `count` rows of `length` tokens.

    Args:
        texts: Token ids.
        length: Of a row, with its ends.
        count: No more texts are read than this takes.
        ends: The first and the last token of each row.
    """
    rows: list[list[int]] = []
    left: list[int] = []
    for text in texts:
        left += text
        while len(left) >= length - 2 and len(rows) < count:
            rows.append([ends[0], *left[: length - 2], ends[1]])
            left = left[length - 2 :]
        if len(rows) == count:
            break
    return rows


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """A batch, padded to its longest example."""
    ids = [torch.tensor(example["input_ids"]) for example in examples]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": torch.tensor([example["labels"] for example in examples]),
    }


def same_start(projections: Iterable[nn.Module]) -> None:
    """Give the projections the weights that they have in every tool."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for projection in projections:
            for parameter in projection.parameters():
                drawn = torch.empty(parameter.shape).uniform_(-0.06, 0.06, generator=generator)
                parameter.copy_(drawn)


def kl_of_logits(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over sentences of KL(teacher || student) at the temperature, times its square."""
    soft = [(side.float() / TEMPERATURE).log_softmax(-1) for side in (student, teacher)]
    return TEMPERATURE**2 * nn.functional.kl_div(*soft, reduction="batchmean", log_target=True)


def mse_of_states(
    student: Sequence[Tensor], teacher: Sequence[Tensor], projections: Any, mask: Tensor
) -> Tensor:
    """Mean squared difference of the hidden states of `PAIRS`, over the tokens of the mask."""
    real, total = mask.sum(), torch.zeros((), device=mask.device)
    for (mine, theirs), projection in zip(PAIRS, projections, strict=True):
        sides = projection(student[mine]).float(), teacher[theirs].float()
        gaps = nn.functional.mse_loss(*sides, reduction="none").mean(-1)
        total = total + (gaps * mask).sum() / real
    return total / len(PAIRS)


@torch.no_grad()
def parts_of_loss(
    student: Any, teacher: Any, projections: Any, batch: Mapping[str, Tensor]
) -> dict[str, float]:
    """What the losses of all tools are made of, at a batch; by name."""
    inputs = {name: each for name, each in batch.items() if name != "labels"}
    mask = inputs["attention_mask"]
    shown, taught = (model(**inputs, output_hidden_states=True) for model in (student, teacher))
    states = shown.hidden_states, taught.hidden_states, projections
    soft = (taught.logits / TEMPERATURE).log_softmax(-1)
    parts = {
        "kl": kl_of_logits(shown.logits, taught.logits),
        "entropy": -(TEMPERATURE**2) * (soft.exp() * soft).sum(-1).mean(),
        "hidden": mse_of_states(*states, mask),
        "padded": mse_of_states(*states, torch.ones_like(mask)),
        "gold": nn.functional.cross_entropy(shown.logits, batch["labels"]),
    }
    return {name: float(part) for name, part in parts.items()}


def on(device: str, batches: Iterable[Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The batches on a device."""
    for batch in batches:
        yield {name: each.to(device) for name, each in batch.items()}
