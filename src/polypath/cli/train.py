"""The commands ``polypath recipes``, ``train`` and ``resume``."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polypath.cli.output import say
from polypath.cli.parser import PROGRAM, Parser, positive
from polypath.cli.tables import percent, print_json, print_table

if TYPE_CHECKING:
    from polypath.data.sources import ImageData
    from polypath.training.loop import RunResult
    from polypath.training.recipe import Recipe


def recipes(argv: list[str]) -> None:
    """List training recipes. With a name, show the recipe's fields, and which of them the paper does not state."""
    parser = Parser("recipes", recipes.__doc__)
    parser.add_argument("name", nargs="?", default="*", help="a recipe's name, or a pattern such as 'gunn*'")
    parser.add_json()
    args = parser.read(argv)

    from polypath.training.recipe import recipe_to_json
    from polypath.training.recipes import about, get_recipe, list_recipes

    names = list_recipes(args.name)
    if set(args.name) & set("*?["):
        if not names:
            raise ValueError(f"no recipe's name matches {args.name!r}; `{PROGRAM} recipes` lists all")
        found = [get_recipe(name) for name in names]
        if args.json:
            print_json([{"name": recipe.name, "about": about(recipe.name)} for recipe in found])
            return
        print_table(
            "Recipes",
            ["name", "purpose", "epochs", "batch"],
            [[r.name, about(r.name), str(r.epochs), str(r.batch_size)] for r in found],
            left=2,
            notes=[f"`{PROGRAM} recipes NAME` shows a recipe's fields. `{PROGRAM} train NAME` trains the recipe."],
        )
        return
    recipe = get_recipe(args.name)
    if args.json:
        print_json({**recipe_to_json(recipe), "about": about(recipe.name)})
        return
    rows = [_row(recipe, name, value) for name, value in _leaves(recipe)]
    print_table(
        f"{recipe.name}: {about(recipe.name)}",
        ["field", "value", "why assumed"],
        rows,
        left=3,
        notes=[f"Each field is an option: `{PROGRAM} train {recipe.name} --optim.lr 0.05`."],
    )


def train(argv: list[str]) -> None:
    """Train a network with a recipe, and write the run into a new folder, by default runs/NAME. Any field of the recipe
    is an option; `polypath train RECIPE --help` lists the fields. The recipe my-images needs only the folder of your
    pictures: --data.source DIR."""
    parser = Parser("train", train.__doc__, add_help=False, usage=f"{PROGRAM} train RECIPE [--FIELD VALUE ...]")
    parser.add_argument("recipe", help=f"name of a recipe; `{PROGRAM} recipes` lists all")
    parser.add_argument("--out", type=Path, help="run folder (default runs/NAME)")
    parser.add_argument("--find-lr", action="store_true", help="find the learning rate by a short sweep first")
    parser.add_json()
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return
    if argv[0].startswith("-"):
        raise ValueError(f"{parser.prog}: give a recipe before {argv[0]!r}; `{PROGRAM} recipes` lists all recipes")
    args, rest = parser.parse_known_args(argv)

    from polypath.training.recipes import get_recipe

    base = get_recipe(args.recipe)
    if "--help" in rest or "-h" in rest:
        say(
            "Options besides the recipe's fields:\n  --out DIR  run folder (default runs/NAME)\n"
            "  --find-lr  find the learning rate by a short sweep first\n  --json     print JSON\n"
        )
    recipe = customised(base, rest, f"{PROGRAM} train {base.name}")

    from polypath.training import loop

    out = args.out or Path("runs") / recipe.name
    recipe, data = _swept(recipe, rest, out) if args.find_lr else (recipe, None)
    _report(loop.train(recipe, out, data=data, quiet=args.json), args.json)


def _swept(recipe: Recipe, options: list[str], out: Path) -> tuple[Recipe, ImageData]:
    """Return the recipe with the learning rate that a short sweep found, and the images that the sweep loaded."""
    from polypath.cli.options import named
    from polypath.data.sources import load_images
    from polypath.storage.files import check_vacant
    from polypath.training.find_rate import with_found_rate
    from polypath.training.settle import settled

    if "optim.lr" in named(options):
        raise ValueError("--find-lr and --optim.lr: give only one of them")
    if "RANK" in os.environ:
        raise ValueError(
            "--find-lr: works in one process only; find the rate without torchrun, then give it as --optim.lr"
        )
    check_vacant(out, "--out ")
    recipe = settled(recipe)
    data = load_images(recipe.data)
    return with_found_rate(recipe, data), data


def resume(argv: list[str]) -> None:
    """Continue a run that was stopped or killed. The result is the same as without the stop. With --epochs, extend a
    finished run, or change the number of epochs of an unfinished run."""
    parser = Parser("resume", resume.__doc__)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_data_moved()
    parser.add_argument(
        "--epochs", type=positive, metavar="N", help="train up to N epochs in total, with the schedule of N epochs"
    )
    parser.add_json()
    args = parser.read(argv)

    from polypath.training import loop

    _report(loop.resume(args.run, epochs=args.epochs, data_moved=args.data_moved, quiet=args.json), args.json)


def customised(base: Recipe, options: list[str], prog: str) -> Recipe:
    """Return a copy of ``base`` with the field values that ``options`` set. These fields are no longer assumed or open.

    ``--init timm:NAME`` makes that timm network the model, so the model options are timm's. If the model is open, any
    ``--init`` sets the model.

    Raises:
        ValueError: as for :func:`~polypath.cli.options.with_options`, or ``init`` is not the name of a network.
    """
    from polypath.cli.options import named, with_options
    from polypath.training.recipe import lookup, still_open
    from polypath.training.start import TIMM, model_of

    given = named(options)
    init = given.get("init")
    if init and init != "None" and (init.startswith(TIMM) or "model" in base.open_fields):
        ends = {"num_classes": base.model.num_classes, "in_chans": base.model.in_chans}
        assumed = {name: why for name, why in base.assumed.items() if not name.startswith("model")}
        base = dataclasses.replace(base, model=dataclasses.replace(model_of(init), **ends), assumed=assumed)
    recipe = with_options(dataclasses.replace(base, assumed={}), options, prog)
    kept = {name: why for name, why in base.assumed.items() if lookup(recipe, name) == lookup(base, name)}
    return dataclasses.replace(recipe, assumed=kept, open_fields=still_open(recipe, given))


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            yield name, getattr(value, "kind", None) or getattr(value, "family", "")
            yield from _leaves(value, f"{name}.")
        elif name not in ("assumed", "open_fields"):
            yield name, value


def _row(recipe: Recipe, name: str, value: Any) -> list[str]:
    """Return a field's name, its value, and why it was assumed."""
    if any(f"{name}.".startswith(f"{field}.") for field in recipe.open_fields):
        return [name, "open", "will be chosen from the images, unless you set it"]
    return [name, str(value), recipe.assumed.get(name, "")]


def _report(result: RunResult, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":  # under torchrun only the first process prints
        return
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    chosen = "chosen on held-out images" if result.reported == "best" else "the last"
    lines = [
        f"{result.name}: test error {percent(result.test_error)}% on {result.test_images:,} images",
        f"epoch {result.epoch} ({chosen}); {result.parameters:,} parameters, {result.steps:,} steps, "
        f"{result.seconds:,.0f} s{_spent(result.pflop)} on {result.device}, seed {result.seed}",
        *(f"note: {note}" for note in result.notes),
        f"run folder {result.run_dir}; `{PROGRAM} paths {result.run_dir}` measures its paths",
    ]
    say(*lines)


def _spent(pflop: float | None) -> str:
    return "" if pflop is None else f" and {pflop:.3g} PFLOP"
