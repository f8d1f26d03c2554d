"""The page of all results that are committed (``docs/reproduction.md``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from polypath.reproduce.claims import Verdict
from polypath.reproduce.experiment import Experiment, definition_id
from polypath.reproduce.in_print import in_print, printed_number
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.result import Result
from polypath.reproduce.section import section
from polypath.reproduce.store import load_result

IN_PRINT = """## The claims in print

Each claim evaluated on the numbers that its own paper prints. This checks our reading and nothing else: where a claim
is contradicted there, the paper contradicts itself. *Not printed* are claims on figures and tables whose numbers are
not at hand, counts on the networks themselves, and questions of our own.
"""

WORDS = ("holds", "does not hold", "undecided", "not measured")

HEAD = """# Reproduction

What `polypath reproduce PAPER/TABLE --scale small` came to: every table of the papers that has a committed result, its
measured numbers beside the printed ones, and a verdict on each claim. This page is made from the folders under
`docs/results/reproduce/` by `make docs`.

A verdict comes from several seeds by a paired bootstrap over seeds × test images, with the seeds' part of an interval
widened to that of Student's t and Holm's correction over a table's claims (`polypath.reproduce.claims`). *Undecided*
means that these seeds cannot tell. A claim that does not hold here does not hold **at this scale**: small networks, few
images, few epochs; printed numbers stand beside measured ones for their pattern, not for their level.
A *stale* result was run with recipes that have changed since; it stands until it is run again.
"""


def reproduction_page(folder: Path, link: str = "results/reproduce") -> str:
    """The page of all results in ``folder``, which stands at ``link`` from the page."""
    sections, results = {}, []
    for path in sorted(folder.glob("*/result.json")):
        result = load_result(path.parent)
        experiment = _experiment(result)
        if not (stale := outdated(result, experiment)) and experiment is not None:
            result = reworded(result, experiment)
        text = section(result, None if stale else experiment, figure=f"{link}/{path.parent.name}/figure.png")
        sections[_place_of(result), path.parent.name] = [text, *([f"**Stale:** {stale}", ""] if stale else [])]
        results.append(result)
    results_of = (line for _, text in sorted(sections.items()) for line in text)
    lines = [HEAD, *_overview(results), *results_of, *_where_they_were_made()]
    return "\n".join(lines).rstrip() + "\n"


def outdated(result: Result, experiment: Experiment | None) -> str:
    """Why a committed result is no longer that of the present definition; empty where it is."""
    if experiment is None:
        return f"there is no experiment {result.experiment} any more."
    if result.scale not in experiment.scales:
        return f"there is no scale {result.scale} of this experiment any more."
    now = definition_id(experiment, result.scale, experiment.scale(result.scale))
    if now == result.definition:
        return ""
    return f"the definition of this experiment has changed since (`{result.definition}`, now `{now}`)."


def reworded(result: Result, experiment: Experiment) -> Result:
    """A result in the words that its experiment has now; verdicts are matched with claims by id.

    A verdict whose claim is gone says so, and a claim that is newer than the result is undecided.
    """
    found = {verdict.id: verdict for verdict in result.verdicts}
    now = {claim.id: claim for claim in experiment.claims}
    verdicts = [
        replace(v, text=now[v.id].told, says=now[v.id].says) if v.id in now else replace(v, reason="no longer claimed")
        for v in result.verdicts
    ]
    verdicts += [
        Verdict(
            claim.id, claim.told, "undecided", unit=claim.unit, says=claim.says, reason="claimed since this was run"
        )
        for claim in experiment.claims
        if claim.id not in found
    ]
    changes = experiment.scale(result.scale).changes
    cells = {key: cell for key, cell in experiment.published.items() if key in result.measured_keys}
    published = {key: printed_number(experiment, cell) for key, cell in cells.items()}
    told = {"place": experiment.place, "shows": experiment.shows, "changes": changes}
    return replace(result, **told, published=published, verdicts=verdicts)


def _overview(results: Iterable[Result]) -> list[str]:
    of = {(r.experiment, r.scale): r for r in results}
    lines = ["| experiment | place | scale | " + " | ".join(WORDS) + " |", "|---|---|---|" + "---|" * len(WORDS)]
    for name in list_experiments():
        place = get_experiment(name).place
        found = [r for (experiment, _), r in of.items() if experiment == name]
        if not found:
            lines.append(f"| `{name}` | {place} | not run yet |" + " |" * len(WORDS))
        for r in found:
            count = Counter(v.word for v in r.verdicts)
            anchor = f"{r.experiment}: {r.place}".lower()
            anchor = "".join(c for c in anchor.replace(" ", "-") if c.isalnum() or c in "-_")
            cells = " | ".join(str(count[word]) if count[word] else "" for word in WORDS)
            scale = f"{r.scale}, stale" if outdated(r, get_experiment(name)) else r.scale
            lines.append(f"| [`{name}`](#{anchor}) | {place} | {scale} | {cells} |")
    return [*lines, ""]


def _where_they_were_made() -> list[str]:
    """Every claim on its own paper's numbers: how many are true there, which are contradicted, which have no number."""
    lines = [IN_PRINT, "| experiment | true in print | contradicted in print | not printed |", "|---|---|---|---|"]
    for name in list_experiments():
        experiment = get_experiment(name)
        found = [(claim, in_print(experiment, claim)) for claim in experiment.claims]
        true = sum(outcome == "true in print" for _, outcome in found)
        against = "; ".join(f"`{c.id}`: {c.contradicted}" for c, outcome in found if outcome == "contradicted in print")
        lost = ", ".join(f"`{c.id}`" for c, outcome in found if outcome == "not printed")
        lines.append(f"| `{name}` | {true or ''} | {against} | {lost} |")
    return [*lines, ""]


def _place_of(result: Result) -> tuple[int, str]:
    names: Sequence[str] = list_experiments()
    return (names.index(result.experiment) if result.experiment in names else len(names), result.scale)


def _experiment(result: Result) -> Experiment | None:
    try:
        return get_experiment(result.experiment)
    except ValueError:
        return None
