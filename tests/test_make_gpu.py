"""``make gpu``: what was stopped goes on, what fails is told, and each step runs in tiny form without a GPU."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import page
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import epochs, pack, parts, step
from benchmarks.gpu.plan import plan
from benchmarks.gpu.pretended import pretended

HERE = {"revision": "a", "packed": None, "torch": "2", "device_name": "a GPU"}


def test_parts_that_are_there_are_not_measured_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def part(name: str, works: bool = True) -> parts.Part:
        def run() -> dict[str, Any]:
            asked.append(name)
            if not works:
                raise RuntimeError("out of memory")
            return {"rows": [name], "precisions": name}

        return run

    file = tmp_path / "r.json"
    assert not parts.measure(file, {"a": part("a"), "b": part("b", works=False), "c": part("c")}, HERE)
    assert json.loads(file.read_text())["failed"] == {"b": "RuntimeError: out of memory"}
    assert parts.measure(file, {"a": part("a"), "b": part("b"), "c": part("c")}, HERE)
    assert asked == ["a", "b", "c", "b"]
    document = json.loads(file.read_text())
    assert (document["rows"], document["precisions"], document["failed"]) == (["a", "c", "b"], "b", {})
    assert parts.measure(file, {"a": part("a")}, HERE | {"revision": "another"})
    assert json.loads(file.read_text())["rows"] == ["a"]


def test_a_part_that_is_stopped_leaves_those_before_it(tmp_path: Path) -> None:
    def stopped() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        parts.measure(tmp_path / "r.json", {"a": lambda: {"rows": [1]}, "b": stopped}, HERE)
    assert json.loads((tmp_path / "r.json").read_text())["rows"] == [1]


CHILD = """
import sys, time
name = sys.argv[1]
if name == "training":
    time.sleep(60)
sys.exit({"look": 0, "gpu_tests": 1, "gpu_equality": 139}.get(name, 0))
"""


def test_a_step_that_fails_or_takes_too_long_lets_the_next_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_COMMAND", [sys.executable, "-c", CHILD])
    monkeypatch.setattr(command, "STEPS", {**command.STEPS, "training": 0.5})
    monkeypatch.setattr(command, "REHEARSED", 1)
    options = ["--pack", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    assert command.main(["gpu_tests", "gpu_equality", "training", "inference", *options]) == 1
    lines = capfd.readouterr().out.splitlines()[-4:]
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "failed in part, see above",
        "failed (status 139)",
        "stopped at its limit",
        "complete",
    ]
    assert command.main(["inference", *options]) == 0
    assert command.main(["inference", "--seconds", "1e-9", *options]) in (1, 2)


def test_bad_input_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for main, arguments, words in (
        (command.main, ["nothing"], "unknown step 'nothing': must be one of gpu_tests"),
        (command.main, ["--seconds", "0"], "--seconds = 0: must be above 0"),
        (step.main, ["look"], "no CUDA device on this machine; `make gpu-rehearse`"),
        (pack.main, ["--data", str(tmp_path)], "must contain train-*.parquet and test-*.parquet"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert sum(command.STEPS.values()) <= command.SECONDS == 540
    assert command.STEPS.keys() == step.MODULES.keys()


def test_a_pack_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "cifar/data", tmp_path / "pack"
    data.mkdir(parents=True)
    for part in ("train", "test"):
        (data / f"{part}-00000-of-00001.parquet").write_bytes(b"images")
    told: list[str] = []

    def download(versions: list[str], folder: Path, python: str) -> None:
        told.extend(versions)
        folder.mkdir()
        (folder / "a.whl").write_bytes(bytes(100))

    monkeypatch.setattr(pack, "_download", download)
    monkeypatch.setattr(pack, "MOST", 50)
    assert pack.main(["--data", str(data.parent), "--out", str(out)]) == 2
    assert "MiB: must be at most" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar"]
    monkeypatch.undo()
    monkeypatch.setattr(pack, "_download", download)
    assert pack.main(["--data", str(data), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.rglob("*.*")) == [
        "a.whl", "revision.txt", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet",
    ]  # fmt: skip
    assert {line.partition("==")[0].replace("-", "_") for line in told} >= {"datasets", "msgspec", "tyro", "timm"}
    assert pack.main(["--data", str(data), "--out", str(out)]) == 2
    assert "exists; remove it first" in capsys.readouterr().err


@pytest.mark.parametrize("name", epochs.RECIPES)
def test_steps_are_timed_and_the_whole_recipe_projected(name: str) -> None:
    with pretended():
        row = epochs.parts(plan(True, None))[name]()["rows"][0]
    assert (row["recipe"], row["batch_size"], row["images"], row["test_images"]) == (name, 4, 16, 8)
    assert (row["steps_per_epoch"], row["precision"]) == (4, "bf16")
    assert 0 < row["timed_steps"] <= 8
    assert row["epoch_s"] == pytest.approx(row["timed_s"] / row["timed_steps"] * 4)
    assert row["projected_hours"] == pytest.approx((row["epoch_s"] * row["epochs"] + row["test_scoring_s"]) / 3600)
    assert 0.0 < row["last_loss"] < 20.0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif("POLYPATH_REHEARSE_GPU" not in os.environ, reason="takes over 15 minutes on two cores")
def test_every_step_runs_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command.main(["--rehearse", "--pack", str(tmp_path / "none"), "--out", str(out)]) == 0
    results = {file.stem: json.loads(file.read_text()) for file in out.glob("*.json")}
    assert results.keys() == command.STEPS.keys()
    assert all(result["parts"] and not result["failed"] for result in results.values())
    assert "cuda: measured on a processor that stands for a GPU" in page.page({"cuda": results})
