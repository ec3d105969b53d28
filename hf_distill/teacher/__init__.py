"""Who teaches: a live model, an adapter of the student's own, or several together."""

from hf_distill.teacher.adapters import Adapter
from hf_distill.teacher.live import LiveTeacher
from hf_distill.teacher.several import Ensemble

__all__ = ["Adapter", "Ensemble", "LiveTeacher"]
