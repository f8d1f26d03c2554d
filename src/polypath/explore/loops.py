"""Finds the loops that the gates let an image run, from the trace of its forward pass."""

from __future__ import annotations

from polypath.core.execute import Trace
from polypath.core.wiring import Wiring


def loops_taken(wiring: Wiring, trace: Trace) -> dict[str, str]:
    """Return, for every gated switch that ran, the label of the operand that the switch took for the traced image.

    If the gate before loop k is closed, this is the operand of loop k - 1. If all gates are open, this is the last
    operand.

    Raises:
        ValueError: the trace is of more than one image.
    """
    taken: dict[str, str] = {}
    for switch, label, reached, opened in trace.gates:
        if reached.numel() != 1:
            raise ValueError(f"the trace is of {reached.numel()} images: give the trace of a single image")
        labels = wiring.joins[switch].labels
        taken.setdefault(switch, labels[-1])
        if bool(reached.item()) and not bool(opened.item()):
            taken[switch] = labels[labels.index(label) - 1]
    return taken
