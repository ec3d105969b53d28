"""Who learns, from what start? A smaller config, and the teacher's own weights cut to fit it."""

from hf_distill.student.choosing import CHOICES
from hf_distill.student.config import student_config
from hf_distill.student.depth import SOURCES
from hf_distill.student.embeddings import (
    Factors,
    compress_embeddings,
    factorise,
    freeze_embeddings,
)
from hf_distill.student.extract import Extraction, extract, fresh
from hf_distill.student.factorised import load_factors, save_factors
from hf_distill.student.folding import factorise_embeddings, fold_embeddings
from hf_distill.student.importance import importance
from hf_distill.student.importance_plot import plot_importance
from hf_distill.student.indices import IndexSets
from hf_distill.student.scores import Importance
from hf_distill.student.size import PRESETS, Size
from hf_distill.student.vocabulary import Trimmed, trim_vocabulary, used_tokens

__all__ = [
    "CHOICES",
    "PRESETS",
    "SOURCES",
    "Extraction",
    "Factors",
    "Importance",
    "IndexSets",
    "Size",
    "Trimmed",
    "compress_embeddings",
    "extract",
    "factorise",
    "factorise_embeddings",
    "fold_embeddings",
    "freeze_embeddings",
    "fresh",
    "importance",
    "load_factors",
    "plot_importance",
    "save_factors",
    "student_config",
    "trim_vocabulary",
    "used_tokens",
]
