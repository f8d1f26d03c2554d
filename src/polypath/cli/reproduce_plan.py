"""Implements the options of ``polypath reproduce`` that run no experiment: plans, projections and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from polypath.cli.output import say
from polypath.cli.tables import print_json, print_table


def plan(scale: str, names: Sequence[str] | None, as_json: bool) -> None:
    """Print experiments in the order in which they run, with PFLOP and time on this machine. By default, print all
    experiments that have the scale."""
    from polypath.reproduce.frozen import SCALE, planned
    from polypath.reproduce.plan import plan_of, seconds_here
    from polypath.reproduce.registry import get_experiment

    found = planned() if scale == SCALE and names is None else plan_of(scale, names)
    rows, at = [], 0.0
    for one in found.experiments:
        seconds = seconds_here(get_experiment(one.name).scale(scale), one.pflop)
        at += seconds
        rows.append({**asdict(one), "hours_here": seconds / 3600})
    total = {"scale": scale, "pflop": found.pflop, "hours_here": at / 3600}
    if as_json:
        print_json(total | {"experiments": rows})
        return
    told = [
        [
            row["name"],
            row["place"],
            str(row["arms"]),
            str(row["seeds"]),
            str(row["runs"]),
            f"{row['own']:.3f}",
            f"{row['pflop']:.3f}",
            f"{row['hours_here']:.1f}",
        ]
        for row in rows
    ]
    print_table(
        f"scale {scale}",
        ["experiment", "place", "arms", "seeds", "new runs", "PFLOP", "PFLOP of new runs", "hours here"],
        told,
        left=2,
        notes=[
            f"{found.pflop:.2f} PFLOP and {at / 3600:.1f} hours here in total; a run that several experiments share is "
            "trained once",
            "hours here: extrapolated from a few timed steps of the first arm, without loading and evaluation",
        ],
    )


def project(names: Sequence[str] | None, rate_gpu: float, as_json: bool) -> None:
    """Print PFLOP and time of one run at the published setting, for each experiment. By default, print one experiment
    of each paper."""
    from polypath.reproduce.plan import HEADLINES, projected
    from polypath.reproduce.registry import get_experiment

    found = []
    for name in names or HEADLINES:
        arms = get_experiment(name).scale("paper").arms
        if not arms:
            raise ValueError(f"{name}: this experiment trains nothing, so there is nothing to project")
        found.append(projected(next(iter(arms.values())), rate_gpu))
    rows = [asdict(one) | {"hours_here": one.seconds_here / 3600, "hours_gpu": one.seconds_gpu / 3600} for one in found]
    if as_json:
        print_json(rows)
        return
    told = [
        [
            row["recipe"],
            f"{row['pflop']:,.2f}",
            f"{row['rate_here'] / 1e9:,.1f}",
            f"{row['hours_here']:,.0f}",
            f"{row['hours_gpu']:,.1f}",
        ]
        for row in rows
    ]
    print_table(
        "One run at the published setting",
        ["recipe", "PFLOP", "GFLOP/s here", "hours here", "hours on a GPU"],
        told,
        notes=[f"here: extrapolated from a few timed steps; GPU: training at {rate_gpu / 1e12:g} TFLOP/s is assumed"],
    )


def freeze(results: Path) -> None:
    """Write the frozen plan of scale ``medium`` into the package."""
    from polypath.reproduce.frozen import FILE, SCALE, beyond, freeze, load_small
    from polypath.reproduce.plan import plan_of
    from polypath.storage.files import write_json

    document = freeze(plan_of(SCALE), load_small(results), beyond())
    write_json(FILE, document)
    say(
        f"{FILE}: {document['pflop']:g} of {document['budget_pflop']:g} PFLOP; {document['decidable']} claims can be "
        f"decided, {document['undecidable']} cannot"
    )


def verdicts(results: Path, as_json: bool) -> None:
    """Print the verdicts on all results in a folder."""
    from polypath.reproduce.verdicts import verdicts_of

    found = verdicts_of(results)
    if as_json:
        print_json(found)
        return
    rows = [[row["experiment"], row["scale"], row["id"], row["word"], row["text"]] for row in found]
    print_table("Verdicts", ["experiment", "scale", "id", "verdict", "claim"], rows, left=5)
