"""A time budget: what it may be, and that no path keeps it."""

from __future__ import annotations

from polypath.core.checks import check, number


class BudgetError(ValueError):
    """A budget that no path keeps. ``needs_ms`` is what the cheapest path needs."""

    def __init__(self, budget_ms: float, needs_ms: float, batch: int = 1) -> None:
        self.budget_ms, self.needs_ms = budget_ms, needs_ms
        images = "an image" if batch == 1 else f"{batch} images"
        super().__init__(
            f"budget_ms {budget_ms:.4g} cannot be met: the cheapest path needs {needs_ms:.4g} ms for {images} here"
        )


def check_budget(budget_ms: float) -> float:
    """The budget as a number.

    Raises:
        ValueError: no number above 0 (NaN and infinity are none).
    """
    return float(check("budget_ms", budget_ms, number(above=0)))
