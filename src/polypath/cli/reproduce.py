"""``polypath reproduce``: a paper's table or figure, run and judged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import print_json, print_table
from polypath.core.checks import check, one_of

if TYPE_CHECKING:
    from polypath.reproduce.result import Result


def reproduce(argv: list[str]) -> None:
    """Run a paper's table or figure: train its networks with several seeds, measure, print measured numbers beside
    published ones and a verdict on each claim. Called again it goes on. Without a name, lists what there is."""
    parser = Parser("reproduce", reproduce.__doc__)
    parser.add_argument("experiment", nargs="?", help="PAPER/TABLE, such as crescendonet/table2; without it, a list")
    parser.add_argument(
        "--scale", default="small", help="smoke (seconds), small (minutes on a CPU; default) or paper (GPUs)"
    )
    parser.add_argument("--seeds", type=positive, help="seeds 0 to N-1; by default as many as the scale says")
    parser.add_argument("--device", help="where to train and score; by default the recipes'")
    parser.add_argument(
        "--data.source", dest="source", metavar="[NAME=]PLACE", help="images from this folder or hub name instead"
    )
    parser.add_data_moved()
    parser.add_argument("--workers", type=positive, default=1, help="runs at a time on this machine (1)")
    parser.add_argument("--out", type=Path, help="result folder; default reproduced/PAPER-TABLE-SCALE")
    parser.add_json()
    args = parser.read(argv)

    from polypath.reproduce.experiment import SCALES
    from polypath.reproduce.registry import get_experiment

    if args.experiment is None:
        _list(args.json)
        return
    experiment = get_experiment(args.experiment)
    check("--scale", args.scale, one_of(*SCALES))

    from polypath.reproduce.runner import reproduce as run

    out = args.out or Path("reproduced") / f"{experiment.name.replace('/', '-')}-{args.scale}"
    if not args.json:
        _tell(f"{experiment.name} ({experiment.place}), scale {args.scale}: {experiment.shows}")
        for change in experiment.scale(args.scale).changes:
            _tell(f"  changed: {change}")
    result = run(
        experiment,
        args.scale,
        seeds=args.seeds,
        device=args.device,
        out=out,
        source=args.source,
        data_moved=args.data_moved,
        workers=args.workers,
    )
    if args.json:
        print_json(result.to_json())
        return
    _show(result)
    if experiment.answer is not None:
        _tell(experiment.answer(result))
    _tell(f"result folder {out}")


def _list(as_json: bool) -> None:
    from polypath.reproduce.registry import get_experiment, list_experiments

    found = [get_experiment(name) for name in list_experiments()]
    if as_json:
        print_json([{"name": e.name, "place": e.place, "shows": e.shows, "scales": list(e.scales)} for e in found])
        return
    rows = [[e.name, e.place, e.shows] for e in found]
    print_table("Experiments", ["name", "place", "shows"], rows, left=3, notes=[f"`{PROGRAM} reproduce NAME` runs one"])


def _show(result: Result) -> None:
    from polypath.reproduce.section import number

    frame, rows = result.frame(), []
    for what, mean, std, unit in zip(frame["what"], frame["measured"], frame["std"], frame["unit"], strict=True):
        spread = "" if std is None or std != std else f" ± {number(std)}"
        printed = result.published.get(what, "")
        rows.append([what, f"{number(mean)}{spread}", unit, "–" if printed is None else str(printed)])
    n = len(result.seeds)
    print_table(f"{n} seed{'s' if n != 1 else ''}", ["", "measured", "", "published"], rows)
    for verdict in result.verdicts:
        if verdict.word != "not measured":
            _tell(verdict.line())
    for run, why in result.diverged.items():
        _tell(f"diverged: {run} ({why})")


def _tell(text: str) -> None:
    say(text)
