"""``polypath bench anytime``: compare any methods by one frozen protocol."""

from __future__ import annotations

from pathlib import Path

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, number_of, positive
from polypath.cli.tables import print_json, print_table
from polypath.core.checks import check, one_of, whole


def bench(argv: list[str]) -> None:
    """Compare methods that trade accuracy for time, by the frozen protocol anytime-1. The protocol measures error
    against milliseconds. In a recorded trace of requests with budgets, it counts the requests that are answered
    correctly and in time. It also counts the answers that change from right to wrong. A method is a Python file that
    you write. The file is executed; docs/protocol.md lists the names that it must define. The same command resumes a
    stopped measurement."""
    parser = Parser("bench", bench.__doc__, usage=f"{PROGRAM} bench anytime --method FILE [--method FILE ...]")
    parser.add_argument("protocol", metavar="anytime", help="the protocol; there is only anytime-1")
    parser.add_argument(
        "--method",
        type=Path,
        action="append",
        metavar="FILE",
        required=True,
        help="Python file of a method; repeatable, to compare several methods",
    )
    parser.add_argument(
        "--data.source",
        dest="source",
        default="cifar10",
        metavar="PLACE",
        help="folder of images, or name of a data set (default cifar10)",
    )
    parser.add_argument("--out", type=Path, help="folder of the result (default benches/anytime)")
    parser.add_argument(
        "--seed", type=number_of(int, whole(0)), default=0, help="seed of the methods that train (default 0)"
    )
    parser.add_argument(
        "--requests", type=positive, help="number of first requests to use, for a trial (the protocol has 2,000)"
    )
    parser.add_json()
    args = parser.read(argv)
    check("bench", args.protocol, one_of("anytime"))

    from polypath.worth.anytime import anytime

    out = args.out or Path("benches") / "anytime"
    result = anytime(args.method, args.source, out=out, seed=args.seed, requests=args.requests)
    if args.json:
        print_json(result.to_json())
        return
    print_table("Methods", *result.table())
    print_table("Options", *result.options(), notes=result.facts())
    say(f"wrote result.json, result.csv, figure.png and figure.svg into {out}")
