"""Methods compared on the digits: results, resuming, refusals."""

from __future__ import annotations

import csv
import functools
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT, child_environment
from polypath.deploy.bundle import SHIPPED, Bundle, rank
from polypath.storage.looks import looks
from polypath.worth import anytime as module
from polypath.worth import measuring
from polypath.worth.anytime import anytime
from polypath.worth.anytime_result import AnytimeResult, load_anytime
from polypath.worth.measuring import do
from polypath.worth.protocol import load_task

NEAREST = """
import numpy as np
name, pflop = "nearest mean", 9.0
def train(train, held_out, folder, seed):
    means = [train.pixels[train.labels == label].mean(0) for label in range(10)]
    np.save(folder / "means.npy", np.stack(means))
    return 0.25
def options(folder):
    means = np.load(folder / "means.npy")
    return {
        "rough": lambda image: -((means - image)[:, ::4, ::4] ** 2).sum((1, 2, 3)),
        "fine": lambda image: -((means - image) ** 2).sum((1, 2, 3)),
    }
"""
ZERO = """
import numpy as np
name = "always zero"
def options(folder):
    return {"only": lambda image: np.arange(10)[::-1]}
"""


TASKS = functools.cache(load_task)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """In this process, with a short profile; images are read once, and one test looks at the figure."""
    monkeypatch.setattr(module, "run_alone", do)
    if "side_by_side" not in request.node.name:
        monkeypatch.setattr(module, "save_figure", lambda *_: [])
    monkeypatch.setattr(measuring, "PROFILE_RUNS", 5)
    monkeypatch.setattr(measuring, "WARM_UPS", 1)
    for place in (module, measuring):
        monkeypatch.setattr(place, "BLOCK", 8)
        monkeypatch.setattr(place, "load_task", TASKS)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "nearest.py", tmp_path / "zero.py"]
    for file, text in zip(made, (NEAREST, ZERO), strict=True):
        file.write_text(text)
    return made


def measured(files: list[Path], out: Path, requests: int = 20) -> AnytimeResult:
    return anytime(files, "digits", out=out, requests=requests)


def test_methods_stand_side_by_side(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = measured(files, out)
    task = load_task("digits")
    nearest, zero = result.methods
    means = np.stack([task.train.pixels[task.train.labels == label].mean(0) for label in range(10)])
    fine = ((task.test.pixels[:, None].astype(float) - means) ** 2).sum((2, 3, 4)).argmin(1)
    assert nearest.options[1].error == pytest.approx(100 * (fine != task.test.labels).mean(), abs=1e-3)
    assert zero.options[0].error == pytest.approx(100 * (task.test.labels != 0).mean(), abs=1e-3)
    assert nearest.options[1].error < nearest.options[0].error < zero.options[0].error
    assert (nearest.pflop, zero.pflop) == (0.25, None)
    assert nearest.gain is None
    assert zero.gain is not None
    assert zero.gain.value < 0
    assert nearest.ways["oracle"].value >= nearest.ways["rule"].value
    assert result.test_evaluations == {"nearest mean": 2, "always zero": 1}
    assert result.departures == ["the images are not those of the protocol", "the first 20 of 2,000 requests"]
    assert result.unit_ms > 0
    assert "command" not in result.environment

    assert load_anytime(out) == result
    rows = list(csv.DictReader((out / "result.csv").open()))
    assert [(row["method"], row["option"]) for row in rows] == [
        *(("nearest mean", option) for option in ("rough", "fine")),
        ("always zero", "only"),
    ]
    assert [row["right_to_wrong"] for row in rows] == ["", str(nearest.flips[0].to_wrong), ""]
    assert (out / "figure.svg").read_text().count("always zero") >= 1
    for head, cells in (result.table(), result.options()):
        assert {len(head)} == {len(row) for row in cells}
    told = "\n".join(result.facts())
    assert "departures from the protocol: the images are not those of the protocol" in told
    assert "always zero minus nearest mean: right in time" in told
    (out / "result.json").write_text('{"format": 2}')
    with pytest.raises(ValueError, match="not a result of a bench"):
        load_anytime(out)


@pytest.mark.slow
def test_called_again_nothing_is_measured_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    result, jobs = measured(files, out), []
    monkeypatch.setattr(module, "run_alone", lambda job: (jobs.append((job.what, len(job.files))), do(job)))
    monkeypatch.chdir(tmp_path)
    again = anytime([file.name for file in files], "digits", out="out", requests=20)
    assert (jobs, again.methods) == ([], result.methods)
    assert measured(files, out, 24).requests == 24  # more of the trace: existing times are kept
    assert jobs == [("times", 2)]
    jobs.clear()
    measured(files[1:], out)
    assert jobs == [("times", 1)]  # other methods were timed together
    jobs.clear()
    files[0].write_text(NEAREST.replace("0.25", "0.5"))
    changed = measured(files, out)
    assert jobs == [("train", 1), ("score", 1), ("times", 2)]
    assert changed.methods[0].pflop == 0.5
    assert looks(out) == {"nearest mean": 4, "always zero": 1}  # those of the earlier file still count
    jobs.clear()
    (next(out.glob("methods/always_zero/*")) / "answers.npz").write_bytes(b"damaged")
    measured(files, out)
    assert jobs == [("score", 1)]


def test_interrupted_it_goes_on(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, blocks = tmp_path / "out", 0
    real = measuring.replay

    def once(*args: Any) -> np.ndarray:
        nonlocal blocks
        blocks += 1
        if blocks == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(measuring, "replay", once)
    with pytest.raises(KeyboardInterrupt):
        measured(files, out)
    kept = {file: file.read_bytes() for file in out.glob("times/*/*.json")}
    assert {file.name for file in kept} == {"profile.json", "requests-0.json"}
    assert not (out / "result.json").exists()
    result = measured(files, out)
    assert (result.requests, blocks) == (20, 4)
    assert all(file.read_bytes() == data for file, data in kept.items())
    assert result.test_evaluations == {"nearest mean": 2, "always zero": 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ZERO.replace("np.arange(10)[::-1]", "np.zeros(9)"), r"only returned scores of shape \(9,\): must be \(10,\)"),
        (
            ZERO.replace("np.arange(10)[::-1]", "np.full(10, np.nan)"),
            r"only returned a score that is not a finite number",
        ),
        (ZERO.replace("np.arange(10)[::-1]", "{}[image]"), r"only failed, line 5: TypeError"),
        (NEAREST.replace("return 0.25", "raise OSError('full')"), r"train failed, line 7: OSError: full"),
    ],
)
def test_a_method_that_fails_leaves_no_result(tmp_path: Path, text: str, said: str) -> None:
    file, out = tmp_path / "method.py", tmp_path / "out"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        measured([file], out)
    assert not [f for f in out.rglob("*") if f.name in ("result.json", "answers.npz", "train.json", "figure.png")]
    assert looks(out) == {}
    file.write_text(ZERO)
    assert measured([file], out).methods[0].name == "always zero"  # corrected, it resumes


def test_what_does_not_belong_together_is_refused(files: list[Path], tmp_path: Path, image_folder) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="two methods have the name 'always zero'"):
        measured([files[1], files[1]], out)
    with pytest.raises(ValueError, match="give at least one file"):
        measured([], out)
    with pytest.raises(ValueError, match=r"requests = 2001: must be a whole number from 1 to 2000"):
        measured(files, out, 2001)
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="exists and is not a bench"):
        measured(files, out)
    (out / "mine.txt").unlink()
    measured(files[1:], out, 1)
    with pytest.raises(ValueError, match="contains a bench on other images, digits: choose another --out"):
        anytime(files[1:], str(image_folder), out=out, requests=1)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Pictures of ten classes."""
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in "abcdefghij":
            for i in range(2):
                file = tmp_path / "pictures" / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    return tmp_path / "pictures"


def test_an_early_exit_network_is_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHS", "1")
    file = ROOT / "benchmarks" / "methods" / "early_exit.py"
    (method,) = measured([file], tmp_path / "out", 5).methods
    assert [option.name for option in method.options] == ["exit 1", "exit 2", "exit 3"]
    macs = 4 * 4 * 9 * (32 + 32 * 32) + 2 * 2 * 9 * (32 * 64 + 64 * 64) + 9 * (64 * 128 + 128 * 128)
    images = len(load_task("digits").train)
    assert method.pflop == pytest.approx(2 * 3 * images * (macs + 10 * (32 + 64 + 128)) / 1e15)
    assert all(len((ROOT / "benchmarks" / "methods" / name).read_text().splitlines()) <= 50 for name in EXAMPLES)


EXAMPLES = ("bundle.py", "onnx_files.py", "early_exit.py")


@pytest.mark.slow
def test_a_bundle_and_onnx_files_are_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image_folder: Path
) -> None:
    pytest.importorskip("onnxruntime")
    for name, value in {"POLYPATH_CACHE": str(tmp_path / "cache"), "RUNTIME": "onnxruntime", "PFLOP": "0.5"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ONNX", str(SHIPPED))
    monkeypatch.delenv("BUNDLE", raising=False)
    both = [ROOT / "benchmarks" / "methods" / name for name in EXAMPLES[:2]]
    bundle, separate = anytime(both, str(image_folder), out=tmp_path / "out", requests=5).methods
    assert [option.name for option in bundle.options] == [path.name for path in reversed(rank(Bundle.open().paths))]
    assert (bundle.pflop, separate.pflop) == (0.5, 0.5)
    errors = {Path(Bundle.open().path(one.name).files["onnx"]).stem: one.error for one in bundle.options}
    assert all(abs(errors[option.name] - option.error) <= 10 for option in separate.options)  # of 20 noise images


@pytest.mark.slow
def test_one_thread_one_core_in_a_process_that_may_be_killed(tmp_path: Path) -> None:
    file, out = tmp_path / "method.py", tmp_path / "out"
    file.write_text(
        ZERO
        + """
import os, sys, time, torch
torch_threads = torch.get_num_threads()
cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
print("not of the result")
def options(folder):
    (folder / "seen").write_text(f"{torch_threads} {cores}")
    time.sleep(0.5)
    return {"only": lambda image: np.arange(10)[::-1]}
"""
    )
    command = [sys.executable, "-m", "polypath", "bench", "anytime", "--method", str(file), "--data.source", "digits"]
    command += ["--requests", "300", "--out", str(out), "--json"]
    environment = child_environment()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("methods/*/*/learnt/seen")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.lstrip().startswith("{")
    assert load_anytime(out).requests == 300
    assert next(out.glob("methods/*/*/learnt/seen")).read_text() == "1 1"
    file.write_text(ZERO.replace("np.arange(10)[::-1]", "np.arange(9)"))
    failed = subprocess.run(command[:-1], env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("polypath: error: ") == 1
    assert "only returned scores of shape (9,): must be (10,)" in failed.stderr
    file.write_text(ZERO + "def train(*_): __import__('os')._exit(7)\n")
    died = subprocess.run(command[:-1], env=environment, capture_output=True, text=True, check=False)
    assert died.returncode == 2
    assert "the process of this method ended with status 7" in died.stderr
