"""What goes wrong between an orchestration and a language model."""

from __future__ import annotations

from engramma.errors import EngrammaError


class ModelError(EngrammaError):
    """A language model gave no answer, or none that can be used."""


class BudgetError(ModelError):
    """A further call could cost more than is left."""
