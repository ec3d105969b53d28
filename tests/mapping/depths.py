"""Depths that tests of mappings draw."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

quick = settings(max_examples=50, deadline=None)


@st.composite
def depths(draw: st.DrawFn) -> tuple[int, int]:
    """A student's and a teacher's, the student never the deeper one."""
    teacher = draw(st.integers(1, 48))
    return draw(st.integers(1, teacher)), teacher
