"""From an ordinary table of word embeddings to factors that are trained, and back."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedModel

from hf_distill.student.embeddings import Factors, factorise, word_embeddings
from hf_distill.student.factorised import FactorisedEmbedding, FactorisedHead, factorised


def factorise_embeddings(
    model: PreTrainedModel, rank: int, *, center: bool = True, freeze: bool = False
) -> Factors:
    """Train the word embeddings as a table [V, E] and a projection [E, D], as ALBERT does.

    Output heads and further embeddings that are tied to the table stay tied: they read the same
    factors. What is saved of the model is ordinary; `fold_embeddings` makes the model so too.

    Args:
        model: A model with a head or without; it is changed. Build the Trainer after this.
        rank: E.
        center: Whether the mean of the rows is taken out, and learnt beside.
        freeze: Whether the table [V, E] is kept as it is, and the projection alone is trained.

    Returns:
        The factors that the model begins with, which say what is lost.

    Raises:
        ValueError: The model has no plain word embeddings, something that is not known reads them,
            or the rank is out of range.
    """
    ordinary = word_embeddings("model", model)
    readers = dict(_readers(model, ordinary))
    factors = factorise(ordinary.weight, rank, center=center)
    made = FactorisedEmbedding(factors, ordinary, center=center)
    if freeze:
        made.weight.requires_grad_(False)
    for path, reader in readers.items():
        head = FactorisedHead(made, reader) if isinstance(reader, nn.Linear) else made
        model.set_submodule(path, head)
    return factors


def fold_embeddings(model: nn.Module) -> None:
    """Put an ordinary table in the place of factorised embeddings: the model says the same.

    A frozen table stays frozen. An optimizer or a Trainer that was built before knows the factors,
    and not the table.

    Args:
        model: What `factorise_embeddings` was given; it is changed.

    Raises:
        ValueError: Its embeddings are not factorised.
    """
    found = factorised(model)
    if found is None:
        raise ValueError(
            f"model must have factorised embeddings to be folded, got {type(model).__name__} "
            "without. It is an ordinary model already."
        )
    weight = nn.Parameter(found.product().detach(), requires_grad=found.weight.requires_grad)
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, FactorisedEmbedding | FactorisedHead):
            model.set_submodule(path, module.ordinary(weight))


def _readers(model: nn.Module, ordinary: nn.Embedding) -> Iterator[tuple[str, nn.Module]]:
    """Every module that reads a table, by its path: embeddings, and output heads tied to it."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter is not ordinary.weight:
            continue
        path, _, attribute = name.rpartition(".")
        reader = model.get_submodule(path)
        if attribute != "weight" or not (type(reader) is nn.Linear or _plain(reader, ordinary)):
            raise ValueError(
                "word embeddings must be read by plain nn.Embedding and nn.Linear to be "
                f"factorised, got {type(reader).__name__} at {name}. Leave those of this model as "
                "they are; freeze_embeddings works for every model."
            )
        yield path, reader


def _plain(reader: nn.Module, ordinary: nn.Embedding) -> bool:
    """Whether a module looks words up and does nothing else, with the same padding token."""
    return type(reader) is nn.Embedding and (
        reader.padding_idx == ordinary.padding_idx
        and reader.max_norm is None
        and not reader.sparse
        and not reader.scale_grad_by_freq
    )
