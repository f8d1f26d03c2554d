"""Measures whether paths give the same predictions on small devices. Each path of the shipped bundle runs in
ExecuTorch, with XNNPACK.

A path is extracted, exported, lowered to XNNPACK and run by ExecuTorch's runtime, one image at a time, as on a phone.
Eager torch classifies the same test images. ExecuTorch is not a dependency and needs a separate environment:
``pip install executorch``, with the torch version that it was built for.

``POLYPATH_CIFAR10``   folder of CIFAR-10 (default: its name on the Hub)
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

from benchmarks.harness import show
from benchmarks.trained import cifar10
from polypath.deploy.bundle import Bundle

IMAGES = 100  # number of test images; the first ones are used
WITHIN = 1e-4  # tolerance as a share of the largest logit, since float32 sums have another order


def run() -> dict:
    from polypath.data.sources import load_images
    from polypath.data.split import Split
    from polypath.training.recipe import replace
    from polypath.training.recipes import get_recipe

    bundle = Bundle.open()
    recipe = replace(get_recipe("fractalnet-cifar10-bundle"), {"data.source": cifar10()})
    test = load_images(recipe.data).test
    assert isinstance(test, Split)
    pixels = test.images[:IMAGES].permute(0, 2, 3, 1).numpy()
    images, labels = torch.from_numpy(bundle.preparation.normalised(pixels)), test.labels[:IMAGES]
    rows = []
    for path in bundle.paths:
        rows.append({"path": path.name, **compared(bundle.extracted(path.name).eval(), images, labels)})
    show("ExecuTorch beside eager", rows, {"path": "", "bytes": ",d", "max_abs": ".1e", "same_top1": "d"})
    return {
        "bundle": bundle.name,
        "executorch": version("executorch"),
        "images": len(images),
        "within": WITHIN,
        "rows": rows,
        "kept": all(row["share"] <= WITHIN and row["same_top1"] == len(images) for row in rows),
    }


def compared(net: nn.Module, images: Tensor, labels: Tensor) -> dict:
    """Compare the logits of images ``(N, C, H, W)`` in ExecuTorch and eager torch. Return the largest difference
    (absolute, and as a share of the largest logit), the number of equal predictions, and both errors in percent."""
    data, elsewhere = lowered(net, images[:1])
    answer = loaded(data)
    found = torch.cat([answer(image) for image in images.split(1)])
    with torch.inference_mode():
        wanted = torch.cat([net(image) for image in images.split(1)])
    off = float((found - wanted).abs().max())
    classes = found.argmax(1), wanted.argmax(1)
    return {
        "bytes": len(data),
        "outside_xnnpack": elsewhere,
        "max_abs": off,
        "share": off / float(wanted.abs().max()),
        "same_top1": int((classes[0] == classes[1]).sum()),
        "error": 100.0 * float((classes[0] != labels).float().mean()),
        "eager_error": 100.0 * float((classes[1] != labels).float().mean()),
    }


def lowered(net: nn.Module, image: Tensor) -> tuple[bytes, list[str]]:
    """Return the bytes of a ``.pte`` file of ``net`` for images of the shape of ``image``, and the operators that
    XNNPACK does not run."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore[reportMissingImports]
    from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

    exported = torch.export.export(net, (image,), strict=False)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    calls = [node.target for node in program.exported_program().graph.nodes if node.op == "call_function"]
    return bytes(program.buffer), sorted({str(call) for call in calls if isinstance(call, torch._ops.OpOverload)})


def loaded(data: bytes) -> Callable[[Tensor], Tensor]:
    """Return the function from images to logits that a ``.pte`` file contains."""
    from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

    method = Runtime.get().load_program(data).load_method("forward")
    assert method is not None
    return lambda image: method.execute([image])[0].clone()
