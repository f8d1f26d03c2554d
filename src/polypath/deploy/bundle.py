"""Bundles: a bank of static graphs, one a path of a network, in a folder that is only read.

config.json, model.safetensors, README.md    the network, as :mod:`polypath.storage.saving` writes it
statistics.safetensors                       each path's re-estimated norms
NAME.onnx                                    a path's graph; its weights stand in the two files above
step-N.onnx                                  of the ladder's step N: what its path runs beside the steps before it
held_out.safetensors                         answers to held-out images, for stopping by confidence
manifest.json                                what there is: accuracy, calibration, costs, times, checksums

Of several networks each has a folder of its own, of its name, for its config, weights, norms and graphs.

docs/bundle.md describes all of it.
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
        folder: where it lies.
        manifest: what it says.
        digest: tells bundles apart; the key of measured times.
        network: one that is in memory already; the folder's is then not read.
    """

    folder: Path
    manifest: Manifest
    digest: str
    network: PathNet | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str] | None = None, *, verify: bool = True) -> Bundle:
        """The bundle in ``folder``; None is the pretrained one of this package.

        A saved network's folder is taken too: its named paths are then the bundle's, run by torch.

        Args:
            verify: compare every file with its checksum.

        Raises:
            ValueError: no bundle, a damaged or missing file, a later version of the format.
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

        Errors are those of the network's table of paths, where it has one.

        Raises:
            ValueError: no saved network, or one that does not say how its images are prepared.
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
        """Steps of better and better answers; without any of the bundle's own, its paths by turns."""
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
        """The path of this name (or canonical text, where no other network has it too).

        Raises:
            ValueError: there is none, or there are several; the message lists those that there are.
        """
        own = [path for path in self.paths if name == path.name]
        texts = [path for path in self.paths if name == path.text]
        if found := own or [path for path in texts if path.precision == "f32"] or texts:
            if len(found) == 1:
                return found[0]
            raise ValueError(f"path {name!r}: of several networks; name one of {listed([p.name for p in found])}")
        raise ValueError(f"path {name!r}: not in this bundle; there are {listed([p.name for p in self.paths])}")

    @cached_property
    def graphs(self) -> Graphs:
        """Its ONNX files, each checked once, however many runtimes read it."""
        return Graphs(self.folder, self.manifest)

    @cached_property
    def networks(self) -> Mapping[str, StoredNetwork]:
        """By name; a single one has none."""
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
            ValueError: a damaged one, or several; see :attr:`networks`.
        """
        return self._only.net

    @property
    def statistics(self) -> BatchNormStatistics | None:
        """The paths' re-estimated norms, where there are any; of the only network, as :attr:`net`."""
        return self._only.statistics

    @property
    def wiring(self) -> Wiring:
        """The only network's diagram."""
        return self.net.wiring

    def extracted(self, name: str) -> PathNet:
        """A path as a network of its own, with its re-estimated norms."""
        from polypath.core.extract import extract

        path = self.path(name)
        own = self.networks[path.network]
        return extract(own.net, own.net.paths(path.text), stats=own.statistics if path.statistics else None)

    def with_paths(self, names: list[str]) -> Bundle:
        """The same bundle with some of its paths only; without those of its ladder, held-out answers are not its."""
        kept = [self.path(name).name for name in names]
        paths = tuple(path for path in self.paths if path.name in kept)
        ladder = tuple(rung for rung in self.manifest.ladder if set(rung.combine) <= set(kept) and rung.path in kept)
        held_out = self.manifest.held_out
        if len(ladder) < len(self.manifest.ladder):  # what is left may read what is not left any more
            ladder, held_out = tuple(replace(rung, step=None) for rung in ladder), None
        return replace(self, manifest=replace(self.manifest, paths=paths, ladder=ladder, held_out=held_out))


def rank(paths: tuple[BundlePath, ...]) -> list[BundlePath]:
    """The most accurate first: by held-out error; paths that were never scored by their MACs, after the others."""
    return sorted(paths, key=lambda p: (p.error is None, p.error if p.error is not None else -p.macs, p.macs))


def _percent(error: float | None) -> str:
    return "–" if error is None else f"{error:.2f}%"


def by_turns(paths: Sequence[BundlePath]) -> tuple[Rung, ...]:
    """A ladder of the paths by themselves, those that are better than every cheaper one."""
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
