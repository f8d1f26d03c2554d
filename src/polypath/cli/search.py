"""``polypath search``: find the best paths of a run among all choices of its network."""

from __future__ import annotations

from pathlib import Path

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, number_of, positive
from polypath.cli.tables import print_json, print_table
from polypath.core.checks import number, whole


def search(argv: list[str]) -> None:
    """Find the paths of a finished run that are most accurate for their time, among all choices of its network and not
    only the named ones. They are chosen on one half of the held-out images. On the other half they are compared with
    the named paths and with equally many random ones. The result is written as search.json into the run's folder. The
    commands `paths`, `report` and `export` use the found paths with `--paths found`. The same command resumes a stopped
    search."""
    parser = Parser("search", search.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run with held-out images (data.validation)")
    parser.add_argument(
        "--method",
        choices=("auto", "exhaustive", "beam"),
        default="auto",
        help="exhaustive: evaluate all choices; beam: beam search; auto (default): exhaustive if --size and --pflop "
        "allow it, else beam",
    )
    parser.add_argument(
        "--size", type=positive, default=5000, help="largest number of choices to evaluate (default 5000)"
    )
    parser.add_argument(
        "--pflop", type=number_of(float, number(above=0)), default=0.3, help="limit on the PFLOP to spend (default 0.3)"
    )
    parser.add_argument("--width", type=positive, default=8, help="width of the beam (default 8)")
    parser.add_argument("--keep", type=positive, default=12, help="largest number of paths to find (default 12)")
    parser.add_argument(
        "--seed",
        type=number_of(int, whole(0)),
        default=0,
        help="seed for splitting images and for random paths (default 0)",
    )
    parser.add_argument(
        "--statistics",
        choices=("recalibrated", "own"),
        default="recalibrated",
        help="batch-norm statistics while choosing: recalibrated for each choice, or the network's own; the comparison "
        "always uses recalibrated ones",
    )
    parser.add_argument(
        "--num-images",
        type=number_of(int, whole(2)),
        default=2000,
        help="training images to recalibrate on (default 2000)",
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "onnxruntime", "torch", "none"),
        default="auto",
        help="runtime in which to measure times; none: use MACs instead of times",
    )
    parser.add_argument(
        "--timed",
        type=number_of(int, whole(2)),
        default=40,
        metavar="N",
        help="number of paths to time; the times of all other paths are predicted from these (default 40)",
    )
    parser.add_argument(
        "--regret",
        action="store_true",
        help="with --method beam: also evaluate all choices, and report how much better they are",
    )
    parser.add_argument(
        "--test", action="store_true", help="also measure the test errors of the found, named and random paths"
    )
    parser.add_argument("--device", help="device that runs the paths (default: the recipe's device)")
    parser.add_data_moved()
    parser.add_json()
    args = parser.read(argv)

    from polypath.analysis.finished_run import FinishedRun
    from polypath.search.search import search as find

    run = FinishedRun(args.run, args.device, data_moved=args.data_moved, by="search")
    result = find(
        run,
        method=args.method,
        size=args.size,
        width=args.width,
        keep=args.keep,
        seed=args.seed,
        statistics=args.statistics,
        num_images=args.num_images,
        runtime=None if args.runtime == "none" else args.runtime,
        timed_paths=args.timed,
        pflop=args.pflop,
        regret=args.regret,
        test=args.test,
    )
    if args.json:
        print_json(result.to_json())
        return
    head, rows = result.table()
    print_table(f"Paths of {result.run}", head, rows, notes=result.facts())
    say(f"wrote search.json into {run.folder}; `{PROGRAM} export {run.folder} --paths found --out DIR` exports them")
