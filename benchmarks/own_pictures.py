"""Measures training with one command that has no option except a folder of pictures. There are three folders of
generated pictures, each with three seeds.

    python -m benchmarks own_pictures [--seeds 3] [--scale 1.0] [--out runs/own_pictures] [--only shapes]

``shapes`` has 600 pictures of four classes, in the file formats of cameras and drawing programs. ``few`` has 100
pictures of ten classes, and 1,000 test pictures. ``uneven`` has 3,000 pictures of two classes; one class has twenty
times as many as the other. The command resumes stopped runs and reads finished runs. The result contains all finished
runs.
"""

from __future__ import annotations

import argparse
import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image, ImageDraw, ImageFilter

from benchmarks.harness import show
from polypath.core.checks import check, number, whole
from polypath.training import loop
from polypath.training.recipe import replace
from polypath.training.recipes import get_recipe
from polypath.training.result import RunResult
from polypath.training.run import RunFolder

Point = tuple[float, float]


# --- drawing -----------------------------------------------------------------------------------------------------


def corners(n: int, inner: float = 1.0) -> list[Point]:
    """Return the corners of a regular polygon around the origin. With ``inner``, return a star whose notches have this
    radius."""
    radii = [1.0] if inner == 1.0 else [1.0, inner]
    turns = n * len(radii)
    angles = [2 * math.pi * i / turns for i in range(turns)]
    return [
        (radii[i % len(radii)] * math.sin(angle), -radii[i % len(radii)] * math.cos(angle))
        for i, angle in enumerate(angles)
    ]


CROSS = [(0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1)]
SHAPES: Mapping[str, Sequence[Point]] = {
    "circle": corners(48),
    "square": corners(4),
    "star": corners(5, 0.4),
    "triangle": corners(3),
    "cross": [*CROSS, *((-x, y) for x, y in reversed(CROSS))],
    "hexagon": corners(6),
    "bar": [(-1, -0.22), (1, -0.22), (1, 0.22), (-1, 0.22)],
    "moon": [*corners(48)[:25], *((x * 0.35, y) for x, y in reversed(corners(48)[:25]))],
    "arrow": [(-1, -0.2), (0.2, -0.2), (0.2, -0.6), (1, 0), (0.2, 0.6), (0.2, 0.2), (-1, 0.2)],
    "burst": corners(12, 0.6),
}
"""Outlines within the circle of radius 1."""
SIZES = ((640, 480), (480, 640), (800, 600), (512, 512), (320, 240), (1024, 768))


def drawn(shape: str, draw: random.Random) -> Image.Image:
    """Draw a picture of the shape with random place, size, rotation and colours, on a background of mixed colours."""
    width, height = draw.choice(SIZES)
    base = [draw.randrange(256) for _ in range(3)]
    ink = next(c for c in iter(lambda: [draw.randrange(256) for _ in range(3)], None) if _differ(c, base))
    small = Image.new("RGB", (8, 6))
    small.putdata([_near(base, draw) for _ in range(48)])
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    radius = min(width, height) * draw.uniform(0.22, 0.42)
    x, y = (draw.uniform(radius, side - radius) for side in (width, height))
    turn, canvas = draw.uniform(-0.5, 0.5), ImageDraw.Draw(image)
    sine, cosine = math.sin(turn), math.cos(turn)
    outline = [
        (x + radius * (px * cosine - py * sine), y + radius * (px * sine + py * cosine)) for px, py in SHAPES[shape]
    ]
    canvas.polygon(outline, fill=tuple(ink))
    for _ in range(draw.randrange(4)):  # random spots
        dx, dy, r = draw.uniform(0, width), draw.uniform(0, height), draw.uniform(1, 0.03 * height)
        canvas.ellipse((dx - r, dy - r, dx + r, dy + r), fill=tuple(_near(ink, draw)))
    return image.filter(ImageFilter.GaussianBlur(draw.uniform(0, 2)))


def _near(colour: Sequence[int], draw: random.Random) -> tuple[int, ...]:
    return tuple(min(255, max(0, c + draw.randrange(-40, 41))) for c in colour)


def _differ(a: Sequence[int], b: Sequence[int]) -> bool:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) > 150


def save(image: Image.Image, path: Path, draw: random.Random) -> None:
    """Write a picture as a camera or a drawing program does: as JPEG, PNG, WEBP or BMP, in colours, in grey, with a
    palette or with transparency."""
    kind = draw.choice(("jpg", "jpg", "jpg", "png", "png", "webp", "bmp"))
    mode = draw.choice({"jpg": ("RGB", "RGB", "L"), "png": ("RGB", "RGBA", "P", "L")}.get(kind, ("RGB",)))
    out = io.BytesIO()
    converted = image.convert(mode)
    if mode == "RGBA":
        converted.putalpha(draw.choice((255, 255, 230)))
    converted.save(out, {"jpg": "JPEG"}.get(kind, kind.upper()))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(f".{kind}").write_bytes(out.getvalue())


def write(root: Path, counts: Mapping[str, int], seed: int) -> None:
    """Draw the given number of pictures of each class, into one folder per class."""
    for name, count in counts.items():
        draw = random.Random(f"{seed}/{root.name}/{name}")
        for i in range(count):
            save(drawn(name, draw), root / name / f"{i:04}", draw)


# --- the folders -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """A folder of pictures. ``splits`` has the number of pictures of each class in each split. ``chance`` is the error
    of random guessing in percent."""

    splits: Mapping[str, Mapping[str, int]]
    chance: float
    balanced: bool = False


def folders(scale: float) -> dict[str, Folder]:
    def n(count: int) -> int:
        return max(4, round(scale * count))

    four, ten, two = list(SHAPES)[:4], list(SHAPES), list(SHAPES)[:2]
    few = {"train": dict.fromkeys(ten, n(10)), "test": dict.fromkeys(ten, n(100))}
    return {
        "shapes": Folder({"": dict.fromkeys(four, n(150))}, 75.0),
        "few": Folder(few, 90.0),
        "uneven": Folder({"": {two[0]: n(2857), two[1]: n(143)}}, 50.0, balanced=True),
    }


def made(root: Path, folder: Folder, seed: int) -> Path:
    """Return the folder of pictures. Draw the pictures first if it does not exist."""
    if not root.exists():
        part = root.with_name(f"{root.name}.part")
        for split, counts in folder.splits.items():
            write(part / split if split else part, counts, seed)
        part.rename(root)
    return root


# --- what comes of them -----------------------------------------------------------------------------------------------


def run(options: Sequence[str]) -> dict[str, Any]:
    """Train ``my-images`` on each folder with each seed. The aim is an error of at most a third of that of guessing."""
    parser = argparse.ArgumentParser("python -m benchmarks own_pictures")
    parser.add_argument("--seeds", type=int, default=3, help="number N of seeds, 0 to N-1, for runs and pictures (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the pictures to draw (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/own_pictures"), help="folder of pictures and runs")
    parser.add_argument(
        "--only", choices=list(folders(1.0)), action="append", help="use only this folder; may be repeated"
    )
    args = parser.parse_args(options)
    check("seeds", args.seeds, whole(1))
    check("scale", args.scale, number(above=0, high=1))
    rows = []
    for name, folder in folders(args.scale).items():
        asked = not args.only or name in args.only
        seeds = [seed for seed in range(args.seeds) if asked or _whole(args.out / f"{name}-{seed}")]
        rows += [_row(name, folder, seed, args.out) for seed in seeds]
    columns = {"folder": "", "seed": "", "error": ".1f", "aim": ".1f", "size": "", "epochs": "", "seconds": ".0f"}
    show("my-images on drawn folders: error, %; the mean of the classes' for uneven", rows, columns)
    means = _means(rows)
    show("Means over seeds", means, {"folder": "", "seeds": "", "error": ".1f", "aim": ".1f", "seconds": ".0f"})
    return {"scale": args.scale, "seeds": args.seeds, "rows": rows, "means": means}


def _whole(run: Path) -> bool:
    return run.is_dir() and RunFolder.open(run).finished


def _means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return error, aim and seconds of each folder, averaged over the seeds."""
    found = []
    for name in dict.fromkeys(row["folder"] for row in rows):
        own = [row for row in rows if row["folder"] == name]
        means = {key: fmean(row[key] for row in own) for key in ("error", "aim", "seconds")}
        found.append({"folder": name, "seeds": len(own), **means})
    return found


def _row(name: str, folder: Folder, seed: int, out: Path) -> dict[str, Any]:
    pictures = made(out / f"{name}-{seed}-pictures", folder, seed)
    found, run = _trained(pictures, out / f"{name}-{seed}", seed)
    recipe = run.recipe
    error = found.balanced_error if folder.balanced else found.test_error
    return {
        "folder": name,
        "seed": seed,
        "error": error,
        "aim": folder.chance / 3,
        "test_error": found.test_error,
        "test_images": found.test_images,
        "size": recipe.data.size,
        "epochs": recipe.epochs,
        "trained_epochs": len(run.metrics()),
        "epoch": found.epoch,
        "seconds": found.seconds,
        "pflop": found.pflop,
    }


def _trained(pictures: Path, out: Path, seed: int) -> tuple[RunResult, RunFolder]:
    if out.exists():
        result = loop.resume(out)
    else:
        result = loop.train(replace(get_recipe("my-images"), {"data.source": str(pictures), "seed": seed}), out)
    return result, RunFolder.open(out)
