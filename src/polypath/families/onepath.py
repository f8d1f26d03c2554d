"""Networks of other packages, with one path: any timm model, or any image classifier of pytorchcv.

They have no paths to choose, but are trained, evaluated, profiled, extracted and saved like networks with many paths.
Create them with ``create_model("timm:resnet18")`` (see :mod:`polypath.families.timm_models`) or
``create_model("pytorchcv:resnet20_cifar10")``.

The state-dict keys are the package's keys with the prefix ``body.model.``. Only the last layer has another key,
``head.classifier``; if this layer is a 1×1 conv, it becomes a linear layer. The depth of these networks is unknown, so
it is given as 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from polypath.core.builder import NetBuilder
from polypath.core.checks import did_you_mean, json_value
from polypath.core.extras import need
from polypath.core.network import PathNet, set_module
from polypath.families.base import Family, Preset
from polypath.families.skips import FixedSize, check_fixed

REFUSED = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_model_args", "checkpoint_path", "cache_dir",
    "root", "features_only", "scriptable", "exportable", "no_jit", "num_classes", "in_chans", "in_channels",
)  # fmt: skip


class Body(nn.Module):
    """Another package's model without its last layer: from ``(N, C, H, W)`` to that layer's input ``(N, D)``.

    A timm model runs in two steps, as two variants of this module: ``features`` computes the maps, ``pooled`` pools
    them.

    Args:
        size: height and width that the model was made for.
        fixed: whether the model accepts only this size.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int], *, fixed: bool = False) -> None:
        super().__init__()
        self.model, self.size, self.fixed = model, size, fixed

    def forward(self, x: Tensor, variant: str | None = None) -> Tensor:
        model: Any = self.model
        if variant == "pooled":
            return model.forward_head(x).flatten(1)  # the model's classifier was replaced with an identity
        self._check_size(x)
        return model.forward_features(x) if variant == "features" else model(x).flatten(1)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """The model's stages in timm's format, with module names relative to this module. Empty if it has no stages."""
        found: Any = getattr(self.model, "feature_info", ())
        if not hasattr(self.model, "forward_intermediates"):
            return []
        return [{**found[i], "module": f"model.{found[i]['module']}", "index": i} for i in range(len(found))]

    def forward_intermediates(self, x: Tensor, **options: Any) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Call the model's own method, see :meth:`PathNet.forward_intermediates`.

        Raises:
            ValueError: the images do not have the fixed size, or the model does not support an option.
        """
        self._check_size(x)
        try:
            return cast(Any, self.model).forward_intermediates(x, **options)
        except AssertionError as error:  # timm rejects indices and formats this way
            raise ValueError(f"forward_intermediates failed with {options}: {error}") from error

    def _check_size(self, x: Tensor) -> None:
        if self.fixed:
            check_fixed(x, self.size)

    def keep_variants(self, variants: Collection[str]) -> None:
        """Do nothing, because both variants need the whole model."""

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that the model itself excludes from weight decay."""
        own: Callable[[], set[str]] = getattr(self.model, "no_weight_decay", set[str])
        return {f"model.{name}" for name in own()}


@dataclass(frozen=True, kw_only=True)
class OnePath(Family):
    """The base class of families for other packages' models. A subclass sets the package.

    Only ``build`` checks that the package has the model. So an instance can be made without a slow import, even if the
    package is not installed.

    Args:
        model: the model's name in the package.
        model_arguments: further arguments of the model, as JSON values; they never download weights.
        init: ``own`` keeps the package's initialisation.
    """

    model: str = ""
    model_arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    init: str = "own"

    package: ClassVar[str] = ""
    paper: ClassVar[str] = "another package's model"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.whitening:
            raise ValueError(
                f"{type(self).__name__}.whitening = {self.whitening}: must be 0, because another package's model has "
                "no whitening layer"
            )
        if bad := [key for key in self.model_arguments if key in REFUSED]:
            own = "num_classes" if bad[0] == "num_classes" else "in_chans" if bad[0].startswith("in_chan") else None
            hint = f"set {own} directly" if own else "this argument does not belong to the architecture"
            raise ValueError(f"{type(self).__name__}.model_arguments has {bad[0]!r}: {hint}")
        json_value(f"{type(self).__name__}.model_arguments", dict(self.model_arguments))

    @classmethod
    def sorted_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Move the arguments that are not fields of the family into ``model_arguments``."""
        own = {f.name for f in fields(cls)}
        others = {key: value for key, value in arguments.items() if key not in own}
        given = {key: value for key, value in arguments.items() if key in own}
        return given | ({"model_arguments": {**given.get("model_arguments", {}), **others}} if others else {})

    def build(self, seed: int | None = None) -> PathNet:
        net = super().build(seed)
        if self.num_classes:
            net.min_size = smallest_side(net)
        return net

    def stages(self) -> dict[str, tuple[str, ...]]:
        """Return no stages, because all stages are inside one unit; see :attr:`Body.feature_info`."""
        return {}

    def initialise(self, net: PathNet) -> None:
        if self.init != "own":
            super().initialise(net)

    def _made(self, make: Any, *args: Any, **kwargs: Any) -> nn.Module:
        try:
            return make(*args, **kwargs)
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            what = f"{self.package} model {self.model!r} with {dict(self.model_arguments)}"
            raise ValueError(f"{what} cannot be built: {error}") from error


@dataclass(frozen=True, kw_only=True)
class PytorchcvModel(OnePath, name="pytorchcv"):
    """An image classifier of pytorchcv (extra ``zoo``). One unit runs all but the last layer; its features are flat.

    A pool of fixed size before the classifier is replaced with an adaptive pool. At the model's own image size, both
    pools give the same result.
    """

    model: str = "resnet20_cifar10"

    package = "pytorchcv"

    def build_graph(self, b: NetBuilder) -> str:
        model = self._made(_pytorchcv_maker(self.model), in_channels=self.in_chans, **self.model_arguments)
        name = _last_layer(model)
        if name is None:
            raise ValueError(f"pytorchcv model {self.model!r} does not end in a single classifier")
        linear = as_linear(model.get_submodule(name), f"pytorchcv model {self.model!r}, {name}")
        if linear.out_features != self.num_classes:  # many makers accept only their own number of classes
            linear = nn.Linear(linear.in_features, self.num_classes)
        set_module(model, name, nn.Identity())
        features = model.get_submodule("features")
        if isinstance(getattr(features, "final_pool", None), nn.AvgPool2d):
            set_module(features, "final_pool", nn.AdaptiveAvgPool2d(1))
        height, width = getattr(model, "in_size", (224, 224))
        z = b.add("body", b.input, Body(model, (height, width)))
        return b.add("head.classifier", z, linear)


def _last_layer(model: nn.Module) -> str | None:
    """Return the name of the last layer of a pytorchcv model, if this layer is linear or a conv.

    Return None for other layers, or if the model does not consist of ``features`` and ``output``.
    """
    if [name for name, _ in model.named_children()] != ["features", "output"]:
        return None
    name, layer = "output", model.get_submodule("output")
    while children := list(layer.named_children()):
        name, layer = f"{name}.{children[-1][0]}", children[-1][1]
    return name if isinstance(layer, nn.Linear | nn.Conv2d) else None


def _pytorchcv_maker(model: str) -> Any:
    provider = need("pytorchcv.model_provider", f"pytorchcv model {model!r}", "zoo")
    known: dict[str, Any] = vars(provider)["_models"]
    if model not in known:
        raise ValueError(f"pytorchcv model {model!r} is not known; {did_you_mean(model, known)}")
    return known[model]


def as_linear(layer: nn.Module, where: str) -> nn.Linear:
    """Return a classifier as a linear layer; a 1×1 conv becomes a linear layer with the same weights.

    Raises:
        ValueError: the classifier is another kind of layer.
    """
    if isinstance(layer, nn.Linear):
        return layer
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        linear = nn.Linear(layer.in_channels, layer.out_channels, layer.bias is not None, device=layer.weight.device)
        with torch.no_grad():
            linear.weight.copy_(layer.weight.flatten(1))
            if layer.bias is not None:
                linear.bias.copy_(layer.bias)
        return linear
    raise ValueError(f"{where}: the classifier is a {type(layer).__name__}, but must be linear or a 1×1 conv")


def smallest_side(net: PathNet, most: int = 512) -> int:
    """Find the smallest image side, in pixels, that the network accepts, by trial runs on the meta device.

    If another package's model runs at no power of two up to ``most``, it is taken to accept only its default size.
    """
    from polypath.core.inputs import image_batch
    from polypath.core.meta import weightless

    place = "size" if "size" in net.wiring.modules else "body"
    body = net.get_submodule(place)
    if isinstance(body, FixedSize) or (isinstance(body, Body) and body.fixed):
        return min(body.size)
    twin = weightless(net)
    twin.min_size = 1

    def runs(side: int) -> bool:
        try:
            with torch.no_grad():
                twin(image_batch(twin, side))
        except Exception:  # another package's code may raise anything
            return False
        return True

    high = 1
    while not runs(high):
        high *= 2
        if high > most and isinstance(body, Body):
            body.fixed = True
            return min(body.size)
        if high > most:
            raise ValueError(
                f"the network {net.config.get('arguments')} runs at none of the tried image sides up to {most} pixels"
            )
    low = high // 2  # the network does not run on images of this side
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return high


def preset(model: str) -> Preset:
    """Make the preset of ``pytorchcv:MODEL``, with the model's own number of classes.

    Raises:
        ValueError: the package does not have this model.
        ImportError: the package is not installed. The message says which extra to install.
    """
    stated = inspect.signature(_pytorchcv_maker(model)).parameters.get("num_classes")
    classes = 1000 if stated is None or stated.default is inspect.Parameter.empty else stated.default
    small = any(word in model for word in ("_cifar", "_svhn"))
    return Preset(PytorchcvModel(model=model, num_classes=classes), size=32 if small else 224)
