"""Warnings that help: a learning rate that is too high, a gate that is stuck, a branch that never ran."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from polypath.core.paths import Paths
from polypath.core.wiring import Join, Wiring

RISING = 3
STUCK = 0.01
DRIFT = 0.1

Operands = set[tuple[str, str]]


def rising_loss(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning when the training loss has risen for three epochs on end and is above where it began."""
    last = [row["train_loss"] for row in rows[-RISING - 1 :]]
    if len(last) <= RISING or any(b <= a for a, b in itertools.pairwise(last)):
        return None
    if last[-1] <= rows[0]["train_loss"]:
        return None
    lr = rows[-1]["lr"]
    return (
        f"the training loss has risen for {RISING} epochs ({last[0]:.3g} to {last[-1]:.3g}): the learning rate is "
        f"probably too high; now it is {lr:.3g}, try --optim.lr a third of what it was"
    )


def stuck_gates(row: Mapping[str, Any]) -> list[str]:
    """A warning for each gate that let nearly all or nearly none of an epoch's samples pass."""
    found = []
    for name, rate in row.items():
        if name.startswith("rate/") and not STUCK <= rate <= 1 - STUCK:
            state = "open" if rate > 0.5 else "shut"
            found.append(
                f"gate {name.removeprefix('rate/')} is stuck {state}: {100 * rate:.1f}% of the samples passed it"
            )
    return found


def drifted_gates(row: Mapping[str, Any], target: float) -> str | None:
    """A warning when gates are far off their target on held-out images, where no noise moves them."""
    rates = [rate for name, rate in row.items() if name.startswith("val_rate/")]
    if not rates or max(abs(rate - target) for rate in rates) <= DRIFT:
        return None
    return (
        f"without noise the gates let pass {min(rates):.2f} to {max(rates):.2f} of the held-out images that reach "
        f"them, where {target:g} was aimed at; `polypath extract RUN --paths whole --gate-rate {target:g}` corrects it"
    )


def operands_of(wiring: Wiring, paths: Iterable[Paths], seen: Operands) -> None:
    """Add to ``seen`` each (join, label) that ran under any of these choices."""
    total = sum(len(join.operands) for join in wiring.joins.values())
    for choice in paths:
        if len(seen) == total:
            return
        for node in wiring.alive(choice):
            if isinstance(node, Join):
                seen.update((node.name, operand.label) for operand in node.chosen(choice))


def never_ran(wiring: Wiring, seen: Operands, steps: int) -> list[str]:
    """A warning for each join with operands that no step has run."""
    found = []
    for join in wiring.joins.values():
        if missing := [label for label in join.labels if (join.name, label) not in seen]:
            found.append(f"{join.name}: operand {', '.join(missing)} never ran in {steps} steps, so it has not learned")
    return found
