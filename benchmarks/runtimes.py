"""The ways to run a network for inference that are compared."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import polypath as pp
from benchmarks.harness import DTYPES, autocast, device, images

Task = Callable[[], Any]


def tasks(net: nn.Module, batch: int, precision: str, *, runtimes: bool = True) -> dict[str, Task]:
    """Return the ways to run ``net`` on ``batch`` images: eager in both layouts, and for our networks also fused and
    exported."""
    net = net.eval().to(device())
    x = images(batch, channels_last=False)
    last = copy.deepcopy(net).to(memory_format=torch.channels_last)
    found = {"eager": _eager(net, x, precision), "eager, channels-last": _eager(last, images(batch), precision)}
    if isinstance(net, pp.PathNet):
        fused = pp.fuse(net)
        found["fused"] = _eager(fused.to(DTYPES[precision]), images(batch).to(DTYPES[precision]), "float32")
        if device().type == "cuda":
            found["fused, CUDA graph"] = cuda_graph(fused, images(batch).to(DTYPES[precision]))
        elif runtimes:
            found |= exported(net, x, precision)  # `polypath export` also fuses before it exports
    return found


def _eager(net: nn.Module, x: Tensor, precision: str) -> Task:
    def run() -> Tensor:
        with torch.inference_mode(), autocast(precision):
            return net(x)

    return run


def cuda_graph(net: nn.Module, x: Tensor) -> Task:
    """Return a function that runs a forward pass as one launch of a CUDA graph."""
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                net(x)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            net(x)
    return graph.replay


def exported(net: pp.PathNet, x: Tensor, precision: str) -> dict[str, Task]:
    """Return the ways to run ``net`` in OpenVINO and ONNX Runtime, if installed. Gated networks run all loops, since
    gates cannot be exported."""
    found: dict[str, Task] = {}
    fused = pp.fuse(net, "loops=max" if _gated(net) else None)
    program = torch.export.export(fused, (x,), strict=False)
    with contextlib.suppress(ImportError):
        found["OpenVINO"] = _openvino(program, x, precision)
    if precision == "float32":
        with contextlib.suppress(ImportError):
            found["ONNX Runtime"] = _onnxruntime(program, x)
    return found


def _gated(net: pp.PathNet) -> bool:
    return any(join.gates for join in net.wiring.joins.values())


def _openvino(program: Any, x: Tensor, precision: str) -> Task:
    import openvino as ov

    model = ov.convert_model(program)
    model.reshape(list(x.shape))
    hint = {"float32": ov.Type.f32, "bf16": ov.Type.bf16}[precision]
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(model, "CPU", options | {"INFERENCE_PRECISION_HINT": hint})
    request, array = compiled.create_infer_request(), x.numpy()
    return lambda: request.infer([array], share_inputs=True)


def _onnxruntime(program: Any, x: Tensor) -> Task:
    import onnxruntime as ort

    exported = torch.onnx.export(program, (x,), dynamo=True, verbose=False)
    assert exported is not None
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(exported.model_proto.SerializeToString(), options, ["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, x.numpy()
    return lambda: session.run(None, {name: array})
