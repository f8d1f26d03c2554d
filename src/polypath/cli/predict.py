"""``polypath predict``: classify images within a time budget."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.cli.output import fitting, say
from polypath.cli.parser import Parser, positive
from polypath.cli.patience import patience
from polypath.cli.tables import RowPrinter, print_json, to_json, watched
from polypath.core.display import printable

if TYPE_CHECKING:
    from polypath.deploy import Answer, AnytimePredictor, Bundle

LONGEST_NAME = 60  # image names up to this width keep the other columns aligned


def predict(argv: list[str]) -> int:
    """Classify images, or all images in folders. Each image is classified by the most accurate path that finishes
    within the budget.

    The first argument may be the folder of a bundle or of a saved network; the default is the pretrained bundle of this
    package (CIFAR-10). Images that cannot be classified are listed at the end. The exit status is then 1, or 2 if no
    image was classified.

    With --out, all answers are written to a file, batch by batch, instead of printed as a table. A stopped
    command resumes when it is run again.
    """
    parser = Parser("predict", predict.__doc__)
    parser.add_argument(
        "places", nargs="+", type=Path, metavar="[BUNDLE] IMAGE", help="image files, or folders of them"
    )
    parser.add_argument(
        "--budget-ms",
        type=float,
        help="milliseconds to read, decode and classify an image (default: no limit, so the most accurate path)",
    )
    parser.add_argument(
        "--allow-late",
        action="store_true",
        help="never refuse a budget: use the path that is most likely to be correct and in time",
    )
    parser.add_argument("--path", help="always use the path of this name")
    parser.add_argument("--top-k", type=positive, help="number of classes per image (default 3; with --out, 1)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write FILE.csv or FILE.parquet, one row per image")
    parser.add_argument("--batch", type=positive, help="batch size with --out (default 32)")
    parser.add_argument(
        "--runtime", default="auto", help="one of auto, openvino, onnxruntime, torch, torch-compiled, cuda-graphs"
    )
    parser.add_precision()
    parser.add_argument("--threads", type=positive, help="number of threads of one inference (default: all cores)")
    parser.add_profile()
    parser.add_argument("--json", action="store_true", help="print one line of JSON per image: its answer or its error")
    args = parser.read(argv)
    if args.budget_ms is not None and args.path is not None:
        raise ValueError("--budget-ms and --path: give only one of them")
    if args.allow_late and (args.budget_ms is None or args.out is not None):
        raise ValueError("--allow-late: is only allowed with --budget-ms, and not with --out")
    if args.batch is not None and args.out is None:
        raise ValueError("--batch: is only allowed with --out; otherwise images are classified one by one")
    if args.top_k is None:
        args.top_k = 3 if args.out is None else 1

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
    if args.out is not None:
        return _to_file(args, bundle, files)

    from polypath.deploy.predictor import AnytimePredictor

    bad: list[str] = []
    with patience() as answering:
        predictor = AnytimePredictor(bundle, args.runtime, args.threads, precision=args.precision, profile=args.profile)
        if args.budget_ms is not None:
            predictor.choose(args.budget_ms, allow_late=args.allow_late)  # raises if no path can answer in time
        show = _json_lines(args) if args.json else _table(bundle, predictor, files)
        for file in files:
            try:
                answer = predictor.predict(
                    file, budget_ms=args.budget_ms, path=args.path, top_k=args.top_k, allow_late=args.allow_late
                )
            except (BrokenImage, BudgetError) as error:
                why = str(error).removeprefix(f"{printable(file)}: ")
                bad.append(f"{printable(file)}: {why}")
                if args.json:
                    say(to_json({"image": str(file), "error": why}))
            else:
                answering()
                show(file, answer)
    if len(files) == len(bad) == 1:
        raise ValueError(bad[0])
    if bad and not args.json:
        say(f"not classified: {len(bad)} of {len(files)} images", *(f"  {line}" for line in bad), error=True)
    if len(bad) == len(files):
        raise ValueError(f"none of {len(files)} images could be classified")
    return 1 if bad else 0


def _to_file(args: argparse.Namespace, bundle: Bundle, files: Sequence[Path]) -> int:
    from polypath.deploy.answer_file import BATCH, check_out, runtime_of, write_answers
    from polypath.deploy.predictor import AnytimePredictor

    out = check_out(args.out)
    runtime = args.runtime if args.runtime != "auto" else runtime_of(out) or "auto"  # a resumed FILE keeps its runtime
    with patience():
        predictor = AnytimePredictor(bundle, runtime, args.threads, precision=args.precision, profile=args.profile)
    written = write_answers(
        predictor,
        files,
        out,
        path=args.path,
        budget_ms=args.budget_ms,
        top_k=args.top_k,
        batch=args.batch or BATCH,
        watched=lambda places: watched(places, "predict"),
    )
    if args.json:
        print_json({"out": str(out), "images": written.images, "failed": written.failed, "runtime": written.runtime})
    else:
        failed = f", {written.failed:,} of them not classified (see column error)" if written.failed else ""
        say(f"wrote {out}: {written.images:,} images{failed}")
    if written.failed == written.images:
        raise ValueError(f"none of {written.images} images could be classified; {out} contains the errors")
    return 1 if written.failed else 0


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
    title = f"Answers of {bundle.name} in {predictor.runtime.name}; milliseconds include decoding"
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
    """Return the folder of the model, if the first argument is a model, and the image arguments."""
    first, *rest = args.places
    if not any((first / name).is_file() for name in ("manifest.json", "config.json", "recipe.json")):
        return None, args.places
    if not rest:
        raise ValueError(f"{printable(first)} is a model: add images, or folders of images, after it")
    return first, rest
