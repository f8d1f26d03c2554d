"""Without a home folder everything works, and nothing is cached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import child_environment
from polypath.core.home import ensure_home

NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "POLYPATH_CACHE", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")
NOBODY = """
import pwd

def getpwuid(number):
    raise KeyError(number)

pwd.getpwuid = getpwuid
"""


def alone(code: str, place: Path, **variables: str) -> str:
    """The output of Python code in a process with an unknown user and without a home, in an empty folder."""
    (place / "here").mkdir()
    environment = {k: v for k, v in child_environment().items() if k not in NAMES} | variables
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NOBODY + code],
        cwd=place / "here",
        env={**environment, "TMPDIR": str(place), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list((place / "here").iterdir())  # for instance no folder ~
    return done.stdout.strip()


def test_a_known_home_is_not_changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_home()
    assert os.environ["HOME"] == str(tmp_path)


@pytest.mark.slow
def test_without_a_home_libraries_use_a_temporary_one(tmp_path: Path) -> None:
    code = """
import os
import polypath as pp
import matplotlib.pyplot, datasets, huggingface_hub
try:
    import openvino
except ImportError:
    pass
print(os.environ["HOME"])
"""
    home = Path(alone(code, tmp_path))
    assert home.parent == tmp_path
    assert not home.exists()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "here"]


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, os.devnull])
def test_pictures_are_predicted_and_read_without_a_cache(home: str | None, tmp_path: Path) -> None:
    code = """
import numpy as np
import polypath as pp
predictor = pp.AnytimePredictor(pp.Bundle.open(), threads=1)
print(predictor.predict(np.zeros((32, 32, 3), np.uint8), path="column=1").path)
print(len(pp.load_images(pp.DataConfig()).test))
"""
    assert alone(code, tmp_path, **({"HOME": home} if home else {})).split() == ["column=1", "360"]
