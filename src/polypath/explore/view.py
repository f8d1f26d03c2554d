"""Makes the contents of the page from a subject, an image and a budget, without Gradio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from polypath.core.wiring import Choice
from polypath.data.images import file_bytes
from polypath.explore.curve import curve_svg, short
from polypath.explore.subject import PathFacts, Run, Subject

WIDE, NARROW = 26, 10  # number of columns in the drawing of a wiring, on wide screens and on phones
STEPS = 200  # number of steps of the budget's slider
NOTE = "The machine was busy while the times were measured. Measure them again when it is idle."


@dataclass(frozen=True, kw_only=True)
class View:
    """The contents of the page.

    Attributes:
        message: the reason why there is no answer, or advice; plain text, empty if there is an answer.
        note: a warning about the times; plain text, usually empty.
        path: name of the path that ran, or None.
        answer: probability of each class; empty if nothing ran.
        facts, wiring, curve: HTML.
    """

    message: str
    note: str
    path: str | None
    answer: Mapping[str, float]
    facts: str
    wiring: str
    curve: str


@dataclass(frozen=True)
class Budgets:
    """The ends, the initial value and the step of the budget's slider, in milliseconds."""

    low: float
    high: float
    value: float
    step: float


def budgets(subject: Subject) -> Budgets:
    """Return a slider whose range includes the times of all paths. At its lower end, no path is fast enough. At the
    initial value, about half of the paths are fast enough."""
    reach = sorted(path.p99_ms for path in subject.paths.values())
    fastest = min(path.p50_ms for path in subject.paths.values())
    step = 10.0 ** math.floor(math.log10(1.3 * reach[-1] / STEPS) + 0.5)
    low, high = max(1, math.floor(0.4 * fastest / step)), math.ceil(1.25 * reach[-1] / step)
    value = math.ceil(1.02 * reach[len(reach) // 2] / step)
    low, high, value = (round(k * step, 6) for k in (low, high, min(value, high)))
    return Budgets(low, high, value, round(step, 6))


def look(subject: Subject, image: bytes | Path | None, budget_ms: float | None) -> View:
    """Classify an encoded image, or an image file, with the most accurate path within ``budget_ms``. Return the view.

    The view has a message if there is no image, the image is broken, or no path is fast enough for the budget.
    """
    if budget_ms is None or not math.isfinite(budget_ms) or budget_ms <= 0:
        return _shown(subject, "The budget must be a number of milliseconds above 0.", budget_ms=0.0)
    chosen = subject.choose(budget_ms)
    if chosen is None:
        return _shown(subject, cannot_be_met(subject, budget_ms), budget_ms=budget_ms)
    if image is None:
        return _shown(subject, "Drop an image, or pick one of the examples.", budget_ms=budget_ms, chosen=chosen)
    try:
        data = file_bytes(image) if isinstance(image, Path) else image
        run = subject.run(data, budget_ms)
    except ValueError as error:
        return _shown(subject, f"This image cannot be read: {error}.", budget_ms=budget_ms, chosen=chosen)
    if run is None:
        late = (
            f"{short(budget_ms)} ms passed before a path could start: this machine is busy. Try again, or allow more."
        )
        return _shown(subject, late, budget_ms=budget_ms)
    return _shown(subject, "", budget_ms=budget_ms, chosen=run.path, run=run)


def cannot_be_met(subject: Subject, budget_ms: float) -> str:
    """Return the page's message for a budget for which no path is fast enough."""
    fastest = min(subject.paths.values(), key=lambda path: path.p99_ms)
    return (
        f"{short(budget_ms)} ms cannot be met on this machine: the fastest path, {fastest.name}, needs "
        f"{_up(fastest.p99_ms):g} ms (99 of 100 runs). Allow that much, or use a faster machine."
    )


def _up(ms: float) -> float:
    """Round up to three digits, so that a budget of the rounded number can be met."""
    step = 10.0 ** (math.floor(math.log10(ms)) - 2)
    return round(math.ceil(ms / step) * step, 9)


def _shown(
    subject: Subject, message: str, *, budget_ms: float, chosen: str | None = None, run: Run | None = None
) -> View:
    facts = subject.paths[chosen] if chosen is not None else None
    choice = run.choice if run is not None else facts.choice if facts is not None else {}
    answer: dict[str, float] = {}
    if run is not None:
        answer = {name: float(p) for name, p in zip(subject.classes, run.probabilities, strict=False)}
    return View(
        message=message,
        note=NOTE if subject.busy else "",
        path=chosen if run is not None else None,
        answer=answer,
        facts=_facts(facts, run),
        wiring=_wiring(facts or next(iter(subject.paths.values())), choice, lit=facts is not None, run=run),
        curve=curve_svg(list(subject.paths.values()), budget_ms, chosen, budgets(subject).high),
    )


def _facts(path: PathFacts | None, run: Run | None) -> str:
    tiles = [("path", path.name if path else "none")]
    tiles.append(("this image", f"{short(run.ms)} ms" if run else "–"))
    if path is not None:
        tiles.append(("p50 / p99", f"{short(path.p50_ms)} / {short(path.p99_ms)} ms"))
        errors = [f"{error:.2f}" for error in (path.error, path.test_error) if error is not None]
        name = "error, held out / test" if path.test_error is not None else "error"
        tiles.append((name, f"{' / '.join(errors)}%" if errors else "not scored"))
        tiles.append(("multiply-adds", f"{short(path.macs / 1e6)} million"))
        if path.precision != "f32":
            tiles.append(("precision", path.precision))
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    return f'<dl class="pp-facts">{told}</dl>'


def _wiring(path: PathFacts, choice: Choice, *, lit: bool, run: Run | None) -> str:
    """Draw the diagram of the path's network."""
    wide, narrow = (path.wiring.to_svg(choice, columns=columns) for columns in (WIDE, NARROW))
    told = ""
    if run is not None and run.loops:
        each = ", ".join(f"{block} {took} of {most}" for block, took, most in run.loops)
        total = sum(took for _, took, _ in run.loops), sum(most for _, _, most in run.loops)
        told = f'<p class="pp-loops">The gates let this image take {total[0]} of {total[1]} loops: {escape(each)}.</p>'
    off = "" if lit else " pp-off"
    meant = f"Highlighted nodes {'ran' if run else 'would run'}." if lit else "Nothing runs within this budget."
    return (
        f'<div class="pp-drawing{off}"><div class="pp-wide">{wide}</div><div class="pp-narrow">{narrow}</div>{told}'
        f'<p class="pp-legend">{meant} '
        "Boxes are layers, dots add no depth, circles join: µ mean, + sum, "
        "? one of several.</p></div>"
    )
