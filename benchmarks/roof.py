"""The machine's roof for a network: the speed if each of its matrix products ran at the best rate for its shape.

Each conv and linear layer of a network is measured alone, in several ways: contiguous, channels-last, and with weights
packed beforehand if the processor supports it. The best way counts. The roof's time for a network is the sum of these
times: Σ MACs_i / rate_i. The other operations (norms, activations, pools, joins) count as free. The roof's time for a
training step is three times that of the forward pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.harness import DTYPES, device, measured_precisions, show
from benchmarks.models import MODELS
from polypath.core.meta import weightless
from polypath.core.network import PathNet
from polypath.profiling.latency import interleaved

BATCH, TURNS = 64, 3
Shape = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], int]
"""Shape of the input (of one image), shape of the weight, stride, padding, groups. The last three are empty for a
linear layer."""

_RATES: dict[tuple[Any, ...], float] = {}


class Products(TorchDispatchMode):
    """A mode that collects the convs and matrix products that run in its block, with their MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Shape] = Counter()
        self.macs: dict[Shape, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            aten = torch.ops.aten
            if packet is aten.convolution:
                x, w, _, stride, padding, _, _, _, groups = args
                shape: Shape = (tuple(x.shape[1:]), tuple(w.shape), tuple(stride), tuple(padding), groups)
            else:
                x, w = args[-2:]
                shape = (tuple(x.shape[1:]), tuple(w.shape[::-1]), (), (), 1)
            self.found[shape] += 1
            self.macs[shape] = flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        return out


def products(net: nn.Module, size: int = 32) -> Products:
    """Collect the convs and matrix products for one image. In gated networks, all loops count, but gates do not."""
    twin, found = weightless(net), Products()
    options = (
        {"paths": "loops=max"} if isinstance(net, PathNet) and any(j.gates for j in net.wiring.joins.values()) else {}
    )
    with torch.no_grad(), found:
        twin(torch.empty(1, 3, size, size, device="meta"), **options)
    return found


def seconds(net: nn.Module, batch: int = BATCH, precision: str = "float32") -> float:
    """Return the roof's time for one forward pass of ``batch`` images."""
    found = products(net)
    return sum(n * _best(shape, batch, precision) for shape, n in found.found.items())


def _best(shape: Shape, batch: int, precision: str) -> float:
    key = shape, batch, precision, torch.get_num_threads()
    if key not in _RATES:
        with torch.inference_mode():
            ways = _ways(shape, batch, DTYPES[precision])
            times = interleaved(ways, TURNS, 1, device())
        _RATES[key] = min(min(row) for row in times.values())
    return _RATES[key]


def _ways(shape: Shape, batch: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    inputs, weight, stride, padding, groups = shape
    x = torch.randn(batch, *inputs, device=device(), dtype=dtype)
    w = torch.randn(weight, device=device(), dtype=dtype)
    if not stride:
        return {"linear": lambda: F.linear(x, w)}
    last = torch.channels_last
    xs, ws = x.to(memory_format=last), w.to(memory_format=last)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "groups": groups}
    ways: dict[str, Callable[[], Tensor]] = {
        "contiguous": lambda: F.conv2d(x, w, **options),
        "channels-last": lambda: F.conv2d(xs, ws, **options),
    }
    if weight[2:] == (1, 1) and stride == (1, 1) and groups == 1:
        flat, rows = xs.permute(0, 2, 3, 1).reshape(-1, inputs[0]), w.flatten(1)
        ways["matmul"] = lambda: flat @ rows.t()
    elif device().type == "cpu" and _packs(dtype):
        form = list(padding), list(stride), [1, 1], groups
        packed = torch.ops.mkldnn._reorder_convolution_weight(ws, *form, list(x.shape))
        ways["packed"] = lambda: torch.ops.mkldnn._convolution_pointwise(xs, packed, None, *form, "none", [], "")
    return ways


def _packs(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def run() -> dict:
    rows = []
    for name, model in MODELS.items():
        if model.whose == "plain":
            continue
        net = model.make().eval()
        found = products(net)
        total = sum(found.macs[shape] * n for shape, n in found.found.items())
        for precision in measured_precisions():
            took = seconds(net, precision=precision)
            rows.append({
                "model": name, "precision": precision, "macs": total, "shapes": len(found.found),
                "roof_s": took, "roof_macs_per_s": total * BATCH / took,
            })  # fmt: skip
            rows[-1]["gmacs_per_s"] = rows[-1]["roof_macs_per_s"] / 1e9
    best = max(found_rate for found_rate in (_rate(key) for key in _RATES))
    show(
        "the machine's roof", rows, {"model": "", "precision": "", "shapes": "d", "roof_s": ".3f", "gmacs_per_s": ".1f"}
    )
    return {"batch_size": BATCH, "rows": rows, "best_rate_of_a_shape_macs_per_s": best}


def _rate(key: tuple[Any, ...]) -> float:
    (inputs, weight, stride, padding, _), batch = key[0], key[1]
    if not stride:
        return batch * weight[0] * weight[1] / _RATES[key]
    height = (inputs[1] + 2 * padding[0] - weight[2]) // stride[0] + 1
    width = (inputs[2] + 2 * padding[1] - weight[3]) // stride[1] + 1
    return batch * height * width * weight[0] * weight[1] * weight[2] * weight[3] / _RATES[key]
