"""Commands run as quickly as recipes do in their own tests."""

from tests.recipe.conftest import _quick_runs

__all__ = ["_quick_runs"]
