"""Word embeddings of few numbers: tables by PCA or SVD, the teacher's as a start, and freezing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_distill.student.limits import check_model


@dataclass(frozen=True)
class Factors:
    """A table [V, D] as matrix [V, E] times projection [E, D], plus a mean [D]; float64, CPU."""

    matrix: Tensor
    """[V, E]: U S, the scores of the words."""
    projection: Tensor
    """[E, D]: orthonormal rows, the directions of the largest squares."""
    mean: Tensor
    """[D]: of the table's rows; 0 where they were not centred."""
    squares: Tensor
    """[D]: every squared singular value of the (centred) table, descending."""

    @property
    def rank(self) -> int:
        """E."""
        return len(self.projection)

    @property
    def error(self) -> float:
        """The squared Frobenius distance to the table, the least of this rank (Eckart, Young)."""
        return float(self.squares[self.rank :].sum())

    @property
    def relative_error(self) -> float:
        """The Frobenius distance to the table, as a part of the table's norm."""
        whole = float(self.squares.sum() + len(self.matrix) * self.mean.square().sum())
        return (self.error / whole) ** 0.5 if whole else 0.0

    @property
    def explained_variance(self) -> float:
        """The part of the variance that is kept; of the squares, where rows were not centred."""
        whole = float(self.squares.sum())
        return 1 - self.error / whole if whole else 1.0

    def product(self) -> Tensor:
        """The table of this rank: [V, D]."""
        return self.matrix @ self.projection + self.mean


def factorise(weight: Tensor, rank: int, *, center: bool = True) -> Factors:
    """The nearest table of a rank, as two factors: PCA where rows are centred, else truncated SVD.

    Exact and repeatable: by the eigenvectors of the D x D matrix of squares, in float64 on the CPU.
    The largest entry of each direction is above 0, as in scikit-learn's PCA.

    Args:
        weight: [V, D], in floating point. It is not changed.
        rank: E, from 1 to D.
        center: Whether the mean of the rows is taken out and kept beside, as in XtremeDistil
            (Mukherjee and Awadallah 2020).

    Raises:
        ValueError: The table is no matrix of numbers, or the rank is out of range.
    """
    if weight.dim() != 2 or weight.is_meta or not weight.is_floating_point():
        held = f"{weight.dtype} of shape {tuple(weight.shape)} on {weight.device}"
        raise ValueError(
            f"weight must be a matrix in floating point, got {held}. Load the model without "
            "quantisation and without offloading."
        )
    width = weight.shape[1]
    if type(rank) is not int or not 1 <= rank <= width:
        raise ValueError(
            f"rank must be an int from 1 to the table's width {width}, got {rank!r}. "
            "At the width itself nothing is lost, and nothing is gained."
        )
    table = weight.detach().to(device="cpu", dtype=torch.float64)
    mean = table.mean(dim=0) if center else table.new_zeros(width)
    table = table - mean
    squares, directions = torch.linalg.eigh(table.T @ table)
    projection = directions.flip(1).T[:rank]
    largest = projection.gather(1, projection.abs().argmax(dim=1, keepdim=True))
    projection = (projection * largest.sign()).contiguous()
    return Factors(table @ projection.T, projection, mean, squares.flip(0).clamp(min=0))


def compress_embeddings(
    student: PreTrainedModel, teacher: PreTrainedModel, *, center: bool = True, freeze: bool = False
) -> Factors:
    """Start the student's word table from the teacher's, cut to the student's width by PCA or SVD.

    As XtremeDistil does, the student's table becomes the teacher's scores U S; position and type
    embeddings and their norm stay. The table is written in place: a tied output head stays tied and
    so begins with it too, one of its own is left as it is.

    Scores are in another basis than the teacher's channels, which layers that `extract` has cut out
    of it expect: this start is for other students, from random weights or pretrained by themselves.

    Args:
        student: A model with the teacher's vocabulary and narrower word embeddings. It is changed.
        teacher: Fine-tuned, as a rule. It is not changed.
        center: Whether the scores are those of centred rows (PCA), as in XtremeDistil.
        freeze: Whether the table is kept as it is in training, as `freeze_embeddings` does.

    Returns:
        The factors, which say what is lost.

    Raises:
        ValueError: One of the two has no plain word embeddings, the vocabularies have other sizes,
            or the teacher's word embeddings are no wider than the student's.
    """
    ours, theirs = word_embeddings("student", student), word_embeddings("teacher", teacher)
    if ours.num_embeddings != theirs.num_embeddings:
        raise ValueError(
            f"student must have the teacher's vocabulary of {theirs.num_embeddings} words, got "
            f"{ours.num_embeddings}. Give it the teacher's tokenizer and size: "
            f"student.resize_token_embeddings({theirs.num_embeddings})."
        )
    if theirs.embedding_dim <= ours.embedding_dim:
        raise ValueError(
            f"teacher's word embeddings must be wider than the student's ({ours.embedding_dim}), "
            f"got {theirs.embedding_dim}: there is nothing to compress. Copy the table where the "
            "widths are equal; a wider student needs another start."
        )
    factors = factorise(theirs.weight, ours.embedding_dim, center=center)
    with torch.no_grad():
        ours.weight.copy_(factors.matrix)
    if freeze:
        freeze_embeddings(student)
    return factors


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Keep the word table as it is in training: no gradient, no optimizer state, no weight decay.

    An output head that is tied to the table is frozen with it. Of factorised embeddings, the
    projection and its bias are still trained.

    Args:
        model: Any model with word embeddings. It is changed.
    """
    embeddings: Any = model.get_input_embeddings()
    embeddings.weight.requires_grad_(False)


def word_embeddings(name: str, model: Any) -> nn.Embedding:
    """The word embeddings of a model.

    Args:
        name: What the model is called in errors.
        model: The model.

    Raises:
        ValueError: It is no transformers model, or its word embeddings are no `nn.Embedding`.
    """
    check_model(name, model)
    found = model.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise ValueError(
            f"{name} must have word embeddings of type nn.Embedding, got "
            f"{type(found).__name__}. Fold what was factorised first: fold_embeddings({name})."
        )
    return found
