"""Reads bundles. A bundle is a read-only folder with a static graph for each path of a network.

config.json, model.safetensors, README.md    the network, written by :mod:`polypath.storage.saving`
statistics.safetensors                       each path's recalibrated batch-norm statistics
NAME.onnx                                    a path's graph; its weights are in the two safetensors files above
step-N.onnx                                  graph of the ladder's step N: the part of its path not run by earlier steps
held_out.safetensors                         answers to held-out images, for stopping by confidence
manifest.json                                accuracy, calibration, costs, times, checksums

If there are several networks, the config, weights, statistics and graphs of each are in a folder named after it.

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
        folder: the bundle's folder.
        manifest: the contents of ``manifest.json``.
        digest: the bundle's digest, under which measured times are stored.
        network: a network in memory that is used instead of the one in the folder.
    """

    folder: Path
    manifest: Manifest
    digest: str
    network: PathNet | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Bundle:
        """Open and check the bundle in ``folder``. None means the pretrained bundle of this package.

        The folder of a saved network works too. The bundle then has the network's named paths, and torch runs them.

        Args:
            verify: whether to compare every file with its checksum.

        Raises:
            ValueError: the folder is not a bundle, a file is damaged or missing, or the format's version is too new.
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
        """Return a saved network as a bundle of its named paths. Only the torch runtimes can run it.

        The errors of the paths are read from the network's table of paths, if it has one.

        Raises:
            ValueError: the folder is not a saved network, or its config does not state how images are prepared.
        """
        from polypath.profiling.cost import costs
        from polypath.storage.loading import load

        place = Path(folder)
        net = load(place)
        config = net.config
        if not config.get("normalisation") or not config.get("image"):
            raise ValueError(
                f"{place}: the network's config does not state the size and normalisation of images; save the network "
                "with image_size, mean and std"
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
        """The bundle's paths, cheapest first."""
        return self.manifest.paths

    @property
    def ladder(self) -> tuple[Rung, ...]:
        """The ladder, from the fastest to the most accurate answer. Without a stored ladder, each step is one path."""
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
        """``mean`` and ``std`` per channel, for pixels in 0 … 1."""
        return {"mean": self.preparation.mean, "std": self.preparation.std}

    @property
    def formats(self) -> frozenset[str]:
        """The graph formats that every path has."""
        return frozenset.intersection(*(frozenset(path.files) for path in self.paths))

    def path(self, name: str) -> BundlePath:
        """Return the path with this name, or with this canonical text if only one network has such a path.

        Raises:
            ValueError: no network has such a path, or several networks have one. The message lists the names.
        """
        own = [path for path in self.paths if name == path.name]
        texts = [path for path in self.paths if name == path.text]
        if found := own or [path for path in texts if path.precision == "f32"] or texts:
            if len(found) == 1:
                return found[0]
            raise ValueError(f"path {name!r} is in several networks: give one of {listed([p.name for p in found])}")
        raise ValueError(f"path {name!r} is not in this bundle: give one of {listed([p.name for p in self.paths])}")

    @cached_property
    def graphs(self) -> Graphs:
        """The bundle's ONNX files. Each file is checked only once, even if several runtimes read it."""
        return Graphs(self.folder, self.manifest)

    @cached_property
    def networks(self) -> Mapping[str, StoredNetwork]:
        """The networks by name. If there is only one network, its name is ``""``."""
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
            raise ValueError(f"{self.folder}: this bundle has several networks; use one of {listed(self.networks)}")
        return next(iter(self.networks.values()))

    @property
    def net(self) -> PathNet:
        """The network, in evaluation mode, on the CPU.

        Raises:
            ValueError: the network is damaged, or there are several networks (see :attr:`networks`).
        """
        return self._only.net

    @property
    def statistics(self) -> BatchNormStatistics | None:
        """The recalibrated batch-norm statistics of the only network's paths, or None if there are none."""
        return self._only.statistics

    @property
    def wiring(self) -> Wiring:
        """The wiring of the only network."""
        return self.net.wiring

    def extracted(self, name: str) -> PathNet:
        """Return a path as a standalone network, with its recalibrated batch-norm statistics."""
        from polypath.core.extract import extract

        path = self.path(name)
        own = self.networks[path.network]
        return extract(own.net, own.net.paths(path.text), stats=own.statistics if path.statistics else None)

    def with_paths(self, names: list[str]) -> Bundle:
        """Return this bundle with only the paths ``names``. If this shortens the ladder, the held-out answers are left
        out, since they belong to the complete ladder."""
        kept = [self.path(name).name for name in names]
        paths = tuple(path for path in self.paths if path.name in kept)
        ladder = tuple(rung for rung in self.manifest.ladder if set(rung.combine) <= set(kept) and rung.path in kept)
        held_out = self.manifest.held_out
        if len(ladder) < len(self.manifest.ladder):  # a remaining step may read values of a removed one
            ladder, held_out = tuple(replace(rung, step=None) for rung in ladder), None
        return replace(self, manifest=replace(self.manifest, paths=paths, ladder=ladder, held_out=held_out))


def rank(paths: tuple[BundlePath, ...]) -> list[BundlePath]:
    """Sort paths by held-out error, lowest first. Paths without an error come last, highest MACs first."""
    return sorted(paths, key=lambda p: (p.error is None, p.error if p.error is not None else -p.macs, p.macs))


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{error:.2f}%"


def by_turns(paths: Sequence[BundlePath]) -> tuple[Rung, ...]:
    """Return a ladder of single paths: all paths that are more accurate than every cheaper path."""
    kept: list[BundlePath] = []
    for path in paths:
        if not kept or path.error is None or kept[-1].error is None or path.error < kept[-1].error:
            kept.append(path)
    return tuple(Rung(path=path.name, combine=(path.name,), error=path.error) for path in kept)


def _errors(folder: Path) -> dict[str, float]:
    """Return errors by path name, from the table in a saved network's config."""
    from polypath.storage.config import read_config

    rows = read_config(folder).get("path_table") or []
    found = {}
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            error = row.get("error")
            if isinstance(error, int | float):
                found[row["name"]] = float(error)
    return found
