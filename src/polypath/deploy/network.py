"""One network of a bundle, loaded on first use."""

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
    """A network in its folder.

    Attributes:
        folder: its folder.
        classes: number of classes that it must have.
        estimated: whether norms of its paths were recalibrated.
        loaded: a network in memory, used instead of the folder's.
    """

    folder: Path
    classes: int
    estimated: bool
    loaded: PathNet | None = None

    @cached_property
    def net(self) -> PathNet:
        """The network, in evaluation mode, on the CPU.

        Raises:
            ValueError: it is damaged, or has another number of classes.
        """
        from polypath.storage.loading import load

        if self.loaded is not None:
            return self.loaded
        net = load(self.folder)
        if net.num_classes != self.classes:
            raise ValueError(
                f"{self.folder}: its network has {net.num_classes} classes, but its manifest names {self.classes}"
            )
        return net

    @cached_property
    def statistics(self) -> BatchNormStatistics | None:
        """Its paths' recalibrated statistics, if there are any."""
        from polypath.storage.batchnorm import load_statistics

        return load_statistics(self.folder / STATISTICS) if self.estimated else None
