"""Writes a bundle as a Triton model repository, with a model for each path. The client chooses the model.

NAME/config.pbtxt     platform onnxruntime_onnx, dynamic batching; late requests are refused
NAME/1/model.onnx     the path's graph with its weights inside, since Triton keeps models separate
NAME/labels.txt       the classes
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from polypath.core.checks import check, whole
from polypath.core.display import printable
from polypath.core.extras import need
from polypath.deploy.bundle import Bundle
from polypath.deploy.graph_check import IMAGES, LOGITS
from polypath.deploy.graphs import Graphs
from polypath.storage.files import write_file

CONFIG = """name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: {batch}
input [ {{ name: "{images}" data_type: TYPE_FP32 dims: [ {channels}, {height}, {width} ] }} ]
output [ {{ name: "{logits}" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "labels.txt" }} ]
dynamic_batching {{
  {preferred}max_queue_delay_microseconds: 500
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: 1000000
    allow_timeout_override: true
    max_queue_size: 256
  }}
}}
"""


def write_repository(bundle: Bundle, folder: str | os.PathLike[str], max_batch: int = 64) -> list[str]:
    """Write every path of a bundle as a model, and return the models' names.

    Raises:
        ValueError: the bundle has no ONNX graphs, the folder is not empty, or ``max_batch`` is below 1.
        ImportError: onnx is missing.
    """
    from polypath.storage.files import check_vacant, new_folder

    max_batch = check("max_batch", max_batch, whole(1))
    if "onnx" not in bundle.formats:
        raise ValueError(f"{bundle.folder} has no ONNX graphs: write a bundle of this network first")
    target = Path(folder)
    check_vacant(target)
    onnx = need("onnx", "export to triton")
    names, graphs = [], Graphs(bundle.folder, bundle.manifest, one_name=True)
    with new_folder(target) as made:
        for path in bundle.paths:
            name = re.sub(r"\W+", "_", f"{bundle.name}_{path.name}").strip("_")
            (made / name / "1").mkdir(parents=True)
            model = onnx.load(graphs.file(path))  # reads the weight files too
            write_file(made / name / "1" / "model.onnx", model.SerializeToString())
            height, width = bundle.size
            write_file(
                made / name / "config.pbtxt",
                CONFIG.format(
                    name=name,
                    batch=max_batch,
                    preferred=_preferred(max_batch),
                    images=IMAGES,
                    logits=LOGITS,
                    channels=bundle.preparation.channels,
                    height=height,
                    width=width,
                    classes=len(bundle.classes),
                ),
            )
            write_file(made / name / "labels.txt", "\n".join(map(printable, bundle.classes)) + "\n")
            names.append(name)
    return names


def _preferred(most: int) -> str:
    """Return the setting for preferred batch sizes: powers of two up to ``most``, or nothing for single images."""
    sizes = [str(2**i) for i in range(1, most.bit_length())]
    return f"preferred_batch_size: [ {', '.join(sizes)} ]\n  " if sizes else ""
