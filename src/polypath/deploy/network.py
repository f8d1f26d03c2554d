"""One network of a bundle, read when it is first asked for."""

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
    """A network as it lies in its folder.

    Attributes:
        folder: where it lies.
        classes: how many it must tell apart.
        estimated: whether norms of its paths were re-estimated.
        loaded: one that is in memory already; the folder's is then not read.
    """

    folder: Path
    classes: int
    estimated: bool
    loaded: PathNet | None = None

    @cached_property
    def net(self) -> PathNet:
        """The network, in evaluation mode, on the CPU.

        Raises:
            ValueError: a damaged one, or one of another number of classes.
        """
        from polypath.storage.loading import load

        if self.loaded is not None:
            return self.loaded
        net = load(self.folder)
        if net.num_classes != self.classes:
            raise ValueError(
                f"{self.folder}: its network tells {net.num_classes} classes apart, and its manifest names "
                f"{self.classes}"
            )
        return net

    @cached_property
    def statistics(self) -> BatchNormStatistics | None:
        """Its paths' re-estimated norms, where there are any."""
        from polypath.storage.batchnorm import load_statistics

        return load_statistics(self.folder / STATISTICS) if self.estimated else None
