"""Bundles: static graphs, one for each path of a network, in a read-only folder.

config.json, model.safetensors, README.md    the network, as :mod:`polypath.storage.saving` writes it
statistics.safetensors                       each path's recalibrated norms
NAME.onnx                                    a path's graph; its weights are in the two files above
step-N.onnx                                  the part of the path of the ladder's step N that earlier steps did not run
held_out.safetensors                         answers to held-out images, for stopping by confidence
manifest.json                                accuracy, calibration, costs, times, checksums

If there are several networks, each has a folder of that name with its config, weights, norms and graphs.

docs/bundle.md describes the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.core.checks import listed
from polypath.core.display import as_unicode, html_table, short_macs
from polypath.deploy import manifest as manifests
from polypath.deploy.graphs import Graphs
from polypath.deploy.images import Preparation, preparation
from polypath.deploy.manifest import STATISTICS, BundlePath, Manifest, Rung, folder_of
from polypath.deploy.network import StoredNetwork
from polypath.profiling.instructions import instructions
from polypath.storage.digests import file_digest
from polypath.storage.shipped import SHIPPED

if TYPE_CHECKING:
    from polypath.core.batchnorm import BatchNormStatistics
    from polypath.core.network import PathNet
    from polypath.core.wiring import Wiring


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle that has been checked. Make one with :meth:`open`.

    Attributes:
        folder: its folder.
        manifest: its manifest.
        digest: identifies the bundle; the key of measured times.
        network: a network in memory, used instead of the folder's.
    """

    folder: Path
    manifest: Manifest
    digest: str
    network: PathNet | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Bundle:
        """The bundle in ``folder``; None is the pretrained one of this package.

        The folder of a saved network works too: its named paths are then the bundle's, run by torch.

        Args:
            verify: compare every file with its checksum.

        Raises:
            ValueError: not a bundle, a damaged or missing file, a later version of the format.
        """
        place = Path(folder) if folder is not None else SHIPPED
        if not place.is_dir():
            raise ValueError(f"{place}: no such folder")
        if not (place / manifests.NAME).is_file() and (place / "config.json").is_file():
            return cls.of_network(place)
        manifest, digest = manifests.read(place)
        for name, facts in manifest.files.items():
            manifests.check_file(place / name, facts, verify)
        return cls(place, manifest, digest)

    @classmethod
    def of_network(cls, folder: str | os.PathLike[str]) -> Bundle:
        """A saved network as a bundle of its named paths, which only the torch runtimes can run.

        Errors are those in the network's table of paths, if it has one.

        Raises:
            ValueError: not a saved network, or one that does not say how its images are prepared.
        """
        from polypath.profiling.cost import costs
        from polypath.storage.loading import load

        place = Path(folder)
        net = load(place)
        config = net.config
        if not config.get("normalisation") or not config.get("image"):
            raise ValueError(
                f"{place}: this network does not say the size and normalisation of its images; save it with "
                "image_size, mean and std"
            )
        prep = preparation(config)
        manifests.check_scale(prep)
        known = _errors(place)
        named = net.named_paths()
        counted = costs(net, named, size=prep.size)
        paths = [
            BundlePath(
                name=name,
                text=str(choice),
                macs=counted[name].macs,
                params=counted[name].params,
                depth=counted[name].depth,
                error=known.get(name),
            )
            for name, choice in named.items()
        ]
        paths.sort(key=lambda path: path.macs)
        classes = tuple(map(as_unicode, net.class_names))
        manifest = Manifest(
            name=place.name,
            family=str(config.get("family", "")),
            classes=classes,
            preparation=prep,
            paths=tuple(paths),
        )
        return cls(place, manifest, file_digest(place / "model.safetensors"), net)

    def __repr__(self) -> str:
        return (
            f"Bundle({self.name!r}, {self.manifest.families}, {len(self.paths)} paths, {len(self.classes)} classes, "
            f"{str(self.folder)!r})"
        )

    def _repr_html_(self) -> str:
        rows = []
        for path in self.paths:
            known = path.errors_with(instructions())
            errors = (known.error, known.test_error) if known is not None else (None, None)
            rows.append((path.name, *map(_percent, errors), short_macs(path.macs), f"{path.params:,}"))
        height, width = self.size
        about = f"Bundle {self.name}: {self.manifest.families}, {len(self.classes)} classes, {height}×{width} pixels"
        return html_table(about, ["path", "error, held out", "error, test", "MACs", "parameters"], rows)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def paths(self) -> tuple[BundlePath, ...]:
        """The cheapest first."""
        return self.manifest.paths

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """Steps of better and better answers; a bundle without its own gets its paths, one after another."""
        return self.manifest.ladder or by_turns(self.paths)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        return self.manifest.preparation.size

    @property
    def preparation(self) -> Preparation:
        return self.manifest.preparation

    @property
    def normalisation(self) -> dict[str, tuple[float, ...]]:
        """``mean`` and ``std`` per channel, of pixels in 0 … 1."""
        return {"mean": self.preparation.mean, "std": self.preparation.std}

    @property
    def formats(self) -> frozenset[str]:
        """The graph formats that every path has."""
        return frozenset.intersection(*(frozenset(path.files) for path in self.paths))

    def path(self, name: str) -> BundlePath:
        """The path of this name (or canonical text, if only one network has it).

        Raises:
            ValueError: there is none, or there are several; the message lists the names.
        """
        own = [path for path in self.paths if name == path.name]
        texts = [path for path in self.paths if name == path.text]
        if found := own or [path for path in texts if path.precision == "f32"] or texts:
            if len(found) == 1:
                return found[0]
            raise ValueError(f"path {name!r}: in several networks; name one of {listed([p.name for p in found])}")
        raise ValueError(f"path {name!r}: not in this bundle; there are {listed([p.name for p in self.paths])}")

    @cached_property
    def graphs(self) -> Graphs:
        """Its ONNX files, each checked once, however many runtimes read it."""
        return Graphs(self.folder, self.manifest)

    @cached_property
    def networks(self) -> Mapping[str, StoredNetwork]:
        """The networks by name; a single one has the name ``""``."""
        return {
            name: StoredNetwork(
                self.folder / name if name else self.folder,
                len(self.classes),
                folder_of(name) + STATISTICS in self.manifest.files,
                None if name else self.network,
            )
            for name in self.manifest.networks or ("",)
        }

    @property
    def _only(self) -> StoredNetwork:
        if len(self.networks) > 1:
            raise ValueError(f"{self.folder}: has several networks; take one of networks: {listed(self.networks)}")
        return next(iter(self.networks.values()))

    @property
    def net(self) -> PathNet:
        """The network, in evaluation mode, on the CPU.

        Raises:
            ValueError: it is damaged, or there are several; see :attr:`networks`.
        """
        return self._only.net

    @property
    def statistics(self) -> BatchNormStatistics | None:
        """The paths' recalibrated statistics, if there are any; of the only network, as :attr:`net`."""
        return self._only.statistics

    @property
    def wiring(self) -> Wiring:
        """The only network's diagram."""
        return self.net.wiring

    def extracted(self, name: str) -> PathNet:
        """A path as a standalone network, with its recalibrated norms."""
        from polypath.core.extract import extract

        path = self.path(name)
        own = self.networks[path.network]
        return extract(own.net, own.net.paths(path.text), stats=own.statistics if path.statistics else None)

    def with_paths(self, names: list[str]) -> Bundle:
        """The same bundle with some of its paths only. If that shortens the ladder, the held-out answers are dropped,
        since they no longer match."""
        kept = [self.path(name).name for name in names]
        paths = tuple(path for path in self.paths if path.name in kept)
        ladder = tuple(rung for rung in self.manifest.ladder if set(rung.combine) <= set(kept) and rung.path in kept)
        held_out = self.manifest.held_out
        if len(ladder) < len(self.manifest.ladder):  # a remaining step may read values of a removed one
            ladder, held_out = tuple(replace(rung, step=None) for rung in ladder), None
        return replace(self, manifest=replace(self.manifest, paths=paths, ladder=ladder, held_out=held_out))


def rank(paths: tuple[BundlePath, ...]) -> list[BundlePath]:
    """The most accurate first, by held-out error; then paths that were never scored, the most MACs first."""
    return sorted(paths, key=lambda p: (p.error is None, p.error if p.error is not None else -p.macs, p.macs))


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{error:.2f}%"


def by_turns(paths: Sequence[BundlePath]) -> tuple[Rung, ...]:
    """A ladder of single paths: those that are more accurate than every cheaper one."""
    kept: list[BundlePath] = []
    for path in paths:
        if not kept or path.error is None or kept[-1].error is None or path.error < kept[-1].error:
            kept.append(path)
    return tuple(Rung(path=path.name, combine=(path.name,), error=path.error) for path in kept)


def _errors(folder: Path) -> dict[str, float]:
    """Errors by path name from the table in a saved network's config."""
    from polypath.storage.config import read_config

    rows = read_config(folder).get("path_table") or []
    found = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            error = row.get("error")
            if isinstance(error, int | float):
                found[row["name"]] = float(error)
    return found
