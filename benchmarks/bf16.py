"""Measures whether bf16 gives the same predictions as float32: the shipped bundle classifies 1,000 test images of
CIFAR-10.

On a processor without bf16 instructions, OpenVINO uses float32 despite the hint, so the comparison is void
(``precision`` records the precision that was used). torch emulates bf16 on such a processor, with the same rounding.
"""

from __future__ import annotations

import numpy as np

from benchmarks.trained import cifar10
from polypath.data.config import DataConfig
from polypath.data.sources import load_images
from polypath.data.split import Split
from polypath.deploy.bundle import Bundle
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.runtimes.openvino_ import options

IMAGES, BATCH = 1000, 100


def run() -> dict:
    import openvino

    bundle = Bundle.open()
    data = load_images(DataConfig(source=cifar10(), test_images=IMAGES))
    assert isinstance(data.test, Split)
    images = data.test.images.permute(0, 2, 3, 1).numpy()[:IMAGES]
    labels = data.test.labels.numpy()[:IMAGES]
    x = bundle.preparation.normalised(bundle.preparation.array(images))
    core, rows = openvino.Core(), []
    emulated = open_runtime("torch", bundle, 1, "bf16")
    for path in bundle.paths:
        answers, used = {}, {}
        for precision in ("f32", "bf16"):
            model = core.read_model(bundle.folder / path.files["onnx"])
            compiled = core.compile_model(model, "CPU", options(1, precision))
            used[precision] = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
            logits = [compiled(x[i : i + BATCH])[0] for i in range(0, len(x), BATCH)]
            answers[precision] = np.concatenate(logits)
        run_bf16 = emulated.prepare(path.name, BATCH)
        answers["torch"] = np.concatenate([run_bf16(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])
        same = float((answers["f32"].argmax(1) == answers["bf16"].argmax(1)).mean())
        rows.append(
            {
                "path": path.name,
                "agreement": same,
                "agreement_torch_bf16": float((answers["f32"].argmax(1) == answers["torch"].argmax(1)).mean()),
                "error_f32": 100 * float((answers["f32"].argmax(1) != labels).mean()),
                "error_bf16": 100 * float((answers["bf16"].argmax(1) != labels).mean()),
                "max_difference": float(np.abs(answers["f32"] - answers["bf16"]).max()),
                "precision": used,
            }
        )
        print(rows[-1])
    return {
        "images": len(x),
        "openvino": openvino.__version__,
        "bundle": bundle.name,
        "capabilities": list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "rows": rows,
        "kept": all(min(row["agreement"], row["agreement_torch_bf16"]) >= 0.99 for row in rows),
    }
