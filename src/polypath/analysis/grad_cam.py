"""Heat maps of a path by Grad-CAM (Selvaraju et al. 2017), at the feature maps that the path's head reads.

Let A_k be the maps and y the logit of a class. The weight of a map is the mean of dy/dA_k over its pixels (Eq. 1), and
the heat is ReLU(Σ_k weight_k · A_k) (Eq. 2). If the head reads maps of one pixel, as after FractalNet's last pool, the
maps of the last stage with more than one pixel are used instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from polypath.core.batchnorm import BatchNormStatistics, applied
from polypath.core.checks import check, whole
from polypath.core.network import HEAD, PathNet
from polypath.core.paths import Paths
from polypath.core.wiring import INPUT, Join, Unit


def grad_cam(
    net: PathNet,
    images: Tensor,
    paths: Paths | str | None = None,
    classes: Sequence[int] | int | None = None,
    *,
    stats: BatchNormStatistics | None = None,
) -> Tensor:
    """Return heat maps ``(N, H, W)`` float32 of images ``(N, C, H, W)``, which must be normalised for the network. Each
    map is scaled to [0, 1]: 1 where the evidence for the class is strongest. A map is all 0 if there is no evidence.

    The network runs in evaluation mode; its mode is restored. Parameters keep their ``grad``.

    Args:
        paths: the choice to run.
        classes: one class for all images, or one class for each image. None means the classes that the path predicts.
        stats: recalibrated batch-norm statistics of the path.

    Raises:
        ValueError: the images or the choice are illegal, a class is unknown, or the head reads no feature maps.
    """
    paths = net.paths(paths)
    places = dict.fromkeys([head_maps(net, paths), *_stage_ends(net, paths)])
    maps: dict[str, Tensor] = {}

    def kept(name: str, out: Tensor) -> Tensor:
        maps[name] = out if out.requires_grad else out.detach().requires_grad_()
        return maps[name].clone()  # clone, since the next node may write into its input

    modes = [(module, module.training) for module in net.modules()]
    hooks = [net.register_node_hook(place, kept) for place in places]
    net.eval()
    try:
        with torch.enable_grad():
            if stats is None:
                logits = net(images, paths=paths)
            else:
                with applied(net, stats[paths]):
                    logits = net(images, paths=paths)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    at = next(iter(places))
    read = maps[at]
    if read.ndim != 4 or logits.ndim != 2:
        raise ValueError(
            f"path {str(paths)!r}: its head reads {at!r} of shape {tuple(read.shape)}, but must read maps (N, C, H, W)"
        )
    of = next((maps[place] for place in places if maps[place][0, 0].numel() > 1), read)
    chosen = _classes(classes, logits)
    with torch.enable_grad():
        total = logits.gather(1, chosen[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, of)
    heat = (gradient.mean((2, 3), keepdim=True) * of.detach()).sum(1, keepdim=True).relu()
    heat = F.interpolate(heat.float(), images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)
    most = heat.amax((1, 2), keepdim=True)
    return torch.where(most > 0, heat / most, 0.0)


def head_maps(net: PathNet, paths: Paths) -> str:
    """Return the node whose value the path's head reads. If the path ends at an exit, the head is that of the exit.

    Raises:
        ValueError: the network has no head, or consists of only a head.
    """
    wiring, name = net.wiring, net.wiring.output
    while name == wiring.output or name.startswith(HEAD):
        node = wiring.by_name.get(name)
        if isinstance(node, Unit) and name.startswith(HEAD):
            name = node.source
        elif isinstance(node, Join) and node.kind == "switch" and not node.dynamic(paths):
            name = node.chosen(paths)[0].source
        else:  # an exit after several streams reads their mean
            break
    if name in (wiring.output, INPUT):
        raise ValueError("this network has no head (nodes called head.*) that reads maps")
    return name


def _stage_ends(net: PathNet, paths: Paths) -> list[str]:
    """Return the end node of each stage that runs, the last stage first. Stages of several streams are left out."""
    alive = {node.name for node in net.wiring.alive(paths)}
    found = ([node for node in nodes if node in alive] for nodes in net.stage_nodes.values())
    return [nodes[0] for nodes in found if len(nodes) == 1][::-1]


def _classes(classes: Sequence[int] | int | None, logits: Tensor) -> Tensor:
    count, most = logits.shape
    if classes is None:
        return logits.argmax(1)
    given = [classes] * count if isinstance(classes, int) else list(classes)
    if len(given) != count:
        raise ValueError(
            f"classes has {len(given)} values for {count} images: give one for all images, or one for each"
        )
    return torch.tensor([check("class", c, whole(0, most - 1)) for c in given], device=logits.device)
