"""All verdicts on the results in a folder, as rows: for the page's front table and for ``verdicts.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from polypath.reproduce.claims import Claim, Verdict
from polypath.reproduce.experiment import EXERCISED, Experiment, definition_id
from polypath.reproduce.frozen import SCALE, frozen
from polypath.reproduce.in_print import printed_effect, printed_number, printed_numbers
from polypath.reproduce.papers.rows import SETTING
from polypath.reproduce.registry import get_experiment, list_experiments
from polypath.reproduce.result import Result
from polypath.reproduce.section import number
from polypath.reproduce.store import load_result
from polypath.reproduce.tried import tried

Row = dict[str, Any]


class Held(NamedTuple):
    """A committed result in the current wording. ``stale`` says how the definition has changed since the result was
    made; it is empty if there is no change. A stale result keeps the changes of its scale and has no newer claims."""

    folder: Path
    result: Result
    experiment: Experiment | None
    stale: str


def held_in(folder: Path) -> list[Held]:
    """Load the results in a folder, in the order of the registry."""
    found = []
    for file in sorted(folder.glob("*/result.json")):
        result = load_result(file.parent)
        experiment = _experiment(result)
        stale = outdated(result, experiment)
        if experiment is not None:
            result = told_anew(result, experiment) if stale else reworded(result, experiment)
        found.append(Held(file.parent, result, experiment, stale))
    names: Sequence[str] = list_experiments()

    def place(held: Held) -> tuple[int, str, str]:
        of = held.result.experiment
        return (names.index(of) if of in names else len(names), held.result.scale, held.folder.name)

    return sorted(found, key=place)


def verdicts_of(folder: Path) -> list[Row]:
    """Return a row for each verdict on the results in a folder, as JSON values."""
    return [row for held in held_in(folder) for row in _rows(held)]


def _rows(held: Held) -> Iterator[Row]:
    result, experiment = held.result, held.experiment
    claims = {claim.id: claim for claim in experiment.claims} if experiment is not None else {}
    for verdict in result.verdicts:
        claim = claims.get(verdict.id)
        yield {
            "experiment": result.experiment,
            "place": result.place,
            "scale": result.scale,
            "id": verdict.id,
            "text": verdict.text,
            "counted": claim.exact if claim is not None else verdict.estimate is not None and not verdict.seeds,
            "printed": None if claim is None or experiment is None else _printed(experiment, claim, result),
            "estimate": _rounded(verdict.estimate),
            "half": _rounded(verdict.half),
            "interval": None if verdict.interval is None else [_rounded(end) for end in verdict.interval],
            "level": _rounded(verdict.level),
            "unit": verdict.unit,
            "seeds": verdict.seeds,
            "word": verdict.word,
            "why": why(verdict),
            "tried": tried(result, verdict, claim) if verdict.word == "does not hold" else "",
            "stale": held.stale,
        }


def why(verdict: Verdict) -> str:
    """Return the evidence for a verdict in one line: a description of the statistic, the interval and the reason."""
    if verdict.estimate is None:
        return verdict.reason
    rests = ""
    if verdict.interval is not None:
        low, high = (number(end) for end in verdict.interval)
        rests = f"{verdict.seeds} seeds: {low} to {high}"
    elif not verdict.seeds:
        rests = "counted"
    return "; ".join(filter(None, (verdict.says or "difference", rests, verdict.reason)))


def _printed(experiment: Experiment, claim: Claim, result: Result) -> float | None:
    """Return a claim's statistic, computed from the printed numbers of the keys that a result measures; None if a
    number is lost."""
    numbers = printed_numbers(experiment)
    return _rounded(
        printed_effect(claim, {k: v for k, v in numbers.items() if k.removesuffix(SETTING) in result.measured_keys})
    )


def changes(before: Sequence[Row], now: Sequence[Row]) -> list[str]:
    """Return a line for each verdict that is new, missing or different, compared with an earlier list."""

    def by_claim(rows: Sequence[Row]) -> Mapping[tuple[str, str, str], Row]:
        return {(row["experiment"], row["scale"], row["id"]): row for row in rows}

    old, new = by_claim(before), by_claim(now)
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        name = f"`{key[0]}` at {key[1]}, `{key[2]}`"
        then, today = old.get(key), new.get(key)
        if then is None and today is not None:
            lines.append(f"{name}: is new, *{today['word']}*")
        elif today is None:
            lines.append(f"{name}: is gone")
        elif then is not None and then["word"] != today["word"]:
            lines.append(
                f"{name}: was *{then['word']}*, is now *{today['word']}*"
                + (f" ({today['why']})" if today["why"] else "")
            )
    return lines


def outdated(result: Result, experiment: Experiment | None) -> str:
    """Return a sentence that says how the definition has changed since a committed result was made; empty if it has
    not."""
    if experiment is None:
        return f"there is no experiment {result.experiment} any more."
    if result.scale not in experiment.scales:
        return f"there is no scale {result.scale} of this experiment any more."
    now = definition_id(experiment, result.scale, experiment.scale(result.scale))
    if now == result.definition:
        return ""
    return f"the definition of this experiment has changed since this result (`{result.definition}`, now `{now}`)."


def told_anew(result: Result, experiment: Experiment) -> Result:
    """Return a result with the current wording of its experiment and of the claims that still exist, matched by id."""
    now = {claim.id: claim for claim in experiment.claims}
    plan = frozen(experiment.name) if result.scale == SCALE else None
    undecidable = plan.undecidable if plan is not None else {}

    def told(v: Verdict) -> Verdict:
        if v.id not in now:
            return v
        reason = EXERCISED if v.word == "exercised" else v.reason
        if v.word == "undecided" and v.interval is not None:
            reason = undecidable.get(v.id, reason)
        return replace(v, text=now[v.id].told, says=now[v.id].says, reason=reason)

    return replace(
        result, place=experiment.place, shows=experiment.shows, verdicts=[told(verdict) for verdict in result.verdicts]
    )


def reworded(result: Result, experiment: Experiment) -> Result:
    """Return a result in the current wording, with all claims, scale changes and printed numbers of its experiment.

    If the claim of a verdict no longer exists, the verdict's reason says so. A claim that is newer than the result is
    undecided.
    """
    result = told_anew(result, experiment)
    found = {verdict.id: verdict for verdict in result.verdicts}
    now = {claim.id for claim in experiment.claims}
    verdicts = [v if v.id in now else replace(v, reason="no longer claimed") for v in result.verdicts]
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
    return replace(result, changes=changes, published=published, verdicts=verdicts)


def _experiment(result: Result) -> Experiment | None:
    try:
        return get_experiment(result.experiment)
    except ValueError:
        return None


def _rounded(x: float | None) -> float | None:
    return None if x is None else round(x, 4)
