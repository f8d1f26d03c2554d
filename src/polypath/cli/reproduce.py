"""``polypath reproduce``: run a paper's table or figure, and judge its claims."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import print_json, print_table
from polypath.core.checks import check, number, one_of

if TYPE_CHECKING:
    from polypath.reproduce.experiment import Experiment
    from polypath.reproduce.result import Result


def reproduce(argv: list[str]) -> None:
    """Run a paper's table or figure: train its networks with several seeds, print the measured numbers beside the
    published ones, and judge each of the paper's claims. The same command resumes a stopped experiment. Without a name,
    list all experiments."""
    parser = Parser("reproduce", reproduce.__doc__)
    parser.add_argument("experiment", nargs="?", help="PAPER/TABLE, such as crescendonet/table2")
    parser.add_argument(
        "--scale",
        default="small",
        help="smoke (seconds), small (minutes on a CPU; default), medium (all images; hours) or paper (GPUs)",
    )
    parser.add_argument(
        "--seeds", type=positive, help="number of seeds, which are 0 to N-1 (default: set by the scale)"
    )
    parser.add_argument("--device", help="device for training and evaluation (default: the recipes' device)")
    parser.add_argument(
        "--data.source",
        dest="source",
        metavar="[NAME=]PLACE",
        help="read the images from this folder or Hub name instead",
    )
    parser.add_data_moved()
    parser.add_argument(
        "--workers", type=positive, default=1, help="number of concurrent runs on this machine (default 1)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder of the result (default reproduced/PAPER-TABLE-SCALE); with --all, its parent folder",
    )
    parser.add_argument(
        "--runs", type=Path, help="folder of the runs that experiments share (default ~/.local/share/polypath/runs)"
    )
    parser.add_argument(
        "--all", action="store_true", help="run every experiment of the scale, each paper's main experiments first"
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only list the experiments that would run, with PFLOP and time on this machine",
    )
    parser.add_argument(
        "--project",
        action="store_true",
        help="only estimate the time of one run at the published setting, here and on a GPU",
    )
    parser.add_argument(
        "--gpu-tflops",
        type=float,
        default=100.0,
        help="GPU speed that --project assumes, in TFLOP/s of training (default 100)",
    )
    parser.add_argument(
        "--freeze",
        type=Path,
        metavar="RESULTS",
        help="write the frozen plan of scale medium from the small-scale results in RESULTS",
    )
    parser.add_argument("--verdicts", type=Path, metavar="RESULTS", help="only list the verdicts in RESULTS")
    parser.add_json()
    args = parser.read(argv)

    from polypath.cli import reproduce_plan
    from polypath.reproduce.experiment import SCALES
    from polypath.reproduce.registry import get_experiment

    check("--scale", args.scale, one_of(*SCALES))
    check("--gpu-tflops", args.gpu_tflops, number(above=0))
    if args.verdicts is not None:
        reproduce_plan.verdicts(args.verdicts, args.json)
        return
    if args.freeze is not None:
        reproduce_plan.freeze(args.freeze)
        return
    if args.all and args.experiment is not None:
        raise ValueError(f"--all with {args.experiment!r}: give only one of them")
    if args.experiment is None and not args.all:
        if args.plan or args.project:
            raise ValueError("--plan and --project need an experiment, or --all")
        _list(args.json)
        return
    names = None if args.experiment is None else [get_experiment(args.experiment).name]
    if args.plan:
        reproduce_plan.plan(args.scale, names, args.json)
        return
    if args.project:
        reproduce_plan.project(names, args.gpu_tflops * 1e12, args.json)
        return

    from polypath.reproduce.plan import in_order

    results = []
    for name in names or in_order(args.scale):
        folder = f"{name.replace('/', '-')}-{args.scale}"
        out = args.out if args.out is not None and not args.all else (args.out or Path("reproduced")) / folder
        results.append(_one(get_experiment(name), args, out))
    if args.json:
        found = [result.to_json() for result in results]
        print_json(found if args.all else found[0])


def _one(experiment: Experiment, args: Namespace, out: Path) -> Result:
    """Run an experiment, and print its result unless the output is JSON."""
    from polypath.reproduce.runner import reproduce as run

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
        runs=args.runs,
        source=args.source,
        data_moved=args.data_moved,
        workers=args.workers,
    )
    if not args.json:
        _show(result)
        if experiment.answer is not None:
            _tell(experiment.answer(result))
        _tell(f"result folder {out}")
    return result


def _list(as_json: bool) -> None:
    from polypath.reproduce.registry import get_experiment, list_experiments

    found = [get_experiment(name) for name in list_experiments()]
    if as_json:
        print_json([{"name": e.name, "place": e.place, "shows": e.shows, "scales": list(e.scales)} for e in found])
        return
    rows = [[e.name, e.place, e.shows] for e in found]
    print_table(
        "Experiments",
        ["name", "place", "shows"],
        rows,
        left=3,
        notes=[f"`{PROGRAM} reproduce NAME` runs an experiment"],
    )


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
