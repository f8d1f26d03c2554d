"""Loads one network of a bundle on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from polypath.deploy.manifest import STATISTICS

if TYPE_CHECKING:
    from polypath.core.batchnorm import BatchNormStatistics
    from polypath.core.network import PathNet


@dataclass(frozen=True, eq=False)
class StoredNetwork:
    """A network that is stored in a folder.

    Attributes:
        folder: the network's folder.
        classes: number of classes that the network must have.
        estimated: whether the folder contains recalibrated statistics of the network's paths.
        loaded: a network in memory that is used instead of the one in the folder.
    """

    folder: Path
    classes: int
    estimated: bool
    loaded: PathNet | None = None

    @cached_property
    def net(self) -> PathNet:
        """The network, in evaluation mode, on the CPU.

        Raises:
            ValueError: the network is damaged, or has a wrong number of classes.
        """
        from polypath.storage.loading import load

        if self.loaded is not None:
            return self.loaded
        net = load(self.folder)
        if net.num_classes != self.classes:
            raise ValueError(
                f"{self.folder}: the network has {net.num_classes} classes, but the manifest lists {self.classes}"
            )
        return net

    @cached_property
    def statistics(self) -> BatchNormStatistics | None:
        """The recalibrated batch-norm statistics of the network's paths, or None if there are none."""
        from polypath.storage.batchnorm import load_statistics

        return load_statistics(self.folder / STATISTICS) if self.estimated else None
