"""``polypath sweep``: train with one recipe for several seeds and values of the recipe's fields."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import print_json


def sweep(argv: list[str]) -> None:
    """Train a recipe's network with several seeds and, with --set, for each combination of field values. Print mean ±
    standard deviation over the seeds. The same command resumes a stopped sweep: it reads finished runs, resumes
    unfinished runs and retries failed runs. Any field of the recipe is an option, as for `polypath train`."""
    parser = Parser(
        "sweep", sweep.__doc__, usage=f"{PROGRAM} sweep RECIPE [--seeds N] [--set FIELD=A,B] [--FIELD VALUE]"
    )
    parser.add_argument("recipe", help=f"name of a recipe; `{PROGRAM} recipes` lists all")
    parser.add_argument("--seeds", type=positive, default=3, help="number of seeds, which are 0 to N-1 (default 3)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=A,B", help="values of a field (dotted name); repeatable"
    )
    parser.add_argument("--out", type=Path, help="folder of the sweep (default sweeps/RECIPE)")
    parser.add_argument("--workers", type=positive, default=1, help="number of concurrent runs here (default 1)")
    parser.add_argument("--retries", type=int, default=1, help="number of retries of a failed run (default 1)")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="run on a Ray cluster (auto: the running one, local: a new one)"
    )
    parser.add_data_moved()
    parser.add_json()
    args, rest = parser.parse_known_args(argv)

    from polypath.cli.train import customised
    from polypath.training.recipes import get_recipe
    from polypath.training.sweep import sweep as run

    recipe = customised(get_recipe(args.recipe), rest, f"{PROGRAM} sweep {args.recipe}")
    result = run(
        recipe,
        range(args.seeds),
        dict(values_of(text) for text in args.set),
        args.out or Path("sweeps") / recipe.name,
        cluster=args.cluster,
        workers=args.workers,
        retries=args.retries,
        data_moved=args.data_moved,
    )
    if args.json:
        print_json({"rows": [asdict(row) for row in result.rows], "failed": result.failed})
    else:
        say(result.text())
    if result.failed:
        raise ValueError(f"{len(result.failed)} runs failed: {', '.join(result.failed)}; the same command retries them")


def values_of(text: str) -> tuple[str, list[Any]]:
    """Parse ``model.depth=26,38`` into a field and its values. The values are parsed as JSON if possible (lists in
    brackets), else as words.

    Raises:
        ValueError: the text has no ``=``, no field or no values.
    """
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not name or not values:
        raise ValueError(f"--set {text!r}: must have the form FIELD=A,B,C, such as model.depth=26,38,50")
    try:
        found = json.loads(f"[{values}]")
    except ValueError:
        found = [value.strip() for value in values.split(",")]
    return name, [tuple(value) if isinstance(value, list) else value for value in found]
