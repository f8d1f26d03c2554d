"""Separate networks as ONNX files. The environment variable ONNX is the files' folder. In the order of their names, the
file of the most accurate network must be last.

    ONNX=networks polypath bench anytime --method benchmarks/methods/onnx_files.py --data.source DIR

Each network reads (1, C, H, W) float32, normalised with MEAN and STD below (change them to yours), and returns
(1, classes).
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime

FOLDER = Path(os.environ["ONNX"]).absolute()
MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
STD = np.array([0.247, 0.2435, 0.2616], np.float32)

name = os.environ.get("NAME", FOLDER.name)
pflop = float(os.environ["PFLOP"]) if "PFLOP" in os.environ else None
files = [FOLDER]


def options(folder):
    setting = onnxruntime.SessionOptions()
    setting.intra_op_num_threads = setting.inter_op_num_threads = 1

    def by(file):
        session = onnxruntime.InferenceSession(file, setting, providers=["CPUExecutionProvider"])
        (read,) = session.get_inputs()

        def answer(image):
            x = ((image / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)[None]
            return np.asarray(session.run(None, {read.name: np.ascontiguousarray(x, np.float32)})[0])[0]

        return answer

    return {file.stem: by(file) for file in sorted(FOLDER.glob("*.onnx"))}
