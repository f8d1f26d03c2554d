"""The base class of all families, and presets with their papers' figures."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch

from polypath.core.builder import NetBuilder
from polypath.core.checks import FLAG, check, check_fields, each, one_of, plain_fields, whole
from polypath.core.config import NetConfig
from polypath.core.deprecation import warn_renamed, with_old_methods
from polypath.core.later import later
from polypath.core.network import PathNet
from polypath.core.paths import WHOLE_TEXT, Selectors
from polypath.families.exits import exit_names, exit_selectors, with_exits
from polypath.layers.conv import ConvUnit
from polypath.layers.init import initialise, pass_through
from polypath.layers.whitening import most_directions, whitening_unit

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10's training images
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FAMILIES: dict[str, type[Family]] = {}
SEED = whole(-(2**63), 2**64 - 1)  # torch's limits
MOST_LAYERS = 4096  # layers with weights; a small config from an untrusted source must not build a huge network
WHITENING = "whitening"  # the name of the whitening unit
MOST_WHITENED = 64  # the largest number of image channels
MOST_BLOCKS = 16  # blocks or groups, each of which halves the image
_OLD_NAMES = {"draw": "build_graph", "words": "selectors", "names": "path_names"}  # 0.1's names, kept for one release


@with_old_methods
@dataclass(frozen=True, kw_only=True)
class Family:
    """The base class of families. Its fields are the architecture's arguments, all of them JSON values.

    A family implements :meth:`build_graph`, which builds the diagram with a :class:`NetBuilder`, marks the stages for
    use as a backbone, and returns the output node's name. A family with its own keys for choices also implements
    :meth:`selectors` and :meth:`path_names`. Give the family a name, ``class Mine(Family, name="mine")``, so that its
    saved networks can be loaded.

    A network with stages may have ``exits``: 1-based stages after which it may stop (:mod:`polypath.families.exits`).

    The fields ``whitening`` and ``start`` come from no paper and are off by default. With ``whitening`` above 0, a
    fixed first layer whitens the training images' 3×3 patches along that many directions, and the family reads the
    layer's 2·``whitening`` maps (:mod:`polypath.layers.whitening`). Patches of ``in_chans`` channels have
    9·``in_chans`` directions. A higher number is allowed only if the weights come from another network. With
    ``start="identity"`` (default ``"drawn"``), the initial network is as close to the identity as the family allows.

    ``pooled=False``, with ``num_classes=0``, removes the head: the output is the maps that the head would read.
    """

    num_classes: int = 10
    in_chans: int = 3
    init: str = "he"
    exits: tuple[int, ...] = later(())
    whitening: int = later(0)
    start: str = later("drawn")
    pooled: bool = later(True)

    family: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    starts: ClassVar[tuple[str, ...]] = ("drawn",)

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
        check_fields(
            self, num_classes=whole(0), in_chans=whole(1), exits=each(whole(1)), start=one_of(*self.starts), pooled=FLAG
        )
        check_fields(self, whitening=whole(0, most_directions(MOST_WHITENED)))
        if not self.pooled and self.num_classes:
            name = type(self).__name__
            raise ValueError(f"{name}.pooled = False: a classifier needs a pool; {name}.num_classes must be 0")

    def build_graph(self, b: NetBuilder) -> str:
        """Add the network's nodes to ``b`` and return the name of the output node."""
        raise NotImplementedError(f"{type(self).__name__} does not implement build_graph")

    def full_graph(self, b: NetBuilder) -> str:
        """Add the whitening layer if there is one, then the nodes of :meth:`build_graph`; return the output's name."""
        if not self.whitening:
            return self.build_graph(b)
        b.input = b.add(WHITENING, b.input, whitening_unit(self.in_chans, self.whitening))
        return replace(self, in_chans=2 * self.whitening, whitening=0).build_graph(b)

    def selectors(self) -> Selectors:
        """Return the family's own keys for choices. Each key has a function that turns a wiring and a value into a
        choice."""
        return {}

    def path_names(self) -> list[str]:
        """List the texts of the standard choices."""
        return []

    def path_sets(self) -> dict[str, list[str]]:
        """Return named groups of standard choices, for training and analyses; see :meth:`PathNet.path_set`."""
        return {}

    def path_draws(self) -> dict[str, Any]:
        """Return the fields of the objective ``drop-path`` with which each path learns to classify alone.

        If the result is empty, only the whole network is trained.
        """
        return {}

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Return the last nodes of each stage, which :meth:`build_graph` marks with :meth:`NetBuilder.stage`."""
        with torch.device("meta"):
            b = NetBuilder()
            self.full_graph(b)
        return b.stages

    @property
    def min_size(self) -> int:
        """The smallest image side, in pixels, at which all feature maps have at least one pixel."""
        return 1

    def made_for(self, side: int) -> int:
        """Return the image side, in pixels, that this network is made for, if its preset is made for ``side``."""
        return side

    def build(self, seed: int | None = None) -> PathNet:
        """Build the network, with random weights from ``seed`` (or from torch's global generator).

        If ``num_classes`` is 0, the network has no classifier and returns pre-logits.
        """
        if self.num_classes == 0:
            net = replace(self, num_classes=1, pooled=True).build(seed)
            net.reset_classifier(0, None if self.pooled else "")
            return net
        with seeded(seed):
            b = NetBuilder()
            output = self.full_graph(b)
            if self.exits:
                output = with_exits(b, output, self.exits, self.num_classes, min_size=self.min_size)
            exits = exit_names(self.exits)
            config: NetConfig = {"family": self.family, "arguments": asdict(self)}
            net = b.net(
                output,
                selectors={**self.selectors(), **exit_selectors(self.exits)},
                path_names=[*self.path_names(), *exits],
                path_sets=self.path_sets() | ({"exits": [*exits, WHOLE_TEXT]} if exits else {}),
                min_size=self.min_size,
                config=config,
            )
            self.initialise(net)
            if self.start == "identity":
                self.start_as_identity(net)
        return net

    def initialise(self, net: PathNet) -> None:
        """Initialise the weights of a new network with the scheme ``init``."""
        initialise(net, self.init)

    def start_as_identity(self, net: PathNet) -> None:
        """Set the weights of each conv so that the conv returns its input, where the conv's shape allows that.

        Only families with ``identity`` in ``starts`` use this.
        """
        for module in net.modules():
            if isinstance(module, ConvUnit):
                pass_through(module.conv)


@dataclass(frozen=True)
class Preset:
    """A registered network: a family with its arguments, and the paper's figures.

    Attributes:
        table: where in the paper the figures are.
        printed: figures as the paper prints them (``params`` in millions, ``macs`` in billions, ``depth``).
        size: the image side, in pixels, that the network is made for.
        linear: number of linear layers that the paper counts in the depth but :attr:`Unit.depth` does not.
        prepared: how images are prepared for another package's model, in timm's format.
    """

    spec: Family
    table: str = ""
    printed: Mapping[str, float] = field(default_factory=dict[str, float])
    size: int = 32
    linear: int = 0
    prepared: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def pretrained_cfg(self) -> dict[str, Any]:
        """Return how images are prepared for the untrained network, in timm's format.

        Mean and standard deviation are CIFAR-10's for image sides below 64 pixels, else ImageNet's. No weights depend
        on these values.
        """
        small, chans = self.size < 64, self.spec.in_chans
        mean, std = (CIFAR_MEAN, CIFAR_STD) if small else (IMAGENET_MEAN, IMAGENET_STD)
        mean, std = self.prepared.get("mean", mean), self.prepared.get("std", std)
        if chans != len(mean):  # use the average over the colours for every channel
            mean, std = ((sum(values) / len(values),) * chans for values in (mean, std))
        found = {"crop_pct": 1.0 if small else 0.875, **self.prepared}
        return found | {"input_size": (chans, self.size, self.size), "mean": mean, "std": std}


def check_size(spec: Family, layers: int, blocks: int, *names: str) -> None:
    """Raise ``ValueError`` if a family has too many layers with weights or too many blocks.

    ``names`` are the fields that determine these numbers; the message lists them.
    """
    if layers <= MOST_LAYERS and blocks <= MOST_BLOCKS:
        return
    given = ", ".join(f"{name} = {reprlib.repr(getattr(spec, name))}" for name in names)
    legal = f"{MOST_LAYERS:,} layers in {MOST_BLOCKS} blocks"
    size = f"{layers:,} layers" if layers < 10**18 else "far more layers"
    raise ValueError(f"{type(spec).__name__}.{given}: would make {size} in {blocks:,} blocks; the limit is {legal}")


@contextlib.contextmanager
def seeded(seed: int | None) -> Generator[None]:
    """Seed torch's global generator with ``seed`` inside the block and restore it afterwards; with None, do nothing."""
    if seed is None:
        yield
        return
    seed = check("seed", seed, SEED)
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType] (torch does not type these two)
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield
