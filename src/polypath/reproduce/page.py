"""The page of all committed results (``docs/reproduction.md``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from polypath.reproduce.frozen import FILE, Frozen
from polypath.reproduce.in_print import in_print
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.section import number, section
from polypath.reproduce.verdicts import Held, Row, changes, held_in, verdicts_of
from polypath.storage.files import read_json

IN_PRINT = """## The claims in print

This table evaluates each claim on the numbers that the claim's paper prints, to check that we read the claim correctly.
A claim that is contradicted here is contradicted by its own paper. *Not printed* are claims about figures and tables
whose numbers we do not have, claims about exact counts of the networks, and our own questions.
"""

WORDS = ("holds", "does not hold", "depends on training length", "undecided", "exercised", "not measured")

HEAD = """# Reproduction

This page shows the results of `polypath reproduce PAPER/TABLE`: the verdict on every claim of the papers that a
committed result tests, with the evidence. `make docs` generates this page from the folders in
`docs/results/reproduce/`. The verdicts are also in `results/reproduce/verdicts.json`, as data.

Each claim has a *statistic*, a number that is computed from errors or other measurements. The claim holds if its
statistic is above 0. The column *why* says what is computed and, for sampled claims, gives the number of seeds and the
interval. The columns *paper* and *ours* show the statistic, computed from the printed and from the measured numbers; –
marks a number that is missing in our copy of the paper. Errors are top-1 errors in percent, and *points* are percentage
points. Names such as `branches=4` are rows of the experiment's table of numbers.

A *counted* claim is about exact numbers. A *sampled* claim is judged from several seeds by an interval: the claim holds
if the interval is above 0, does not hold if it is below 0, and is *undecided* if it contains 0. The interval is from a
paired bootstrap over seeds × test images. The seeds' part of an interval is widened as in Student's t-test, and Holm's
correction is applied over a table's claims (`polypath.reproduce.claims`). *Depends on training length* means that the
sign of the statistic differs after half of the epochs. *Exercised* means that a claim about an ImageNet network was
tested on other images, which decides nothing about it. A claim that does not hold at *small* does not hold **at that
scale**: small networks, few images, few epochs. A *stale* result was run with recipes that have changed since; it is
kept until the experiment runs again.
"""

COUNTED = "These claims are about exact numbers of the published networks, so there are no seeds and no intervals."
SAMPLED = "The networks were trained with several seeds. An interval that contains 0 decides nothing."
MEDIUM = """## What medium will decide

At *medium*, networks have the paper's width or half of it, all images of CIFAR-10, and the paper's objective and
regularisation; schedule, batch size and precision are ours. Claims, seeds and thresholds were frozen before any run
(`src/polypath/reproduce/medium_plan.json`). The seeds can decide {decidable} sampled claims: if results vary between
seeds as at *small*, the interval extends to each side by at most half of the printed effect. If the printed effect
is missing in our copy of the paper, the smallest effect that we consider relevant replaces it. The seeds cannot decide
{undecidable} sampled claims, which stay undecided whatever the result. All runs together cost {pflop:g} PFLOP; the
budget is {budget_pflop:g} PFLOP. `polypath reproduce --all --scale medium --plan` estimates the time on a machine. The
same command without `--plan` runs the experiments. If it is stopped, the same command resumes.
"""


def reproduction_page(folder: Path, link: str = "results/reproduce", before: Path | None = None) -> str:
    """Return the page of all results in ``folder``. The page's links to ``folder`` begin with ``link``.

    ``before`` is the list of verdicts of the previous revision (``verdicts.json``). If it is given, the page lists the
    changes since then.
    """
    held, rows = held_in(folder), verdicts_of(folder)
    lines = [HEAD, *_front(rows)]
    if before is not None and before.is_file():
        lines += _changes(read_json(before), rows)
    lines += [*_planned(), "## Experiments", "", *_overview(held)]
    for one in held:
        figure = f"{link}/{one.folder.name}/figure.png"
        text = section(one.result, None if one.stale else one.experiment, figure=figure)
        lines += _folded(text, f"**Stale:** {one.stale}" if one.stale else "")
    lines += _where_they_were_made()
    return "\n".join(lines).rstrip() + "\n"


def _front(rows: Sequence[Row]) -> list[str]:
    """Return the tables at the top of the page: counted claims and sampled claims."""
    judged = [row for row in rows if row["word"] != "not measured"]
    lines = []
    for title, said, counted in (("Counted claims", COUNTED, True), ("Sampled claims", SAMPLED, False)):
        own = [row for row in judged if row["counted"] == counted]
        count = Counter(row["word"] for row in own)
        told = ", ".join(f"{word}: {count[word]}" for word in WORDS if count[word]) or "none yet"
        lines += [f"## {title}", "", f"{said} {told[:1].upper()}{told[1:]}.", ""]
        lines += ["| claim | paper | ours | verdict | why |", "|---|---|---|---|---|", *map(_front_row, own), ""]
    return lines


def _front_row(row: Row) -> str:
    printed, ours = (None if row[key] is None else number(row[key]) for key in ("printed", "estimate"))
    scale = "" if row["counted"] else f", {row['scale']}" + (", stale" if row["stale"] else "")
    why = (row["why"] + (f"; tried so far: {row['tried']}" if row["tried"] else "")).replace("|", "\\|")
    text = f"{row['text']} (`{row['experiment']}`{scale})".replace("|", "\\|")
    value = f"{ours} {row['unit']}".strip() if ours else ""
    return f"| {text} | {printed or '–'} | {value} | **{row['word']}** | {why} |"


def _changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    found = changes(before, now)
    lines = ["## Since the last revision", ""]
    return [*lines, *(f"- {line}" for line in found or ["Nothing has changed."]), ""]


def _planned() -> list[str]:
    """Return the lines about the frozen plan, with the claims that it declares undecidable and the reasons."""
    if not FILE.is_file():
        return []
    plan = read_json(FILE)
    lines = [MEDIUM.format(**plan), "<details><summary>Experiments and claims of medium</summary>", ""]
    lines += ["| experiment | seeds | epochs | PFLOP | can be decided | cannot |", "|---|---|---|---|---|---|"]
    for of in plan["experiments"]:
        can = ", ".join(f"`{claim['id']}`" for claim in of["claims"] if claim["decidable"])
        cannot = "; ".join(f"`{id}`: {reason}" for id, reason in Frozen(of).undecidable.items())
        epochs = " or ".join(map(str, of["epochs"]))
        lines.append(f"| `{of['name']}` | {of['seeds']} | {epochs} | {of['pflop']:g} | {can} | {cannot} |")
    for of in plan["beyond"]:
        claims = ", ".join(f"`{id}`" for id in of["claims"])
        lines.append(f"| `{of['name']}`, left out | {of['seeds']} | | {of['pflop']:g} more | | {claims} |")
    return [*lines, "", "</details>", ""]


def _folded(text: str, stale: str) -> list[str]:
    """Return the lines of a section. The details after its heading and its summary are folded."""
    heading, _, rest = text.partition("\n\n")
    shows, _, details = rest.partition("\n\n")
    lines = [heading, "", shows, "", *([stale, ""] if stale else [])]
    return [*lines, "<details><summary>Numbers, figure, verdicts</summary>", "", details.strip(), "", "</details>", ""]


def _overview(results: Iterable[Held]) -> list[str]:
    of = {(held.result.experiment, held.result.scale): held for held in results}
    lines = ["| experiment | place | scale | " + " | ".join(WORDS) + " |", "|---|---|---|" + "---|" * len(WORDS)]
    for name in list_experiments():
        place = get_experiment(name).place
        found = [held for (experiment, _), held in of.items() if experiment == name]
        if not found:
            lines.append(f"| `{name}` | {place} | not run yet |" + " |" * len(WORDS))
        for held in found:
            r = held.result
            count = Counter(v.word for v in r.verdicts)
            anchor = f"{r.experiment}: {r.place}".lower()
            anchor = "".join(c for c in anchor.replace(" ", "-") if c.isalnum() or c in "-_")
            cells = " | ".join(str(count[word]) if count[word] else "" for word in WORDS)
            scale = f"{r.scale}, stale" if held.stale else r.scale
            lines.append(f"| [`{name}`](#{anchor}) | {place} | {scale} | {cells} |")
    return [*lines, ""]


def _where_they_were_made() -> list[str]:
    """Return a table of the claims on their own paper's numbers: how many are true, contradicted, or not printed."""
    lines = [IN_PRINT, "| experiment | true in print | contradicted in print | not printed |", "|---|---|---|---|"]
    for name in list_experiments():
        experiment = get_experiment(name)
        found = [(claim, in_print(experiment, claim)) for claim in experiment.claims]
        true = sum(outcome == "true in print" for _, outcome in found)
        against = "; ".join(f"`{c.id}`: {c.contradicted}" for c, outcome in found if outcome == "contradicted in print")
        lost = ", ".join(f"`{c.id}`" for c, outcome in found if outcome == "not printed")
        lines.append(f"| `{name}` | {true or ''} | {against} | {lost} |")
    return [*lines, ""]
