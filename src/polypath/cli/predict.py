"""``polypath predict``: classify images within a time budget."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from polypath.cli.parser import Parser, positive
from polypath.cli.tables import print_table


def predict(argv: list[str]) -> None:
    """Classify images, or all images in folders, each by the most accurate path that is done in time.

    The first argument may be the folder of a bundle or of a saved network; without one, the pretrained bundle of this
    package (CIFAR-10) answers.
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
    parser.add_argument("--json", action="store_true", help="a line of JSON an image; errors too")
    args = parser.read(argv)
    if args.budget_ms is not None and args.path is not None:
        raise ValueError("--budget-ms and --path: give one of them")

    from polypath.deploy.budget import check_budget
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
    rows = []
    for file in files:
        answer = predictor.predict(file, budget_ms=args.budget_ms, path=args.path, top_k=args.top_k)
        row: dict[str, Any] = {
            "image": str(file),
            "top": [{"class": name, "probability": round(p, 6)} for name, p in answer.top()[0]],
            "path": answer.path,
            "ms": round(answer.ms, 3),
        }
        if args.json:
            print(json.dumps(row | {"runtime": answer.runtime, "budget_ms": args.budget_ms}))
        rows.append(row)
    if not args.json:
        table = [[r["image"], _named(r["top"]), r["path"], f"{r['ms']:.2f}"] for r in rows]
        note = f"{bundle.name} in {predictor.runtime.name}; milliseconds with decoding"
        print_table("Answers", ["image", "classes", "path", "ms"], table, left=3, notes=[note])


def _split(args: argparse.Namespace) -> tuple[Path | None, list[Path]]:
    """The model's folder, if the first place is one, and the places of images."""
    first, *rest = args.places
    if not any((first / name).is_file() for name in ("manifest.json", "config.json")):
        return None, args.places
    if not rest:
        raise ValueError(f"{first} is a model: name images, or folders of them, after it")
    return first, rest


def _named(top: list[dict[str, Any]]) -> str:
    return ", ".join(f"{entry['class']} {entry['probability']:.1%}" for entry in top)
