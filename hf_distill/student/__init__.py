"""Who learns, from what start? A smaller config, and the teacher's own weights cut to fit it."""

from hf_distill.student.choosing import CHOICES
from hf_distill.student.config import student_config
from hf_distill.student.depth import SOURCES
from hf_distill.student.extract import Extraction, extract, fresh
from hf_distill.student.indices import IndexSets
from hf_distill.student.scores import Importance
from hf_distill.student.size import PRESETS, Size

__all__ = [
    "CHOICES",
    "PRESETS",
    "SOURCES",
    "Extraction",
    "Importance",
    "IndexSets",
    "Size",
    "extract",
    "fresh",
    "student_config",
]
