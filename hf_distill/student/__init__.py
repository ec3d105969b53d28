"""Who learns, from what start? A smaller config, and the teacher's own weights cut to fit it."""

from hf_distill.student.config import PRESETS, Size, student_config
from hf_distill.student.depth import SOURCES
from hf_distill.student.extract import Extraction, extract, fresh
from hf_distill.student.indices import CHOICES, IndexSets

__all__ = [
    "CHOICES",
    "PRESETS",
    "SOURCES",
    "Extraction",
    "IndexSets",
    "Size",
    "extract",
    "fresh",
    "student_config",
]
