"""Results as Markdown: the section of one, and the page of all that are committed (``docs/reproduction.md``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from polypath.reproduce.claims import Verdict
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.results import Result, load_result

WORDS = ("holds", "does not hold", "undecided", "not measured")

HEAD = """# Reproduction

What `polypath reproduce PAPER/TABLE --scale small` came to: every table of the papers that has a committed result, its
measured numbers beside the printed ones, and a verdict on each claim. This page is made from the folders under
`docs/results/reproduce/` by `make docs`.

A verdict comes from several seeds by a paired bootstrap over seeds × test images, with the seeds' part of an interval
widened to that of Student's t and Holm's correction over a table's claims (`polypath.reproduce.claims`). *Undecided*
means that these seeds cannot tell. A claim that does not hold here does not hold **at this scale**: small networks, few
images, few epochs; printed numbers stand beside measured ones for their pattern, not for their level.
"""


def section(result: Result, experiment: Experiment | None = None, *, level: int = 2, figure: str = "figure.png") -> str:
    """One result; ``figure`` is where its picture stands."""
    env = result.environment
    lines = [f"{'#' * level} {result.experiment}: {result.place}", "", f"Shows {result.shows}.", ""]
    if result.changes:
        lines += [f"Scale **{result.scale}** changes:", "", *(f"- {change}" for change in result.changes), ""]
    lines += _table(result)
    lines += [f"![{result.experiment}, {result.place}]({figure})", ""]
    judged = [verdict for verdict in result.verdicts if verdict.word != "not measured"]
    if judged:
        lines += ["| verdict | claim | estimate | interval |", "|---|---|---|---|", *map(_verdict_row, judged), ""]
    if left := len(result.verdicts) - len(judged):
        lines += [f"Claims that this scale does not measure: {left}.", ""]
    if experiment is not None and experiment.answer is not None:
        lines += [experiment.answer(result), ""]
    lines += [f"Diverged: {', '.join(result.diverged)}.", ""] if result.diverged else []
    if experiment is not None and experiment.notes:
        lines += [*experiment.notes, ""]
    images = sorted({f"{n:,}" for n in result.images.values()})
    seeds = f"seeds {', '.join(map(str, result.seeds))}; " if result.seeds else ""
    scored = f"{' or '.join(images)} test images of {'; '.join(result.data)}; " if images else ""
    lines += [
        f"<sub>{seeds}{scored}{result.training_seconds:,.0f} s of training; "
        f"{env.get('device_name') or env.get('device', '')}, {env.get('threads', '?')} "
        f"thread{'s' if env.get('threads') != 1 else ''}, torch {env.get('torch', '?')}; "
        f"revision `{(result.revision or 'unversioned')[:12]}`, definition `{result.definition}`</sub>",
        "",
    ]
    return "\n".join(lines)


def reproduction_page(folder: Path, link: str = "results/reproduce") -> str:
    """The page of all results in ``folder``, which stands at ``link`` from the page."""
    results = {path.parent.name: load_result(path.parent) for path in sorted(folder.glob("*/result.json"))}
    lines = [HEAD, *_overview(results.values())]
    for name, result in sorted(results.items(), key=lambda pair: _place_of(pair[1])):
        experiment = _experiment(result)
        lines += [section(result, experiment, figure=f"{link}/{name}/figure.png")]
        if text := outdated(result, experiment):
            lines += [f"**Stale:** {text}", ""]
    return "\n".join(lines).rstrip() + "\n"


def outdated(result: Result, experiment: Experiment | None) -> str:
    """Why a committed result is no longer that of the present definition; empty where it is."""
    from polypath.reproduce.code import definition_id

    if experiment is None:
        return f"there is no experiment {result.experiment} any more."
    now = definition_id(experiment, result.scale, experiment.scale(result.scale))
    if now == result.definition:
        return ""
    return f"the definition of this experiment has changed since (`{result.definition}`, now `{now}`)."


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
            lines.append(f"| [`{name}`](#{anchor}) | {place} | {r.scale} | {cells} |")
    return [*lines, ""]


def _table(result: Result) -> list[str]:
    """Measured beside published; errors first, then scalars and counts."""
    frame = result.frame()
    if frame.empty:
        return []
    printed = bool(result.published)
    lines = ["| | measured |" + (" published |" if printed else ""), "|---|---|" + ("---|" if printed else "")]
    for what, measured, std, unit in zip(frame["what"], frame["measured"], frame["std"], frame["unit"], strict=True):
        cell = number(measured) + (f" ± {number(std)}" if std == std and std is not None else "")
        row = f"| {what} | {cell} {unit} |".replace("  ", " ").replace(" |", " |")
        if printed:
            p = result.published.get(what, "")
            row += f" {'–' if p is None else p} |"
        lines.append(row)
    return [*lines, ""]


def number(x: float) -> str:
    """A number as tables show it."""
    if x == int(x) and abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:,.2f}" if abs(x) >= 0.1 or x == 0 else f"{x:.3g}"


def _verdict_row(v: Verdict) -> str:
    estimate = "" if v.estimate is None else f"{v.says or 'difference'}: {number(v.estimate)} {v.unit}".strip()
    if v.interval is not None and v.level is not None:
        ends = f"{number(v.interval[0])} to {number(v.interval[1])} ({100 * v.level:.3g}%)"
    else:
        ends = "exact" if v.estimate is not None and not v.seeds else ""
    reason = f" ({v.reason})" if v.reason else ""
    return f"| **{v.word}** | {v.text}{reason} | {estimate} | {ends} |"


def _place_of(result: Result) -> tuple[int, str]:
    names: Sequence[str] = list_experiments()
    return (names.index(result.experiment) if result.experiment in names else len(names), result.scale)


def _experiment(result: Result) -> Experiment | None:
    try:
        return get_experiment(result.experiment)
    except ValueError:
        return None
