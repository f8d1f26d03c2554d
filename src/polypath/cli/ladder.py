"""``polypath ladder``: compare each path of a network with the same path trained alone."""

from __future__ import annotations

from pathlib import Path

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import print_json, print_table


def ladder(argv: list[str]) -> None:
    """Train a network. Also train, alone and as a plain network, each path that an export of the network would contain.
    The tax is a path's error in the shared network minus its error when trained alone. There are three ways to train a
    path alone: for as many epochs as the network (epochs), with as many PFLOP in total (pflop), or by distillation from
    the whole network's twin (taught). The same command resumes a stopped ladder. Any field of the recipe is an option,
    as for `polypath train`."""
    parser = Parser("ladder", ladder.__doc__, usage=f"{PROGRAM} ladder RECIPE [--seeds N] [--FIELD VALUE ...]")
    parser.add_argument("recipe", help=f"name of a recipe; `{PROGRAM} recipes` lists all")
    parser.add_argument("--seeds", type=positive, default=3, help="number of seeds, which are 0 to N-1 (default 3)")
    parser.add_argument(
        "--paths",
        action="append",
        metavar="TEXT",
        help="a path such as column=2, besides the whole network; repeatable, at most four (default: the paths that "
        "an export would choose on held-out images)",
    )
    parser.add_argument(
        "--alone",
        action="append",
        choices=("epochs", "pflop", "taught"),
        help="how to train paths alone; repeatable; epochs is always included (default: all three)",
    )
    parser.add_argument("--out", type=Path, help="folder of the ladder (default ladders/RECIPE)")
    parser.add_argument(
        "--num-images", type=positive, default=2000, help="training images to recalibrate on (default 2000)"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "onnxruntime", "torch", "none"),
        default="auto",
        help="runtime in which to measure time and memory",
    )
    parser.add_argument("--workers", type=positive, default=1, help="number of concurrent runs here (default 1)")
    parser.add_argument("--retries", type=int, default=1, help="number of retries of a failed run (default 1)")
    parser.add_data_moved()
    parser.add_json()
    args, rest = parser.parse_known_args(argv)

    from polypath.cli.train import customised
    from polypath.training.recipes import get_recipe
    from polypath.worth.ladder import ladder as run
    from polypath.worth.plan import KINDS

    recipe = customised(get_recipe(args.recipe), rest, f"{PROGRAM} ladder {args.recipe}")
    out = args.out or Path("ladders") / recipe.name
    result = run(
        recipe,
        range(args.seeds),
        args.paths,
        kinds=args.alone or KINDS,
        out=out,
        num_images=args.num_images,
        runtime=None if args.runtime == "none" else args.runtime,
        workers=args.workers,
        retries=args.retries,
        data_moved=args.data_moved,
    )
    if args.json:
        print_json(result.to_json())
    else:
        head, rows = result.table()
        print_table(f"Paths of {result.name}, in one network and alone", head, rows, notes=result.facts())
        say(f"wrote result.json, result.csv, figure.png and figure.svg into {out}")
    if result.failed:
        raise ValueError(f"{len(result.failed)} runs failed: {', '.join(result.failed)}; the same command retries them")
