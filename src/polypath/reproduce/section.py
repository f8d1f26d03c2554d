"""One result as Markdown: measured and published numbers, the figure, the verdicts."""

from __future__ import annotations

from polypath.reproduce.claims import Verdict
from polypath.reproduce.experiment import Experiment
from polypath.reproduce.result import Result


def section(result: Result, experiment: Experiment | None = None, *, level: int = 2, figure: str = "figure.png") -> str:
    """Return the Markdown section of one result. ``figure`` is the path of the figure."""
    env = result.environment
    lines = [f"{'#' * level} {result.experiment}: {result.place}", "", f"Shows {result.shows}.", ""]
    if result.changes:
        lines += [
            f"Differences from the paper at the scale **{result.scale}**:",
            "",
            *(f"- {change}" for change in result.changes),
            "",
        ]
    lines += _table(result)
    lines += [f"![{result.experiment}, {result.place}]({figure})", ""]
    judged = [verdict for verdict in result.verdicts if verdict.word != "not measured"]
    if judged:
        head = ["| verdict | id | claim | estimate | interval |", "|---|---|---|---|---|"]
        lines += [*head, *map(_verdict_row, judged), ""]
    if left := len(result.verdicts) - len(judged):
        lines += [f"Claims that this scale does not measure: {left}.", ""]
    if experiment is not None and experiment.answer is not None:
        lines += [experiment.answer(result), ""]
    lines += [f"Diverged: {', '.join(result.diverged)}.", ""] if result.diverged else []
    if experiment is not None and experiment.notes:
        lines += [*experiment.notes, ""]
    images = sorted({f"{n:,}" for n in result.images.values()})
    seeds = f"seeds {', '.join(map(str, result.seeds))}; " if result.seeds else ""
    looks = "" if result.test_evaluations is None else f"{result.test_evaluations:,} evaluations on them; "
    scored = f"{' or '.join(images)} test images of {'; '.join(result.data)}; {looks}" if images else ""
    lines += [
        f"<sub>{seeds}{scored}{result.training_seconds:,.0f} s of training; "
        f"{env.get('device_name') or env.get('device', '')}, {env.get('threads', '?')} "
        f"thread{'s' if env.get('threads') != 1 else ''}, torch {env.get('torch', '?')}; "
        f"revision `{(result.revision or 'unversioned')[:12]}`, definition `{result.definition}`</sub>",
        "",
    ]
    return "\n".join(lines)


def _table(result: Result) -> list[str]:
    """Return a table of measured and published numbers: errors first, then scalars and counts."""
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
    """Return a number as it is written in tables."""
    if x == int(x) and abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:,.2f}" if abs(x) >= 0.1 or x == 0 else f"{x:.3g}"


def _verdict_row(v: Verdict) -> str:
    estimate = "" if v.estimate is None else f"{v.says or 'difference'}: {number(v.estimate)} {v.unit}".strip()
    if v.interval is not None and v.level is not None:
        ends = f"{number(v.interval[0])} to {number(v.interval[1])} ({100 * v.level:.3g}%)"
    else:
        ends = "exact" if v.estimate is not None and not v.seeds else ""
    earlier = "" if v.half is None else f"after half of the epochs: {number(v.half)}"
    told = "; ".join(filter(None, (v.reason, "" if v.word == "depends on training length" else earlier)))
    reason = f" ({told})" if told else ""
    id = f"`{v.id}`" if v.id else ""
    return f"| **{v.word}** | {id} | {v.text}{reason} | {estimate} | {ends} |"
