"""No command looks up a host unless the user requested it, and the user's telemetry settings are left unchanged.

Commands run as separate processes, without the variables by which packages detect a test or a CI job. A preloaded
library records their DNS lookups and resolves nothing; without a C compiler, only Python's lookups are recorded.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from conftest import child_environment
from polypath.core.extras import installed
from polypath.core.silence import SILENT

WATCH = """
import os, sys
def watch(event, args):
    if event not in ("socket.getaddrinfo", "socket.connect"):
        return
    name = args[0] if event == "socket.getaddrinfo" else args[1] if isinstance(args[1], str) else args[1][0]
    if isinstance(name, bytes):
        name = name.decode()
    if name and not name.startswith("/") and name not in ("localhost", "127.0.0.1", "0.0.0.0", "::1", "::"):
        with open(os.environ["LOOKED_UP"], "a") as out:
            out.write(f"{event} {name}\\n")
        raise OSError("no host is looked up here")
sys.addaudithook(watch)
"""
HIDDEN = (
    "CI",
    "TF_BUILD",
    "TRAVIS",
    "PYTEST",
    "HF_",
    "HUGGING",
    "TRANSFORMERS",
    "GITHUB",
    "JENKINS",
    "GRADIO",
    "RAY_",
    "WANDB_",
    "TRACKIO_",
    "KUBERNETES_",
)
TINY = ("--model.widths", "4", "4", "--model.hidden", "8", "--epochs", "1", "--device", "cpu", "--data.no-cache")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> dict[str, str]:
    """The environment of a process whose lookups are recorded."""
    folder = tmp_path_factory.mktemp("watch")
    (folder / "sitecustomize.py").write_text(WATCH)
    environment = child_environment(folder)
    known = (*HIDDEN, "DO_NOT_TRACK", "DISABLE_TELEMETRY", *SILENT)
    environment = {key: value for key, value in environment.items() if not key.startswith(known)}
    environment |= {"HOME": str(folder), "POLYPATH_CACHE": str(folder / "cache"), "LOOKED_UP": str(folder / "told")}
    compiler = shutil.which("cc")
    if compiler and sys.platform == "linux":
        library = folder / "watch.so"
        source = Path(__file__).with_name("names_looked_up.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        environment["LD_PRELOAD"] = str(library)
    return environment


def told(environment: dict[str, str]) -> str:
    file = Path(environment["LOOKED_UP"])
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return text


def run(environment: dict[str, str], *argv: str | Path, **options) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *map(str, argv)], env=environment, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_watch_sees_what_is_looked_up(watched):
    code = "import socket\ntry: socket.create_connection(('silence.invalid', 80), 1)\nexcept OSError: print('refused')"
    assert run(watched, "-c", code).stdout.strip() == "refused"
    assert "silence.invalid" in told(watched)


def test_importing_is_silent_and_leaves_what_a_user_has_set(watched):
    names = sorted(SILENT)
    code = f"import os, polypath; print(*[os.environ[name] for name in {names}])"
    assert run(watched, "-c", code).stdout.split() == [SILENT[name] for name in names]
    chosen = watched | dict.fromkeys(names, "mine")
    assert run(chosen, "-c", code).stdout.split() == ["mine"] * len(names)
    assert told(watched) == ""


@pytest.fixture(scope="module")
def trained(watched, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("silent")
    argv = ("-m", "polypath", "train", "crescendonet-digits", *TINY, "--data.validation", "100")
    run(watched, *argv, "--out", folder / "run")
    run(watched, "-m", "polypath", "extract", folder / "run", "--paths", "branches=1", "--out", folder / "path")
    Image.new("L", (8, 8), 99).save(folder / "photo.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("agreed", [False, True])
def test_openvino_is_silent_unless_the_user_agreed(agreed, watched, tmp_path):
    pytest.importorskip("openvino_telemetry")
    if agreed:
        (tmp_path / "intel").mkdir()
        (tmp_path / "intel/openvino_telemetry").write_text("1")
    code = "import time; from polypath.core.silence import imported; imported('openvino').Core(); time.sleep(2)"
    run(watched | {"HOME": str(tmp_path)}, "-c", code)
    assert bool(told(watched)) == agreed


@pytest.mark.slow
def test_nncf_is_silent(watched, tmp_path):
    """NNCF reports its use, unless it finds no reporter when it is imported."""
    pytest.importorskip("openvino_telemetry")
    pytest.importorskip("nncf")
    code = (
        "import numpy as np, onnx, onnx.helper as h, torch\n"
        "from polypath.deploy.quantise import Calibration, quantised\n"
        "value = lambda name, shape: h.make_tensor_value_info(name, 1, shape)\n"
        "weight = onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), 'w')\n"
        "node = h.make_node('Conv', ['images', 'w'], ['logits'])\n"
        "images, logits = value('images', ['n', 3, 4, 4]), value('logits', ['n', 4, 4, 4])\n"
        "graph = h.make_graph([node], 'g', [images], [logits], [weight])\n"
        "model = h.make_model(graph, opset_imports=[h.make_opsetid('', 20)], ir_version=9)\n"
        "quantised(model, Calibration(torch.rand(8, 3, 4, 4)))\n"
        "import time; time.sleep(2)"
    )
    run(watched | {"HOME": str(tmp_path)}, "-c", code)
    assert told(watched) == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_are_silent(watched, trained):
    run(watched, "-m", "polypath", "models", "crescendonet*")
    run(watched, "-m", "polypath", "paths", trained / "run", "--repeats", "2", "--recalibrate", "--num-images", "64")
    run(watched, "-m", "polypath", "report", trained / "run")
    assert told(watched) == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_are_silent(runtime, watched, trained):
    """For longer than a reporter waits before it sends."""
    pytest.importorskip(runtime)
    pytest.importorskip("onnxscript")
    folder, photo = trained / runtime, trained / "photo.png"
    run(watched, "-m", "polypath", "export", trained / "run", "--out", folder, "--num-images", "64", "--paths", "whole")
    run(watched, "-m", "polypath", "predict", folder, photo, "--runtime", runtime)
    code = f"""
import time, polypath.deploy as d
d.AnytimePredictor({str(folder)!r}, {runtime!r}, 1).predict({str(photo)!r}, path="whole")
time.sleep(8)
"""
    run(watched, "-c", code)
    assert told(watched) == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("command", "extra", "options"),
    [
        ("serve", "fastapi", ("--port", "0")),
        ("serve", "ray", ("--port", "0", "--cluster", "local")),
        ("explore", "gradio", ()),
    ],
)
def test_services_are_silent(command, extra, options, watched, trained):
    if not installed(extra):
        pytest.skip(f"needs {extra}")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "polypath", command, str(trained / "path"), *options],
        env=watched,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert any("http://" in line for line in lines)
        time.sleep(5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert told(watched) == ""


class Proxy(socketserver.StreamRequestHandler):
    """Records the requested host, and fetches nothing."""

    def handle(self) -> None:
        target = self.rfile.readline().decode().split()[1]  # http://host/… or host:443
        with open(self.server.told, "a") as out:  # pyright: ignore[reportAttributeAccessIssue] (set below)
            out.write(f"proxy {urlsplit(target if '://' in target else f'//{target}').hostname}\n")


@pytest.fixture
def proxied(watched) -> Iterator[dict[str, str]]:
    """For W&B's service process, which is written in Go and resolves names without the C library."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        server.told = watched["LOOKED_UP"]  # pyright: ignore[reportAttributeAccessIssue]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        proxy = f"http://127.0.0.1:{server.server_address[1]}"
        yield watched | {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1,localhost"}
        server.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("service", "choice"), [("wandb", {"WANDB_MODE": "offline"}), ("trackio", {})])
def test_trackers_are_silent(service, choice, proxied, tmp_path):
    """W&B in offline mode; trackio, which writes locally by default."""
    if not installed(service):
        pytest.skip(f"needs {service}")
    argv = ("-m", "polypath", "train", "crescendonet-digits", *TINY, "--tracker", service, "--out", tmp_path / "run")
    run(proxied | choice, *argv)
    assert told(proxied) == ""


@pytest.mark.slow
def test_the_watch_sees_what_wandb_looks_up(proxied, tmp_path):
    """Only its server, since it was configured to send there."""
    if not installed("wandb"):
        pytest.skip("needs wandb")
    code = f"""
from pathlib import Path
from polypath.training.trackers import open_service
open_service("wandb", Path({str(tmp_path)!r}), {{}})
"""
    online = {"WANDB_API_KEY": 40 * "0", "WANDB_BASE_URL": "http://wandb.invalid", "WANDB_INIT_TIMEOUT": "20"}
    argv = [sys.executable, "-c", code]
    process = subprocess.Popen(argv, env=proxied | online, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
    finally:
        process.kill()
    assert {line.split()[-1] for line in told(proxied).splitlines()} == {"wandb.invalid"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_is_silent(watched, tmp_path):
    if not installed("ray"):
        pytest.skip("needs Ray")
    argv = ("-m", "polypath", "sweep", "crescendonet-digits", *TINY, "--seeds", "1", "--cluster", "local")
    run(watched, *argv, "--out", tmp_path / "sweep")
    assert told(watched) == ""
