"""Makes example images when they are needed: scikit-learn's digits, or small drawings. No image files are shipped."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from polypath.explore.subject import Subject

SIDE = 256


def example_files(subject: Subject, folder: Path, most: int = 6) -> list[Path]:
    """Write example images for ``subject`` into ``folder``: digits for networks with one channel, else drawings."""
    pictures = digits(most) if subject.channels == 1 else drawings()
    files = []
    for name, picture in list(pictures.items())[:most]:
        files.append(folder / f"{name}.png")
        picture.save(files[-1])
    return files


def digits(most: int) -> dict[str, Image.Image]:
    """Return the first test image of each of scikit-learn's digits, up to ``most`` images."""
    from polypath.data.digits import Digits

    table = Digits().open("test", None, None)
    rows = {label: table.labels.index(label) for label in sorted(set(table.labels))[:most]}
    return {f"digit-{label}": Image.fromarray(table.pixels[row]) for label, row in rows.items()}


def drawings() -> dict[str, Image.Image]:
    """Draw a ship, an airplane, an automobile, a bird, a frog and a cat with simple shapes."""
    makers = {"ship": _ship, "airplane": _airplane, "automobile": _automobile, "bird": _bird, "frog": _frog}
    found = {}
    for name, make in {**makers, "cat": _cat}.items():
        image = Image.new("RGB", (4 * SIDE, 4 * SIDE))  # drawn large, then smoothed
        make(ImageDraw.Draw(image), 4 * SIDE)
        found[name] = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return found


def _fill(draw: ImageDraw.ImageDraw, s: int, upper: str, lower: str, horizon: float) -> None:
    draw.rectangle((0, 0, s, s), fill=upper)
    draw.rectangle((0, horizon * s, s, s), fill=lower)


def _shape(draw: ImageDraw.ImageDraw, s: int, fill: str, *points: float) -> None:
    draw.polygon([(x * s, y * s) for x, y in zip(points[::2], points[1::2], strict=True)], fill=fill)


def _disc(draw: ImageDraw.ImageDraw, s: int, fill: str, x: float, y: float, rx: float, ry: float | None = None) -> None:
    ry = rx if ry is None else ry
    draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=fill)


def _ship(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#a9c9e8", "#2c5a86", 0.62)
    _shape(draw, s, "#8c2b22", 0.08, 0.55, 0.92, 0.55, 0.8, 0.75, 0.18, 0.75)
    _shape(draw, s, "#f2f2ee", 0.22, 0.55, 0.22, 0.42, 0.72, 0.42, 0.72, 0.55)
    _shape(draw, s, "#e8e8e4", 0.32, 0.42, 0.32, 0.32, 0.6, 0.32, 0.6, 0.42)
    _shape(draw, s, "#30343a", 0.42, 0.32, 0.42, 0.18, 0.52, 0.18, 0.52, 0.32)


def _airplane(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#7fb2e6", "#9cc4ec", 0.6)
    _disc(draw, s, "#eef1f4", 0.5, 0.5, 0.4, 0.065)
    _shape(draw, s, "#d3d8de", 0.42, 0.5, 0.56, 0.5, 0.36, 0.82, 0.28, 0.82)
    _shape(draw, s, "#c4cad1", 0.44, 0.47, 0.55, 0.47, 0.42, 0.24, 0.36, 0.24)
    _shape(draw, s, "#c23b32", 0.12, 0.49, 0.22, 0.47, 0.13, 0.3, 0.06, 0.3)
    _disc(draw, s, "#4a5a6a", 0.83, 0.48, 0.03, 0.02)


def _automobile(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#c8d3da", "#777c80", 0.66)
    _shape(
        draw, s, "#b3201d", 0.06, 0.7, 0.06, 0.52, 0.26, 0.48, 0.36, 0.32, 0.68, 0.32, 0.8, 0.5, 0.94, 0.54, 0.94, 0.7
    )
    _shape(draw, s, "#bcd6e4", 0.31, 0.48, 0.385, 0.36, 0.5, 0.36, 0.5, 0.48)
    _shape(draw, s, "#bcd6e4", 0.53, 0.48, 0.53, 0.36, 0.655, 0.36, 0.73, 0.48)
    for x in (0.25, 0.76):
        _disc(draw, s, "#17181a", x, 0.71, 0.095)
        _disc(draw, s, "#b9bdc2", x, 0.71, 0.045)


def _bird(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#b7cfa0", "#9bb884", 0.6)
    draw.line((0, 0.78 * s, s, 0.72 * s), fill="#5d4632", width=s // 24)
    _shape(draw, s, "#3e4f66", 0.34, 0.5, 0.08, 0.76, 0.18, 0.8, 0.42, 0.64)
    _disc(draw, s, "#4f6687", 0.48, 0.52, 0.2, 0.17)
    _disc(draw, s, "#d98b4a", 0.55, 0.58, 0.13, 0.11)
    _disc(draw, s, "#4f6687", 0.65, 0.34, 0.12)
    _shape(draw, s, "#2a2a2a", 0.75, 0.31, 0.88, 0.36, 0.75, 0.39)
    _disc(draw, s, "#101010", 0.69, 0.32, 0.02)


def _frog(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#6b5a3c", "#57482f", 0.5)
    _disc(draw, s, "#4f8a2d", 0.5, 0.6, 0.32, 0.22)
    for x in (0.22, 0.78):
        _disc(draw, s, "#437626", x, 0.74, 0.13, 0.1)
    _disc(draw, s, "#5b9a35", 0.5, 0.42, 0.22, 0.15)
    for x in (0.37, 0.63):
        _disc(draw, s, "#6fae45", x, 0.3, 0.075)
        _disc(draw, s, "#f0e6a8", x, 0.29, 0.045)
        _disc(draw, s, "#111111", x, 0.29, 0.022, 0.03)


def _cat(draw: ImageDraw.ImageDraw, s: int) -> None:
    _fill(draw, s, "#d8c9b4", "#b39a7c", 0.7)
    _disc(draw, s, "#7d7468", 0.5, 0.88, 0.3, 0.3)
    _shape(draw, s, "#7d7468", 0.24, 0.4, 0.25, 0.1, 0.45, 0.26)
    _shape(draw, s, "#7d7468", 0.76, 0.4, 0.75, 0.1, 0.55, 0.26)
    _disc(draw, s, "#8b8275", 0.5, 0.44, 0.28, 0.25)
    for x in (0.39, 0.61):
        _disc(draw, s, "#d9d36a", x, 0.4, 0.055, 0.045)
        _disc(draw, s, "#111111", x, 0.4, 0.016, 0.042)
    _disc(draw, s, "#efe6da", 0.5, 0.56, 0.11, 0.08)
    _shape(draw, s, "#c58a84", 0.465, 0.51, 0.535, 0.51, 0.5, 0.55)
