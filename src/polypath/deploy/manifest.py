"""``manifest.json`` of a bundle as values: read with every field checked, written with its own checksum.

docs/bundle.md describes the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polypath.deploy.images import Preparation, preparation

NAME, FORMAT, VERSION = "manifest.json", "polypath-bundle", 1
LARGEST = 4 * 2**20  # bytes of a manifest; more is no manifest
_FILE = re.compile(r"[\w=,+-][\w=,+.-]*")  # within the bundle's folder, by its own name


@dataclass(frozen=True, kw_only=True)
class BundlePath:
    """One path of a bundle.

    Attributes:
        name: how it is asked for, ``column=2``.
        text: the canonical choice on the network's wiring.
        macs, params, depth: of one image of the bundle's size; its own parameters; layers (shortest, longest).
        error: on held-out images, in percent; None where it was never scored.
        test_error: on the test split, which nothing was chosen by.
        temperature: what logits are divided by before the softmax, so that confidences are true.
        calibration: expected calibration error in percent, ``before`` and ``after``, and how many images it was
            fitted on.
        statistics: whether its norms were re-estimated (their values are the bundle's ``statistics.safetensors``).
        files: the graph by runtime format: ``{"onnx": "column-2.onnx"}``; none where only torch can run it.
    """

    name: str
    text: str
    macs: int
    params: int
    depth: tuple[int, int]
    error: float | None = None
    test_error: float | None = None
    temperature: float = 1.0
    calibration: Mapping[str, float] = field(default_factory=dict)
    statistics: bool = False
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of better and better answers: run ``path``, then average the probabilities of ``combine``.

    ``combine`` names paths of this rung and earlier ones; ``error`` is that of the average on held-out images.
    """

    path: str
    combine: tuple[str, ...]
    error: float | None = None
    test_error: float | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        name: of the bundle.
        family: of the network.
        classes: names by label.
        preparation: image size and normalisation.
        paths: the cheapest first.
        ladder: see :class:`Rung`; the cheapest first.
        held_out: the file with held-out confidences, which stopping is fitted on, or None.
        latency: rows of measured times, by runtime, path, batch size and threads; of the machine that they name.
        checks: how far each graph was from eager when it was written.
        about: facts for readers: data, seeds, revision, versions.
        files: ``{file: {"sha256", "bytes"}}`` of everything else in the folder.
    """

    name: str
    family: str
    classes: tuple[str, ...]
    preparation: Preparation
    paths: tuple[BundlePath, ...]
    ladder: tuple[Rung, ...] = ()
    held_out: str | None = None
    latency: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        prep = self.preparation
        values: dict[str, Any] = {
            "format": FORMAT,
            "format_version": VERSION,
            "name": self.name,
            "family": self.family,
            "classes": list(self.classes),
            "image": {"size": list(prep.size), "resize": prep.resize, "to": prep.resize_to},
            "normalisation": {"mean": list(prep.mean), "std": list(prep.std)},
            "paths": [asdict(path) for path in self.paths],
            "ladder": [asdict(rung) for rung in self.ladder],
            "held_out": self.held_out,
            "latency": [dict(row) for row in self.latency],
            "checks": [dict(row) for row in self.checks],
            "about": dict(self.about),
            "files": {name: dict(facts) for name, facts in self.files.items()},
        }
        values = json.loads(json.dumps(values))
        return values | {"digest": digest(values)}


def digest(values: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's values without their own ``digest``."""
    plain = {key: value for key, value in values.items() if key != "digest"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle's folder, and its digest.

    Raises:
        ValueError: none there, damaged, of a later version, or with values that cannot be.
    """
    file = folder / NAME
    if not file.is_file():
        raise ValueError(f"{folder}: no bundle, {NAME} is missing")
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: damaged, or no JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f'{file}: no manifest of a bundle (it has no "format": "{FORMAT}")')
    version = values.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(f"{file}: format_version {version!r}; this polypath reads 1 to {VERSION}")
    if values.get("digest") != digest(values):
        raise ValueError(f"{file}: damaged, its digest is another")
    try:
        return _manifest(values), values["digest"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file}: {error}") from error


def _manifest(values: Mapping[str, Any]) -> Manifest:
    paths = tuple(_path(row) for row in _list(values, "paths"))
    names = [path.name for path in paths]
    if not names or len(set(names)) < len(names):
        raise ValueError("paths: there must be some, each name once")
    ladder = tuple(
        Rung(
            path=_known(row["path"], names),
            combine=tuple(_known(name, names) for name in _list(row, "combine")),
            error=_percent(row.get("error")),
            test_error=_percent(row.get("test_error")),
        )
        for row in _list(values, "ladder")
    )
    ran: set[str] = set()
    for rung in ladder:
        ran.add(rung.path)
        if not rung.combine or not ran.issuperset(rung.combine):
            raise ValueError(f"ladder: {rung.combine!r} names paths that have not run by then")
    classes = tuple(_list(values, "classes"))
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: must be two names or more")
    files = values.get("files") or {}
    if bad := [name for name in files if not _FILE.fullmatch(name)]:
        raise ValueError(f"files: {bad[0]!r} is no plain file name")
    named = [name for path in paths for name in path.files.values()] + (
        [values["held_out"]] if values.get("held_out") else []
    )
    if lost := [name for name in named if name not in files]:
        raise ValueError(f"files: {lost[0]!r} is named, and has no checksum")
    return Manifest(
        name=str(values.get("name", "")),
        family=str(values.get("family", "")),
        classes=classes,
        preparation=preparation(values),
        paths=paths,
        ladder=ladder,
        held_out=values.get("held_out"),
        latency=tuple(_list(values, "latency")),
        checks=tuple(_list(values, "checks")),
        about=dict(values.get("about") or {}),
        files=files,
    )


def _path(row: Mapping[str, Any]) -> BundlePath:
    name, text, files = row["name"], row["text"], dict(row.get("files") or {})
    if not isinstance(name, str) or not name or not isinstance(text, str):
        raise ValueError(f"paths: name {name!r} and text {text!r} must be texts")
    temperature = row.get("temperature", 1.0)
    if not _number(temperature) or temperature <= 0:
        raise ValueError(f"path {name!r}: temperature {temperature!r} must be above 0")
    depth = tuple(row["depth"])
    if not all(isinstance(n, int) and n >= 0 for n in (row["macs"], row["params"], *depth)) or len(depth) != 2:
        raise ValueError(f"path {name!r}: macs, params and depth must be counts")
    return BundlePath(
        name=name,
        text=text,
        macs=row["macs"],
        params=row["params"],
        depth=(depth[0], depth[1]),
        error=_percent(row.get("error")),
        test_error=_percent(row.get("test_error")),
        temperature=float(temperature),
        calibration=dict(row.get("calibration") or {}),
        statistics=bool(row.get("statistics")),
        files=files,
    )


def _list(values: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = values.get(key, [])
    if not isinstance(found, list):
        raise ValueError(f"{key}: must be a list")
    return found


def _known(name: Any, names: Sequence[str]) -> str:
    if name not in names:
        raise ValueError(f"ladder: no path {name!r}; there are {', '.join(names)}")
    return name


def _percent(value: Any) -> float | None:
    if value is None:
        return None
    if not _number(value) or not 0 <= value <= 100:
        raise ValueError(f"error {value!r}: must be a percentage")
    return float(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
