"""How much the teacher's loss hangs on each of its units: ETD-Impt (Chen et al. 2021).

The score of a unit u is its first-order Taylor sensitivity, E|sum over tokens of u * dL/du|: the
gradient of a mask that multiplies it, in absolute value, per batch (arXiv 2104.11928; scores of
heads and neurons as in DynaBERT, Hou et al. 2020, arXiv 2004.04037).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_distill.architectures.parts import CONTEXT, EMBEDDING, FFN, HIDDEN, KEY, QUERY, cross
from hf_distill.student.limits import check_model
from hf_distill.student.losses import BatchLoss, batch_loss
from hf_distill.student.masks import Gradients, Masks, Units, sites
from hf_distill.student.scores import Importance
from hf_distill.student.size import Size

Aggregation = Literal["layers", "shared"]
_AGGREGATIONS = ("layers", "shared")
_STACKS = ("layers", "decoder")


def importance(
    teacher: PreTrainedModel,
    batches: Iterable[Mapping[str, Any]],
    *,
    loss: str | BatchLoss = "auto",
    hidden: Aggregation = "layers",
    seed: int = 0,
) -> Importance:
    """Scores of heads, channels inside heads, neurons and hidden units, from a few thousand texts.

    One set of scores serves students of every size.

    Args:
        teacher: A transformers model. It is not changed.
        batches: As the model takes them, such as a DataLoader. Gradients are taken batch by batch;
            the score is the mean over sequences, so a smaller last batch counts for less. Take
            batches of one size otherwise: within a batch, effects may cancel.
        loss: `task`: the teacher's own, by the batches' labels. `masked-lm`: the same, with tokens
            masked by DataCollatorForLanguageModeling. `hidden`: how far the last hidden states
            move, without labels (`HiddenProbe`). `auto`: of these, the one for the teacher's head.
            Or a function of teacher and batch.
        hidden: How the effects of a hidden unit on the norms of all layers are put together:
            `layers`: the sum of their absolute values; `shared`: the absolute value of their sum,
            as of one mask shared by all, where layers may cancel.
        seed: Of the random directions of `hidden`, and of chance in the batches, such as shuffling
            and masking; the global generators are left as they were.

    Returns:
        Scores in float64 on the CPU.

    Raises:
        ValueError: The teacher's family cannot be cut, there are no batches, they do not fit the
            loss, a name is unknown, or a score is not finite.
    """
    _check(teacher, hidden)
    measured = batch_loss(loss, teacher, seed)
    size = Size.of(teacher.config)
    found = sites(teacher)
    total: dict[str, Tensor] = {}
    sequences = 0
    with _at_rest(teacher, seed):
        for batch in batches:
            placed, count = _placed(batch, teacher)
            masks = Masks(found, size)
            with masks.attached():
                value = measured(teacher, placed)
            for name, score in _scores(masks.gradients(_scalar(value)), size, hidden).items():
                total[name] = total.get(name, torch.zeros(())) + count * score
            sequences += count
    if not sequences:
        raise ValueError("batches must hold at least one sequence, got none. Give some texts.")
    return _finished({name: score / sequences for name, score in total.items()}, teacher)


def _check(teacher: PreTrainedModel, hidden: str) -> None:
    check_model("teacher", teacher)
    if hidden not in _AGGREGATIONS:
        raise ValueError(
            f"hidden must be one of {', '.join(_AGGREGATIONS)}, got {hidden!r}. 'layers' is usual."
        )


@contextmanager
def _at_rest(teacher: PreTrainedModel, seed: int) -> Iterator[None]:
    """The teacher in eval mode and with no gradients of its own, and left as it was.

    The generator of the CPU is seeded, for what is drawn while batches are made.
    """
    modes = [(module, module.training) for module in teacher.modules()]
    learnt = [parameter for parameter in teacher.parameters() if parameter.requires_grad]
    try:
        teacher.eval()
        for parameter in learnt:
            parameter.requires_grad_(False)
        # A seeded DataLoader would draw from the global generator, too.
        with (
            torch.random.fork_rng(devices=[]),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training


def _placed(batch: Mapping[str, Any], teacher: PreTrainedModel) -> tuple[dict[str, Any], int]:
    """A batch on the teacher's device, and its sequences."""
    tensors = [value for value in batch.values() if isinstance(value, Tensor) and value.dim()]
    if not tensors:
        raise ValueError(
            f"batches must hold tensors by name, got {', '.join(map(str, batch)) or 'none'}. "
            "Collate them, as with DataCollatorWithPadding."
        )
    placed = {
        name: value.to(teacher.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    return placed, len(tensors[0])


def _scalar(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        raise ValueError(
            f"loss must give a scalar that depends on the teacher, got {loss!r}. "
            "Return the mean over the batch, and do not detach it."
        )
    return loss


def _scores(gradients: Gradients, size: Size, hidden: Aggregation) -> dict[str, Tensor]:
    """The scores of one batch, by the names of `Importance.flat`."""
    stream = _aggregated(gradients[Units(None, 0, HIDDEN)], hidden)
    before = gradients.get(Units(None, 0, EMBEDDING))
    found = {
        "hidden": stream,
        "embedding": stream if before is None else _aggregated(before, hidden),
    }
    for units in gradients:
        if units.stack is None:
            continue
        here = f"{_STACKS[units.stack]}.{units.layer + 1}"
        if units.axis == FFN:
            found[f"{here}.ffn"] = _summed(gradients[units]).abs()
        elif units.axis == CONTEXT:
            found |= _of_attention(f"{here}.attention", gradients, units, str, size)
        elif units.axis == cross(CONTEXT):
            found |= _of_attention(f"{here}.cross", gradients, units, cross, size)
    return found


def _of_attention(
    name: str, gradients: Gradients, units: Units, axis: Callable[[str], str], size: Size
) -> dict[str, Tensor]:
    """Heads and channels of one attention.

    Channels are summed over the query heads that share a head of keys and values: they keep the
    same.
    """
    context, query, key = (
        _summed(gradients[units._replace(axis=axis(each))]).view(size.groups, -1, size.head_size)
        for each in (CONTEXT, QUERY, KEY)
    )
    return {
        f"{name}.heads": context.sum(dim=-1).abs().flatten(),
        f"{name}.query_key": (query.sum(dim=1) + key[:, 0]).abs(),
        f"{name}.value": context.sum(dim=1).abs(),
    }


def _summed(gradients: list[Tensor]) -> Tensor:
    """Of a layer that runs several times: what is cut is cut in all of its runs."""
    return torch.stack(gradients).sum(dim=0)


def _aggregated(gradients: list[Tensor], hidden: Aggregation) -> Tensor:
    stacked = torch.stack(gradients)
    return stacked.sum(dim=0).abs() if hidden == "shared" else stacked.abs().sum(dim=0)


def _finished(scores: Mapping[str, Tensor], teacher: PreTrainedModel) -> Importance:
    for name, score in scores.items():
        if not bool(score.isfinite().all()):
            raise ValueError(f"scores must be finite, got a {name} that is not. Score in float32.")
    found = Importance.from_flat(scores)
    found.check(teacher.config)
    return found
