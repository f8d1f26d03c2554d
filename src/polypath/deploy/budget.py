"""Checks time budgets, records how the time is spent, and defines the error for a budget that is too small."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from polypath.core.checks import check, number
from polypath.deploy.latency import Origin

T = TypeVar("T")
DOUBT = {
    "measured": "",
    "stored": "; times were stored by an earlier session",
    "busy": "; times were measured while the machine was busy",
}
AGAIN = ": measure again with --profile fresh, or with profile(fresh=True) in Python"


class BudgetError(ValueError):
    """The error for a budget that is too small for every path. The message states the times and a remedy.

    Args:
        budget_ms: the budget.
        needs_ms: time that the cheapest path needs.
        batch: number of images.
        decoding_ms: time spent on reading, decoding and preparing the images, before a path could begin.
        waiting_ms: time spent waiting for the disk, or while other programs had the processor.
        origin: ``measured`` in this session, ``stored`` by an earlier session, or measured while the machine was
            ``busy``: the kind of times from which ``needs_ms`` is computed.
    """

    def __init__(
        self,
        budget_ms: float,
        needs_ms: float,
        batch: int = 1,
        *,
        decoding_ms: float = 0.0,
        waiting_ms: float = 0.0,
        origin: Origin = "measured",
    ) -> None:
        self.budget_ms, self.needs_ms = budget_ms, needs_ms
        self.decoding_ms, self.waiting_ms = decoding_ms, waiting_ms
        took = "".join(
            f"{what} took {ms:.3g} ms, "
            for what, ms in (("decoding", decoding_ms), ("waiting", waiting_ms))
            if ms >= 0.01 * budget_ms
        )
        images = "an image" if batch == 1 else f"{batch} images"
        needs = f"{took}{'and ' if took else ''}the cheapest path needs {needs_ms:.4g} ms for {images} here"
        super().__init__(f"budget_ms {budget_ms:.4g} cannot be met: {needs}{self._help(origin)}")

    def _help(self, origin: Origin) -> str:
        if self.needs_ms > self.budget_ms:
            return DOUBT[origin] + AGAIN if DOUBT[origin] else ""
        if self.waiting_ms > self.decoding_ms:
            return "; the machine is busy: try again, or give more time"
        return "; give smaller images, decoded pixels (a uint8 array), or more time"


@dataclass
class Spent:
    """A record of how the time budget of one answer is spent.

    Args:
        budget_ms: the budget.
        start: the time at which the budget began to count (``time.perf_counter()``).
        decoding_ms: time spent on decoding so far.
        fixed: whether the deadline is fixed, so that ``waive`` does not move it.
    """

    budget_ms: float
    start: float
    decoding_ms: float = 0.0
    fixed: bool = False

    @property
    def deadline(self) -> float:
        """The time at which the budget is used up (``time.perf_counter()``)."""
        return self.start + 1e-3 * self.budget_ms

    def waive(self, seconds: float) -> None:
        """Exclude these seconds of one-time work from the budget, unless the deadline is fixed."""
        if not self.fixed:
            self.start += seconds

    @property
    def ms(self) -> float:
        """Milliseconds spent so far."""
        return 1e3 * (time.perf_counter() - self.start)

    @property
    def left_ms(self) -> float:
        return self.budget_ms - self.ms

    def on_decoding(self, decode: Callable[[], T]) -> T:
        """Call ``decode`` and return its result. Its processor time counts as decoding, the rest as waiting."""
        begun = time.thread_time()
        try:
            return decode()
        finally:
            self.decoding_ms += 1e3 * (time.thread_time() - begun)

    def refusal(self, needs_ms: float, batch: int, origin: Origin) -> BudgetError:
        """Return the error for a path that no longer fits the budget."""
        spent = self.ms
        decoding = min(self.decoding_ms, spent)
        parts = {"decoding_ms": decoding, "waiting_ms": spent - decoding}
        return BudgetError(self.budget_ms, needs_ms, batch, **parts, origin=origin)


_BUDGET = number(above=0)


def check_budget(budget_ms: float) -> float:
    """Return the budget as a float.

    Raises:
        ValueError: the budget is not a finite number above 0.
    """
    return float(check("budget_ms", budget_ms, _BUDGET))
