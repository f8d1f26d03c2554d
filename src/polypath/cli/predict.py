"""``polypath predict``: classify images within a time budget."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import fitting, say
from polypath.cli.parser import Parser, positive
from polypath.cli.tables import RowPrinter, to_json
from polypath.core.display import printable

if TYPE_CHECKING:
    from polypath.deploy import Answer, AnytimePredictor, Bundle

LONGEST_NAME = 60  # of an image, beside which the other columns still line up


def predict(argv: list[str]) -> int:
    """Classify images, or all images in folders, each by the most accurate path that is done in time.

    The first argument may be the folder of a bundle or of a saved network; without one, the pretrained bundle of this
    package (CIFAR-10) answers. Images that cannot be read are listed at the end, and the status is 1; it is 2 where
    there are no others.
    """
    parser = Parser("predict", predict.__doc__)
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="[BUNDLE] IMAGE", help="image files, or folders of them"
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        help="milliseconds to read, decode and classify an image; none: the best path",
    )
    parser.add_argument("--path", help="a path by its name, whatever it takes")
    parser.add_argument("--top-k", type=positive, default=3, help="classes to show (3)")
    parser.add_argument(
        "--runtime", default="auto", help="auto, openvino, onnxruntime, torch, torch-compiled, cuda-graphs"
    )
    parser.add_argument("--threads", type=positive, help="for an answer; default the cores that there are")
    parser.add_profile()
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image, or for its error")
    args = parser.read(argv)
    if args.budget_ms is not None and args.path is not None:
        raise ValueError("--budget-ms and --path: give one of them")

    from polypath.data.images import BrokenImage
    from polypath.deploy.budget import BudgetError, check_budget
    from polypath.deploy.bundle import Bundle
    from polypath.deploy.images import files_of

    if args.budget_ms is not None:
        check_budget(args.budget_ms)
    folder, places = _split(args)
    bundle = Bundle.open(folder)
    if args.path is not None:
        bundle.path(args.path)
    if args.top_k > len(bundle.classes):
        raise ValueError(f"--top-k {args.top_k}: there are only {len(bundle.classes)} classes")
    files = list(files_of(places))

    from polypath.deploy.predictor import AnytimePredictor

    predictor = AnytimePredictor(bundle, args.runtime, args.threads, profile=args.profile)
    if args.budget_ms is not None:
        predictor.choose(args.budget_ms)  # a budget that no image can be answered in
    show = _json_lines(args) if args.json else _table(bundle, predictor, files)
    bad: list[str] = []
    for file in files:
        try:
            answer = predictor.predict(file, budget_ms=args.budget_ms, path=args.path, top_k=args.top_k)
        except (BrokenImage, BudgetError) as error:
            why = str(error).removeprefix(f"{printable(file)}: ")
            bad.append(f"{printable(file)}: {why}")
            if args.json:
                say(to_json({"image": str(file), "error": why}))
        else:
            show(file, answer)
    if len(files) == len(bad) == 1:
        raise ValueError(bad[0])
    if bad and not args.json:
        say(f"not answered: {len(bad)} of {len(files)} images", *(f"  {line}" for line in bad), error=True)
    if len(bad) == len(files):
        raise ValueError(f"none of {len(files)} images can be answered")
    return 1 if bad else 0


def _json_lines(args: argparse.Namespace) -> Callable[[Path, Answer], None]:
    def show(file: Path, answer: Answer) -> None:
        row = {
            "image": str(file),
            "top": [{"class": name, "probability": round(p, 6)} for name, p in answer.top()[0]],
            "path": answer.path,
            "ms": round(answer.ms, 3),
            "runtime": answer.runtime,
            "budget_ms": args.budget_ms,
        }
        say(to_json(row))

    return show


def _table(bundle: Bundle, predictor: AnytimePredictor, files: Sequence[Path]) -> Callable[[Path, Answer], None]:
    title = f"Answers of {bundle.name} in {predictor.runtime.name}; milliseconds with decoding"
    widest = min(LONGEST_NAME, max(len(fitting(str(file))) for file in files))
    paths = max(len(path.name) for path in bundle.paths)
    rows = RowPrinter(
        title, [("image", widest), ("path", paths), ("ms", 8), ("classes", 20)], left=("image", "path", "classes")
    )

    def show(file: Path, answer: Answer) -> None:
        classes = ", ".join(f"{name} {p:.1%}" for name, p in answer.top()[0])
        rows.add([str(file), answer.path, f"{answer.ms:.2f}", classes])

    return show


def _split(args: argparse.Namespace) -> tuple[Path | None, list[Path]]:
    """The model's folder, if the first place is one, and the places of images."""
    first, *rest = args.places
    if not any((first / name).is_file() for name in ("manifest.json", "config.json")):
        return None, args.places
    if not rest:
        raise ValueError(f"{printable(first)} is a model: name images, or folders of them, after it")
    return first, rest
