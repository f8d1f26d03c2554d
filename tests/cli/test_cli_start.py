"""The imports of a command before it does its work: importing torch takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import child_environment
from polypath.cli import patience as waiting
from polypath.deploy import AnytimePredictor, Bundle, latency_profile
from polypath.deploy import predictor as predictors
from polypath.deploy.runtimes import candidates, facts_of

HEAVY = {
    "torch", "torchvision", "timm", "torchmetrics", "datasets", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib",
    "networkx", "jinja2", "safetensors", "huggingface_hub", "tensorboard", "tyro", "rich", "pydantic", "fastapi",
    "uvicorn", "gradio", "ray", "wandb", "openvino", "onnxruntime", "onnx", "onnxscript", "requests", "httpx",
}  # fmt: skip
SMALL = {"numpy", "PIL", "msgspec"}
BY_TORCH = {"networkx", "jinja2"}  # torch may import these
CODE = """
import json, sys
from polypath.cli import main
status = main({argv})
print(json.dumps([status, sorted({{name.partition(".")[0] for name in sys.modules}}) ]))
"""


def imported(*argv: str | Path) -> set[str]:
    """The packages that a fresh process has imported after a successful command."""
    code = CODE.format(argv=[str(argument) for argument in argv])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stderr
    status, packages = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    return set(packages)


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["train", "--help"], ["serve", "--help"]], ids=" ".join)
def test_help_and_version_import_no_packages(argv: list[str]):
    assert not imported(*argv) & (HEAVY | SMALL)


@pytest.mark.slow
def test_the_table_of_networks_needs_torch_alone():
    assert imported("models", "resnet20*", "--json") & HEAVY - BY_TORCH == {"torch"}


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


class Still:
    """A runtime that answers nothing, quickly."""

    per_batch, steps = False, ()

    def __init__(self, name: str, bundle: Bundle, *_: object) -> None:
        (self.name, self.version, self.device), self._classes = facts_of(name), len(bundle.classes)

    def prepare(self, path: str, batch: int):
        return lambda x: np.zeros((len(x), self._classes), np.float32)


def test_an_answer_needs_the_runtime_that_gives_it(photo: Path, monkeypatch: pytest.MonkeyPatch):
    """With stored times of all runtimes, no other runtime is imported, nor torch, nor rich."""
    pytest.importorskip("onnxruntime")
    if torch.cuda.is_available():
        pytest.skip("with a GPU torch answers")
    bundle = Bundle.open()
    names = candidates(bundle)
    assert names[-1] == "torch"
    with monkeypatch.context() as patch:
        patch.setattr(predictors, "open_runtime", Still)
        for name in names:
            ms = 1.0 if name == "onnxruntime" else 2.0
            patch.setattr(
                latency_profile, "measure", lambda tasks, seconds=None, ms=ms: dict.fromkeys(tasks, [ms] * 50)
            )
            AnytimePredictor(bundle, name, threads=1)._measure(1, None)
    packages = imported("predict", photo, "--threads", "1", "--budget-ms", "1e5", "--json")
    assert packages & HEAVY == {"onnxruntime", "onnx"}
    assert packages >= SMALL


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is asked")
def test_torch_is_not_asked_for_a_gpu_without_a_driver(monkeypatch: pytest.MonkeyPatch):
    code = "import sys; from polypath.deploy import runtimes as r; r._has_driver = lambda: False; "
    code += "print(r._has_cuda(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.stdout.split() == ["False", "False"], done.stderr
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert candidates(Bundle.open()) == ["cuda-graphs"]


def test_a_command_says_what_it_does_only_if_it_is_slow(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "SECONDS", 0.02)
    with waiting.patience("loading"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "loading\n"
    monkeypatch.setattr(waiting, "SECONDS", 1.0)
    with waiting.patience("loading") as answering:
        answering()
        time.sleep(1.2)
    with waiting.patience("loading"):
        pass
    time.sleep(1.2)
    assert capsys.readouterr().err == ""
