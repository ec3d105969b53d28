"""What the parts of a recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: fixed, and without keys that mean nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")
