"""Reads and writes a bundle's ``manifest.json``: every field is checked, and the file has its own checksum.

Unknown fields are ignored. A bundle of one network in float32 is written in format 1. Any other bundle is written in
format 2, in which paths also state their network and precision. Both formats can be read.

docs/bundle.md describes the format.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta

from polypath.core.checks import check, listed, number
from polypath.core.display import as_unicode
from polypath.core.wiring import INPUT
from polypath.deploy.images import Preparation, preparation
from polypath.storage.decode import decode
from polypath.storage.digests import file_digest, json_digest
from polypath.storage.files import read_json
from polypath.storage.layout import CONFIG, WEIGHTS, in_run

NAME, FORMAT, VERSIONS = "manifest.json", "polypath-bundle", (1, 2)
STATISTICS = "statistics.safetensors"
LARGEST = 4 * 2**20  # maximum bytes of a manifest
Name = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Temperature = Annotated[float, Meta(ge=1e-3, le=1e3)]  # exports write 0.05 to 20
_FILE = re.compile(r"[\w=,+-][\w=,+.-]*")  # the name of a file directly in the bundle's folder


@dataclass(frozen=True, kw_only=True)
class Errors:
    """A path's errors in percent, as in :class:`BundlePath`, measured with one kind of processor instructions."""

    error: Percent | None = None
    test_error: Percent | None = None


@dataclass(frozen=True, kw_only=True)
class BundlePath:
    """One path of a bundle.

    Attributes:
        name: name of the path, such as ``column=2``, or ``NETWORK:column=2`` if there are several networks.
        text: the canonical choice on the network's wiring.
        macs, params, depth: multiply-adds for one image of the bundle's size; number of parameters of the path; number
            of layers (shortest, longest).
        error: error on held-out images in percent; None if the path was never scored.
        test_error: error on the test split, which was used for no choice.
        temperature: divisor of the logits before the softmax, so that confidences are calibrated.
        calibration: expected calibration error in percent, ``before`` and ``after`` the temperature was applied, and
            the number of images that the temperature was fitted on.
        statistics: whether the path has recalibrated batch-norm statistics, in ``statistics.safetensors``.
        files: the graph's file by format: ``{"onnx": "column-2.onnx"}``; empty if only torch can run the path.
        network: the name of the path's network; empty if there is only one.
        precision: precision of the graph. Answers in ``f32`` equal those of eager PyTorch within rounding on every
            processor.
        errors: the errors of a path in ``int8``, by the kind of processor instructions with which they were measured
            (:func:`polypath.profiling.instructions.instructions`). Its ``error`` and ``test_error`` are None.
    """

    name: Name
    text: str
    macs: Count
    params: Count
    depth: tuple[Count, Count]
    error: Percent | None = None
    test_error: Percent | None = None
    temperature: Temperature = 1.0
    calibration: Mapping[str, int | float] = field(default_factory=dict)
    statistics: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    precision: Literal["f32", "int8"] = "f32"
    errors: Mapping[Name, Errors] = field(default_factory=dict)

    def errors_with(self, kind: str) -> Errors | None:
        """Return the path's errors with a kind of instructions, or None if they are not known."""
        return (
            Errors(error=self.error, test_error=self.test_error) if self.precision == "f32" else self.errors.get(kind)
        )


@dataclass(frozen=True, kw_only=True)
class Step:
    """The part of a rung's path that the rung runs. It reads values of nodes that earlier rungs have already run.

    Attributes:
        reads: the slots that contain the graph's inputs, in order; ``input`` contains the images.
        leaves: the slots in which the graph's outputs after the logits are stored for later rungs.
        macs: multiply-adds for one image.
        files: the graph's file by format; empty if only torch can run the step.
    """

    reads: Annotated[tuple[Name, ...], Meta(min_length=1)]
    leaves: tuple[Name, ...] = ()
    macs: Count = 0
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the ladder: run ``path``, then average the probabilities of the paths in ``combine``.

    ``combine`` lists paths of this rung and of earlier ones. ``error`` is the error of the average on held-out images.
    With a ``step``, only a part of the path runs; see :class:`Step`.
    """

    path: str
    combine: Annotated[tuple[str, ...], Meta(min_length=1)]
    error: Percent | None = None
    test_error: Percent | None = None
    step: Step | None = None


class FileFacts(TypedDict):
    """A file's digest and length, for detecting damage."""

    sha256: str
    bytes: Count


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """The family of one of several networks in a bundle, and facts about it for readers."""

    family: str
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a bundle's ``manifest.json``.

    Attributes:
        name: name of the bundle.
        family: family of the network; empty if there are several networks.
        networks: the networks by name, if there are several; see :class:`NetworkFacts`.
        classes: class names, in the order of the labels.
        preparation: image size and normalisation.
        paths: the paths, cheapest first.
        ladder: the rungs of the ladder, cheapest first; see :class:`Rung`.
        held_out: the file with confidences on held-out images, from which stopping thresholds are computed, or None.
        latency: measured times. Each row states its runtime, path, batch size, threads and machine.
        checks: the differences between each graph's outputs and eager PyTorch's, measured when the graph was written.
        about: facts for readers: data, seeds, revision, versions.
        files: ``{file: {"sha256", "bytes"}}`` for every other file in the folder.
    """

    name: str = ""
    family: str = ""
    networks: Mapping[Name, NetworkFacts] = field(default_factory=dict)
    classes: Annotated[tuple[str, ...], Meta(min_length=2)]
    preparation: Preparation
    paths: Annotated[tuple[BundlePath, ...], Meta(min_length=1)]
    ladder: tuple[Rung, ...] = ()
    held_out: str | None = None
    latency: tuple[Mapping[str, Any], ...] = ()
    checks: tuple[Mapping[str, Any], ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileFacts] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Manifest({self.name!r}, {self.families}, {len(self.paths)} paths, {len(self.classes)} classes)"

    @property
    def families(self) -> str:
        """The family of the network, or the families of the networks."""
        return ", ".join(dict.fromkeys(facts.family for facts in self.networks.values())) or self.family

    def to_json(self) -> dict[str, Any]:
        prep, version = self.preparation, version_of(self)
        values: dict[str, Any] = {
            "format": FORMAT,
            "format_version": version,
            "name": self.name,
            "family": self.family,
            "networks": {name: asdict(facts) for name, facts in self.networks.items()},
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
        if self.networks:
            del values["family"]
        else:
            del values["networks"]
        if version == 1:
            values["paths"] = [{key: row[key] for key in row if key not in _OF_FORMAT_2} for row in values["paths"]]
        values = json.loads(json.dumps(values))
        return values | {"digest": digest(values)}


_OF_FORMAT_2 = ("network", "precision", "errors")
"""The fields of a path that exist only in format 2."""


def version_of(manifest: Manifest) -> int:
    """Return the format version that a manifest needs: 2 for several networks or precisions other than float32."""
    return 2 if manifest.networks or any(path.precision != "f32" for path in manifest.paths) else 1


def digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's values, without the entry ``digest``."""
    return json_digest({key: value for key, value in values.items() if key != "digest"})


def read(folder: Path) -> tuple[Manifest, str]:
    """Read the manifest in a bundle's folder, and return it with its digest.

    Raises:
        ValueError: the manifest is missing, damaged, of a later version, or has impossible values.
    """
    file = folder / NAME
    if not file.is_file():
        raise ValueError(f"{folder} is not a bundle: {NAME} is missing{in_run(folder)}")
    values = read_json(file, LARGEST)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f'{file} is not the manifest of a bundle: it has no "format": "{FORMAT}"')
    version = values.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int) or version not in VERSIONS:
        raise ValueError(
            f"{file}: format_version = {version!r}: this Polypath reads versions {VERSIONS[0]} to {VERSIONS[-1]}"
        )
    if values.get("digest") != digest(values):
        raise ValueError(f"{file} is damaged: its digest does not match")
    try:
        table = {**values, "preparation": asdict(preparation(values))}
        manifest = decode(table, Manifest, "manifest", others=True)
        check_scale(manifest.preparation)
        if version_of(manifest) != version:
            some = "several networks or a precision other than f32" if version == 2 else "only one network in f32"
            raise ValueError(f"networks: a bundle of format_version {version} must have {some}")
        _check_names(manifest)
        _check_precisions(manifest)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return replace(manifest, classes=tuple(map(as_unicode, manifest.classes))), values["digest"]


def check_scale(preparation: Preparation) -> None:
    """Raise ``ValueError`` if normalised pixels would not be finite numbers of usual size."""
    for mean, std in zip(preparation.mean, preparation.std, strict=True):
        check("normalisation.mean", mean, number(-1e3, 1e3))
        check("normalisation.std", std, number(1e-6, 1e6))


def folder_of(network: str) -> str:
    """Return the prefix of a network's file names. It is empty if there is only one network."""
    return f"{network}/" if network else ""


def _check_names(manifest: Manifest) -> None:
    """Raise ``ValueError`` if names in a manifest are repeated, or refer to something that does not exist."""
    names = Counter(path.name for path in manifest.paths)
    for name, times in names.items():
        if times > 1:
            raise ValueError(f"paths: two paths have the name {name!r}")
        if as_unicode(name) != name:
            raise ValueError(f"paths: the name {name!r} is not valid text")
    _check_networks(manifest)
    ran: set[str] = set()
    left = {INPUT}
    for rung in manifest.ladder:
        if unknown := [name for name in (rung.path, *rung.combine) if name not in names]:
            raise ValueError(f"ladder: there is no path {unknown[0]!r}; the paths are {listed(names)}")
        ran.add(rung.path)
        if not ran.issuperset(rung.combine):
            raise ValueError(f"ladder: combine = {rung.combine!r} contains paths that have not run before")
        if rung.step is not None:
            if lost := [slot for slot in rung.step.reads if slot not in left]:
                raise ValueError(f"ladder: the step of {rung.path!r} reads {lost[0]!r}, which no earlier step leaves")
            if twice := [slot for slot in rung.step.leaves if slot in left]:
                raise ValueError(f"ladder: the step of {rung.path!r} leaves {twice[0]!r}, which already exists")
            left.update(rung.step.leaves)
    _check_named_files(manifest)


def _check_precisions(manifest: Manifest) -> None:
    """Check that int8 paths state errors by kind of instructions, have a graph, and have no step in the ladder."""
    int8 = {path.name: path for path in manifest.paths if path.precision != "f32"}
    for path in int8.values():
        if path.error is not None or path.test_error is not None:
            raise ValueError(f"paths: {path.name!r} in {path.precision} must state its errors by kind of instructions")
        if "onnx" not in path.files:
            raise ValueError(f"paths: {path.name!r} in {path.precision} has no ONNX graph")
    if steps := [rung for rung in manifest.ladder if rung.path in int8 and rung.step is not None]:
        raise ValueError(f"ladder: the rung of {steps[0].path!r} in {int8[steps[0].path].precision} cannot have a step")


def _check_networks(manifest: Manifest) -> None:
    """Check that each path's network exists, and that each network has a folder, files and a path."""
    known = manifest.networks or {"": None}
    if unknown := [path for path in manifest.paths if path.network not in known]:
        raise ValueError(
            f"paths: {unknown[0].name!r} is of network {unknown[0].network!r}: must be one of {listed(known)}"
        )
    for name in manifest.networks:
        if not _FILE.fullmatch(name) or name in manifest.files:
            raise ValueError(f"networks: {name!r} cannot be the name of a folder")
        if lost := [file for file in (CONFIG, WEIGHTS) if folder_of(name) + file not in manifest.files]:
            raise ValueError(f"networks: {name!r} has no file {lost[0]}")
        if all(path.network != name for path in manifest.paths):
            raise ValueError(f"networks: {name!r} has no path")


def _check_named_files(manifest: Manifest) -> None:
    """Check that the files of paths and steps have checksums, and are in the folder of the path's network."""
    check_files(_within(name, manifest.networks) for name in manifest.files)
    named = [(path.network, name) for path in manifest.paths for name in path.files.values()]
    network_of = {path.name: path.network for path in manifest.paths}
    steps = [(network_of[rung.path], rung.step) for rung in manifest.ladder if rung.step is not None]
    named += [(network, name) for network, step in steps for name in step.files.values()]
    named += [(path.network, folder_of(path.network) + STATISTICS) for path in manifest.paths if path.statistics]
    if strange := [name for network, name in named if not name.startswith(folder_of(network))]:
        raise ValueError(f"files: {strange[0]!r} is used by a path of another network")
    every = [name for _, name in named] + ([manifest.held_out] if manifest.held_out is not None else [])
    if lost := [name for name in every if name not in manifest.files]:
        raise ValueError(f"files: {lost[0]!r} is used, but has no checksum")


def _within(name: str, networks: Collection[str]) -> str:
    """Return a file's name within its network's folder."""
    network, _, rest = name.partition("/")
    return rest if network in networks else name


def check_files(names: Iterable[str]) -> None:
    """Raise ``ValueError`` unless all names are plain file names, without a folder."""
    if bad := [name for name in names if not _FILE.fullmatch(name)]:
        raise ValueError(f"files: {bad[0]!r} is not a plain file name")


def check_file(file: Path, facts: FileFacts, verify: bool = True) -> None:
    """Raise ``ValueError`` if a file is missing or damaged. With ``verify``, compare the digest, too."""
    try:
        if not file.is_file():
            raise ValueError(f"{file.parent}: {file.name} is missing")
        if file.stat().st_size != facts["bytes"]:
            raise ValueError(f"{file} is damaged: it has {file.stat().st_size:,} bytes, not {facts['bytes']:,}")
        if verify and file_digest(file) != facts["sha256"]:
            raise ValueError(f"{file} is damaged: its checksum does not match")
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror or error}") from error
