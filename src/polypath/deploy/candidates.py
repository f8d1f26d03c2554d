"""Defines and checks the parts of a new bundle: networks, facts about them, and their paths."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from polypath.core.batchnorm import BatchNormStatistics
from polypath.core.checks import plain
from polypath.core.network import PathNet
from polypath.core.paths import Paths
from polypath.deploy.images import Preparation, preparation
from polypath.deploy.quantise import Calibration
from polypath.profiling.cost import Cost, Size, costs

Batches = Iterable[tuple[Tensor, Tensor]]
_NAME = re.compile(r"[\w=,+-]{1,100}")


@dataclass(frozen=True)
class HeldOut:
    """A set of images that were not used for training, prepared for the network.

    Args:
        choose: batches of held-out images with labels. The images are split into three disjoint parts: to choose paths,
            to calibrate them, and to bound risks.
        test: batches of the test split, used only to measure errors.
        seed: random seed for splitting the held-out images into the three parts.
    """

    choose: Batches
    test: Batches | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", plain(self.seed))


@dataclass(frozen=True)
class BundleNetwork:
    """One network of a bundle.

    Args:
        net: the network, with classes, normalisation and image size in its config (a loaded network has these).
        paths: the paths by name, or only their texts; None means all named paths.
        statistics: recalibrated batch-norm statistics for some or all of the paths.
        held_out: images used to choose among ``paths`` and to calibrate them. Without these images, all paths are in
            the bundle, and none of them has an error.
        about: facts about the network for readers, as JSON values.
        notes: sentences for the network's card.
        calibration: training images for quantisation. Paths in int8 need them.
    """

    net: PathNet
    paths: Mapping[str, Paths | str] | Sequence[str] | None = None
    statistics: BatchNormStatistics | None = None
    held_out: HeldOut | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    calibration: Calibration | None = None

    @property
    def preparation(self) -> Preparation:
        """The preparation of the network's images.

        Raises:
            ValueError: the network's config does not state the preparation.
        """
        try:
            return preparation(self.net.config)
        except ValueError as error:
            raise ValueError(f"the network's config does not state how images are prepared ({error})") from error

    def statistics_of(self, chosen: Iterable[Paths]) -> BatchNormStatistics | None:
        """Return the recalibrated statistics of only these paths, or None if there are none."""
        stats = self.statistics
        kept = {paths: stats[paths] for paths in chosen if paths in stats} if stats is not None else {}
        return BatchNormStatistics(kept, stats.images, stats.seed) if stats is not None and kept else None


@dataclass(frozen=True)
class Candidate:
    """A path that may become part of the bundle: its network, its name in that network, choice, cost and precision."""

    network: str
    name: str
    paths: Paths
    cost: Cost
    precision: Literal["f32", "int8"] = "f32"


def candidates(networks: Mapping[str, BundleNetwork], size: Size) -> dict[str, Candidate]:
    """Return all requested paths by their names in the bundle: ``NETWORK:NAME``, or ``NAME`` for an unnamed network.

    Args:
        size: image size in pixels.

    Raises:
        ValueError: a path is illegal, or no paths are given.
    """
    found: dict[str, Candidate] = {}
    for network, one in networks.items():
        with of_network(network):
            chosen = _chosen(one)
        counted = costs(one.net, chosen, size=size)
        for name, paths in chosen.items():
            found[f"{network}:{name}" if network else name] = Candidate(network, name, paths, counted[name])
    return found


def _chosen(one: BundleNetwork) -> dict[str, Paths]:
    if one.paths is None:
        return one.net.named_paths()
    pairs = one.paths.items() if isinstance(one.paths, Mapping) else [(text, text) for text in one.paths]
    found = {n: one.net.paths(p) for n, p in pairs}
    if not found:
        raise ValueError("paths is empty: give at least one path")
    return {n: p for i, (n, p) in enumerate(found.items()) if p not in list(found.values())[:i]}


@contextlib.contextmanager
def of_network(name: str) -> Iterator[None]:
    """Prefix the message of any ``ValueError`` in the block with the network's name."""
    try:
        yield
    except ValueError as error:
        if not name:
            raise
        raise ValueError(f"network {name!r}: {error}") from error


def check_networks(networks: Mapping[str, BundleNetwork]) -> None:
    """Raise ``ValueError`` unless each value is a network, and the names can be names of subfolders of one folder."""
    seen: set[str] = set()
    for name, one in networks.items():
        if not isinstance(one, BundleNetwork):
            raise ValueError(f"networks[{name!r}] is of type {type(one).__name__}: must be a BundleNetwork")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"network {name!r}: the name must consist of 1 to 100 letters, digits and signs = , + - _")
        if name.casefold() in seen:
            raise ValueError(f"network {name!r}: two networks have this name (upper and lower case count as the same)")
        seen.add(name.casefold())


def check_alike(networks: Mapping[str, BundleNetwork]) -> Preparation:
    """Return the image preparation that all these networks share.

    Raises:
        ValueError: a network's classes or preparation differ from those of the first network, only some networks have
            held-out images, or the seeds for splitting held-out images differ. The message states both networks and
            the difference.
    """
    (first, one), *others = networks.items()
    preparations: dict[str, Preparation] = {}
    for name, network in networks.items():
        with of_network(name):
            preparations[name] = network.preparation
    prep = preparations[first]
    for name, other in others:
        told = f"network {name!r} cannot be in one bundle with {first!r}: "
        if differs := _other_classes(other.net.class_names, one.net.class_names):
            raise ValueError(told + differs)
        mine, theirs = asdict(preparations[name]), asdict(prep)
        if differs := [key for key in mine if mine[key] != theirs[key]]:
            key = differs[0]
            raise ValueError(f"{told}their images are prepared differently ({key} is {mine[key]} and {theirs[key]})")
        if (other.held_out is None) != (one.held_out is None):
            raise ValueError(told + "one of them has held-out images, and the other has none")
        if other.held_out is not None and one.held_out is not None and other.held_out.seed != one.held_out.seed:
            raise ValueError(
                told + f"their held-out images are split by seeds {other.held_out.seed} and {one.held_out.seed}"
            )
    return prep


def _other_classes(mine: Sequence[str], theirs: Sequence[str]) -> str:
    if tuple(mine) == tuple(theirs):
        return ""
    if len(mine) != len(theirs):
        return f"they have {len(mine)} and {len(theirs)} classes"
    if sorted(mine) == sorted(theirs):
        return "they have the same classes in different orders"
    i = next(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    return f"their classes are not the same (class {i} is {mine[i]!r} and {theirs[i]!r})"
