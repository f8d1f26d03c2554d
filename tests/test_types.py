"""Users get types: scripts are checked against the installed wheel, by pyright strict and by mypy strict."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPTS = ROOT / "tests/typed"
MISTAKES = """import polypath as pp
net = pp.create_model(20)
net("an image")
net.config["famly"]
pp.train("a recipe", "run")
pp.DataConfig(source=3)
pp.creat_model
pp.deploy.Bundl
"""
LINES = set(range(2, 9))
"""Of :data:`MISTAKES`, with one each."""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: the scripts, and ``venv`` with the wheel and, after it, this environment's packages."""
    for needed in ("build", "hatchling", "mypy", "pyright"):
        pytest.importorskip(needed, reason="needs the extra dev")
    folder = tmp_path_factory.mktemp("user")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    paths = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert "polypath/py.typed" in packed.namelist()
        packed.extractall(site)
    (site / "others.pth").write_text("\n".join({sysconfig.get_path(kind) for kind in ("purelib", "platlib")}))
    for script in SCRIPTS.glob("*.py"):
        (folder / script.name).write_text(script.read_text())
    (folder / "wrong.py").write_text(MISTAKES)
    return folder


def run(*command: str | Path, status: int = 0, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def python(user: Path) -> Path:
    (found,) = [path for path in user.glob("venv/*/python*") if path.stem == "python"]
    return found


def test_polypath_is_the_installed_one(user: Path):
    found = run(python(user), "-c", "import polypath; print(polypath.__file__)", cwd=user)
    assert Path(found.strip()).is_relative_to(user)


def test_pyright_strict(user: Path):
    (user / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "include": ["*.py"]}')
    command = (sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", python(user))
    told = json.loads(run(*command, status=1, cwd=user))["generalDiagnostics"]
    assert {Path(d["file"]).name for d in told} == {"wrong.py"}, told
    assert {d["range"]["start"]["line"] + 1 for d in told} == LINES


def test_mypy_strict(user: Path):
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python(user), "--cache-dir", user)
    told = run(*command, "script.py", "family.py", "wrong.py", status=1, cwd=user)
    places = [line.split(":")[:2] for line in told.splitlines() if ": error:" in line]
    assert {name for name, _ in places} == {"wrong.py"}, told
    assert {int(line) for _, line in places} == LINES
