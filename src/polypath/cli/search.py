"""``polypath search``: the best paths of a run among all choices of its network."""

from __future__ import annotations

from pathlib import Path

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, number_of, positive
from polypath.cli.tables import print_json, print_table
from polypath.core.checks import number, whole


def search(argv: list[str]) -> None:
    """Look for the paths of a finished run that are best for their time, among all choices of its network and not only
    the named ones. Half of the held-out images choose, the other half says what the found paths are worth beside the
    named ones and beside as many drawn at random. Writes search.json into the run's folder; `paths`, `report` and
    `export` take what was found by `--paths found`. Called again it goes on."""
    parser = Parser("search", search.__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run that held images out (data.validation)")
    parser.add_argument(
        "--method",
        choices=("auto", "exhaustive", "beam"),
        default="auto",
        help="look at all choices, or at a beam of them; auto takes all where --size and --pflop allow it",
    )
    parser.add_argument("--size", type=positive, default=5000, help="choices evaluated at most (5000)")
    parser.add_argument(
        "--pflop", type=number_of(float, number(above=0)), default=0.3, help="PFLOP that looking costs at most (0.3)"
    )
    parser.add_argument("--width", type=positive, default=8, help="of the beam (8)")
    parser.add_argument("--keep", type=positive, default=12, help="found paths at most (12)")
    parser.add_argument(
        "--seed", type=number_of(int, whole(0)), default=0, help="cuts the held-out images in halves, draws (0)"
    )
    parser.add_argument(
        "--statistics",
        choices=("recalibrated", "own"),
        default="recalibrated",
        help="batch-norm that chooses, re-estimated for each choice or as trained; what confirms is re-estimated",
    )
    parser.add_argument(
        "--num-images", type=number_of(int, whole(2)), default=2000, help="training images to re-estimate on (2000)"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "onnxruntime", "torch", "none"),
        default="auto",
        help="what measures times; none counts MACs instead",
    )
    parser.add_argument(
        "--timed",
        type=number_of(int, whole(2)),
        default=40,
        metavar="N",
        help="paths that times are predicted from (40)",
    )
    parser.add_argument(
        "--regret", action="store_true", help="with --method beam: look at all as well, tell what it missed"
    )
    parser.add_argument(
        "--test", action="store_true", help="also score the found, named and drawn paths on the test split"
    )
    parser.add_argument("--device", help="where to run the paths; default the recipe's")
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
    say(f"wrote search.json into {run.folder}; `{PROGRAM} export {run.folder} --paths found --out DIR` takes them")
