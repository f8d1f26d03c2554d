"""What every family is: a frozen table of sizes that builds a network, and presets with their papers' figures."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch

from polypath.core.builder import NetBuilder
from polypath.core.checks import check_fields, plain_fields, whole
from polypath.core.config import NetConfig
from polypath.core.deprecation import warn_renamed
from polypath.core.network import PathNet
from polypath.core.paths import Selectors
from polypath.layers.init import initialise

FAMILIES: dict[str, type[Family]] = {}
_OLD_NAMES = {"draw": "build_graph", "words": "selectors", "names": "path_names"}  # of 0.1, for one release


@dataclass(frozen=True, kw_only=True)
class Family:
    """Base of the families: the fields are the architecture's arguments, all of them JSON values.

    A family gives :meth:`build_graph` (write the diagram with a :class:`NetBuilder`, return the output node's name),
    and where it has keys of its own for choices, :meth:`selectors` and :meth:`path_names`. Naming a subclass with
    ``class Mine(Family, name="mine")`` makes saved networks of it loadable.
    """

    num_classes: int = 10
    in_chans: int = 3
    init: str = "he"

    family: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name:
            cls.family = name
            FAMILIES[name] = cls
        for old, new in _OLD_NAMES.items():
            if old in vars(cls) and new not in vars(cls):
                warn_renamed(f"{cls.__name__}.{old}", new, 1)
                setattr(cls, new, vars(cls)[old])

    def __post_init__(self) -> None:
        plain_fields(self)
        check_fields(self, num_classes=whole(0), in_chans=whole(1))

    def build_graph(self, b: NetBuilder) -> str:
        """Write the network down in ``b``; return the name of the node whose value is the answer."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is drawn")

    def selectors(self) -> Selectors:
        """The family's own keys for choices, each a function of wiring and value."""
        return {}

    def path_names(self) -> list[str]:
        """Texts of the standard choices."""
        return []

    def path_sets(self) -> dict[str, list[str]]:
        """Groups of these choices that training and analyses ask for by name; see :meth:`PathNet.path_set`."""
        return {}

    @property
    def min_size(self) -> int:
        """The smallest image side, in pixels, at which no map vanishes."""
        return 1

    def build(self, seed: int | None = None) -> PathNet:
        """The network, its weights drawn from ``seed`` (or from torch's global generator).

        With ``num_classes`` 0 it has no classifier and gives pre-logits.
        """
        if self.num_classes == 0:
            net = replace(self, num_classes=1).build(seed)
            net.reset_classifier(0)
            return net
        with seeded(seed):
            b = NetBuilder()
            output = self.build_graph(b)
            config: NetConfig = {"family": self.family, "arguments": asdict(self)}
            net = b.net(
                output,
                selectors=self.selectors(),
                path_names=self.path_names(),
                path_sets=self.path_sets(),
                min_size=self.min_size,
                config=config,
            )
            self.initialise(net)
        return net

    def initialise(self, net: PathNet) -> None:
        """Draw the weights of a new network by the scheme ``init``."""
        initialise(net, self.init)


@dataclass(frozen=True)
class Preset:
    """A registered network: a family with its arguments, and what its paper prints about it.

    Attributes:
        table: where in the paper the figures stand.
        printed: figures as the paper prints them (``params`` in millions, ``macs`` in billions, ``depth``).
        size: the image side, in pixels, that it is made for.
        linear: linear layers that the paper counts into the depth and :attr:`Unit.depth` does not.
    """

    spec: Family
    table: str = ""
    printed: Mapping[str, float] = field(default_factory=dict[str, float])
    size: int = 32
    linear: int = 0


@contextlib.contextmanager
def seeded(seed: int | None) -> Generator[None]:
    """Draw from ``seed`` inside the block, leaving torch's global generator as it was (None: draw from that)."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] (torch does not type these two)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield
