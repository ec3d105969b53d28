"""Who teaches: a live model."""

from hf_distill.teacher.live import LiveTeacher

__all__ = ["LiveTeacher"]
