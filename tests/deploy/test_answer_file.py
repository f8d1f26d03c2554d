"""Answers to many images in one file: complete or absent, and the same whether or not a call was stopped."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import child_environment
from polypath.cli import main
from polypath.data.images import LIMITS
from polypath.deploy import answer_file
from polypath.deploy.answer import Answer
from polypath.deploy.answer_file import Asked, runtime_of, write_answers
from polypath.deploy.images import Preparation, files_of
from polypath.storage.decode import read

CLASSES = ("cat", 'a "dog", or\nnot', "owl")
ODD = 'odd, "name"\nof two lines.png'


class Fake:
    """Answers depend on the first pixel and on the batch size, as the last digits of a real network's do."""

    def __init__(self, digest: str = "d0") -> None:
        prep = Preparation((4, 4), (0.5,) * 3, (0.5,) * 3)
        self.bundle = SimpleNamespace(name="fake", digest=digest, classes=CLASSES, preparation=prep, path=self._named)
        self.runtime, self.limits, self.precision = SimpleNamespace(name="fakes"), LIMITS, "f32"
        self.batches: list[int] = []
        self.stop_at: int | None = None

    def _named(self, name: str) -> Any:
        if name not in ("whole", "small"):
            raise ValueError(f"no path {name!r}")
        return SimpleNamespace(name=name)

    def choose(self, budget_ms: float) -> str:
        return "small"

    def predict(self, images: Any, budget_ms: float | None = None, path: str | None = None, *, top_k: int) -> Answer:
        pixels = self.bundle.preparation.array(images)
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append(len(pixels))
        first = pixels[:, 0, 0, 0].astype(np.float32) / 255
        z = np.stack([first, 1 - first, np.full_like(first, len(pixels) / 100)], axis=1)
        p = z / z.sum(1, keepdims=True)
        return Answer(probabilities=p, classes=CLASSES, path=path or "whole", ms=1.0, runtime="fakes", top_k=top_k)


def fake(digest: str = "d0") -> Any:
    """A :class:`Fake` in a predictor's place."""
    return Fake(digest)


@pytest.fixture
def files(tmp_path):
    """23 files, two of which are not images, one with a name that CSV must quote."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        Image.new("RGB", (4, 4), (12 * i, 0, 0)).save(folder / f"{i:02}.png")
    Image.new("RGB", (4, 4), (250, 0, 0)).save(folder / ODD)
    (folder / "05a.jpg").write_bytes(b"no image")
    (folder / "zz.jpg").write_bytes(b"no image, either")
    return list(files_of([folder]))


def rows_of(file) -> list[dict[str, str]]:
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_row_an_image_in_the_order_of_the_files(files, tmp_path):
    predictor = fake()
    written = write_answers(predictor, files, tmp_path / "a.csv", path="small", batch=8)
    rows = rows_of(tmp_path / "a.csv")
    assert list(rows[0]) == ["file", "class", "probability", "path", "error"]
    assert [row["file"] for row in rows] == list(map(str, files))
    bad = [row for row in rows if row["error"]]
    assert [os.path.basename(row["file"]) for row in bad] == ["05a.jpg", "zz.jpg"]
    assert all(row["error"].startswith("this is not an image") and not row["class"] + row["path"] for row in bad)
    assert {row["path"] for row in rows if not row["error"]} == {"small"}
    assert rows[0]["class"] == CLASSES[1]
    assert float(rows[0]["probability"]) == pytest.approx(1 / 1.07, abs=1e-6)  # in a batch of 8, one of them bad
    assert predictor.batches == [7, 8, 6]
    assert (written.images, written.failed) == (23, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.csv", "a.csv.json", "images"]
    assert json.loads((tmp_path / "a.csv.json").read_text())["digest"] == "d0"


def test_parquet_says_the_same(files, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    monkeypatch.setattr(answer_file, "ROW_GROUP", 10)
    for name in ("a.csv", "a.parquet"):
        write_answers(fake(), files, tmp_path / name, top_k=2, batch=8)
    found = pq.ParquetFile(tmp_path / "a.parquet")
    assert found.num_row_groups == 3
    assert len(found.schema_arrow.names) == 7
    for row, text in zip(found.read().to_pylist(), rows_of(tmp_path / "a.csv"), strict=True):
        assert [row[name] or "" for name in ("file", "class", "path", "error", "class_2")] == [
            text[name] for name in ("file", "class", "path", "error", "class_2")
        ]
        assert (row["probability"] is None) == bool(text["error"])
        assert row["probability_2"] == (
            None if text["error"] else pytest.approx(float(text["probability_2"]), abs=1e-7)
        )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_later_call_resumes_a_stopped_one(files, tmp_path, suffix):
    out, predictor = tmp_path / f"a.{suffix}", fake()
    predictor.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        write_answers(predictor, files, out, batch=6)
    assert not out.exists()
    assert runtime_of(out) == "fakes"
    again = fake()
    write_answers(again, files, out, batch=6)
    assert len(again.batches) == 2  # of four: two were there
    assert not (tmp_path / f"{out.name}.part").exists()
    write_answers(fake(), files, tmp_path / f"b.{suffix}", batch=6)
    assert out.read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    done = fake()
    assert write_answers(done, files, out, batch=6).failed == 2
    assert done.batches == []  # it is whole


@pytest.fixture
def stopped(files, tmp_path):
    """``write_answers`` to ``a.csv`` stopped before anything was answered, and what ``whole.csv`` has in the end."""
    write_answers(fake(), files, tmp_path / "whole.csv", batch=6)
    predictor = fake()
    predictor.stop_at = 0
    with pytest.raises(KeyboardInterrupt):
        write_answers(predictor, files, tmp_path / "a.csv", batch=6)
    return tmp_path / "a.csv.part", (tmp_path / "whole.csv").read_bytes()


ENDS = (b"", b"\0" * 50, b'"', b"\xff,\n")
"""What may follow the written rows: nothing, or the leftovers of a power cut."""


def test_wherever_the_rows_end_whole_batches_are_kept(files, stopped):
    """Cut in the middle of a row, of a quoted name or of a character."""
    work, whole = stopped
    names = list(map(str, files))
    asked = read(work / "asked.json", Asked)
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    starts = []
    for row in csv.reader(io.StringIO(whole.decode(), newline="")):
        rows.writerow(row)
        starts.append(len(text.getvalue().encode()))
    assert starts[-1] == len(whole)
    kept = {starts[i]: i for i in (0, 6, 12, 18, 23)}
    near = {at + d for at in kept for d in (-1, 0, 1)}
    for cut in sorted({*range(0, len(whole), 11), *near} - {len(whole) + 1}):
        full = max((at for at in kept if at <= cut), default=0)
        for end in ENDS:
            (work / "rows.csv").write_bytes(whole[:cut] + end)
            found = answer_file._Rows(work / "rows.csv", names, asked)
            assert (found.kept, found._length) == (kept.get(full, 0), full)


@pytest.mark.parametrize("share", [0.3, 0.62, 1.0])
@pytest.mark.parametrize("end", ENDS[:2])
def test_wherever_the_rows_end_the_file_is_the_same(files, tmp_path, stopped, share, end):
    work, whole = stopped
    (work / "rows.csv").write_bytes(whole[: int(share * len(whole))] + end)
    write_answers(fake(), files, tmp_path / "a.csv", batch=6)
    assert (tmp_path / "a.csv").read_bytes() == whole
    assert not work.exists()


def test_other_options_are_refused_and_the_difference_is_named(files, tmp_path):
    out = tmp_path / "a.csv"
    stopped = fake()
    stopped.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        write_answers(stopped, files, out, batch=6)
    for whole in (False, True):
        if whole:
            write_answers(fake(), files, out, batch=6)
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        for predictor, given, options, words in (
            (fake("d1"), files, {}, "digest = 'd0', not 'd1'"),
            (fake(), files[1:], {}, "images = 23, not 22"),
            (fake(), files[::-1], {}, "names = "),
            (fake(), files, {"path": "small"}, "path = None, not 'small'"),
            (fake(), files, {"budget_ms": 5.0}, "budget_ms = None, not 5.0"),
            (fake(), files, {"top_k": 2}, "top_k = 1, not 2"),
            (fake(), files, {"batch": 7}, "batch = 6, not 7"),
        ):
            with pytest.raises(ValueError, match=words):
                write_answers(predictor, given, out, **{"batch": 6, **options})
            assert predictor.batches == []
        assert {file: file.read_bytes() for file in before} == before


def test_a_file_that_is_not_ours_stays(files, tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"a\.csv: this file exists, but a\.csv\.json does not"):
        write_answers(fake(), files, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("a.txt", {}, r"must be one of \.csv, \.parquet"),
        ("no/a.csv", {}, "the folder .* does not exist"),
        ("a.csv", {"batch": 0}, "batch = 0"),
        ("a.csv", {"top_k": 4}, "top_k = 4"),
        ("a.csv", {"path": "other"}, "no path 'other'"),
        ("a.csv", {"path": "small", "budget_ms": 1.0}, "give only one of them"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(files, tmp_path, out, options, words):
    with pytest.raises(ValueError, match=words):
        write_answers(fake(), files, tmp_path / out, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["images"]


def test_with_a_budget_each_image_is_answered_by_itself(files, tmp_path):
    predictor = fake()
    write_answers(predictor, files, tmp_path / "a.csv", budget_ms=5.0, batch=8)
    assert predictor.batches == [1] * 21


def test_a_batch_of_images_is_held_at_a_time(tmp_path, monkeypatch):
    for i in range(300):
        Image.new("RGB", (4, 4), (i % 256, 0, 0)).save(tmp_path / f"{i:03}.bmp")
    files, held, most = list(files_of([tmp_path])), [0], [0]
    real = Preparation.array

    def array(self, *given):
        made = real(self, *given)
        held[0] += len(made)
        most[0] = max(most[0], held[0])
        weakref.finalize(made, lambda n: held.__setitem__(0, held[0] - n), len(made))
        return made

    monkeypatch.setattr(Preparation, "array", array)
    write_answers(fake(), files, tmp_path / "a.csv", batch=10)
    assert len(rows_of(tmp_path / "a.csv")) == 300
    assert 10 <= most[0] <= 4 * 10  # of 300; a batch is held by itself, stacked, and one may wait for its successor


# --- on the command line -------------------------------------------------------------------------------------

QUICK = ["--runtime", "onnxruntime", "--threads", "1"]


def test_the_command_writes_goes_on_and_refuses(files, tmp_path, set_times, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    out = tmp_path / "a.csv"
    ask = ["predict", str(tmp_path / "images"), "--out", str(out), "--path", "column=1", "--threads", "1"]
    real, calls = answer_file._answered, []

    def answered(predictor, given, asked):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(given)
        return real(predictor, given, asked)

    with monkeypatch.context() as patch:
        patch.setattr(answer_file, "_answered", answered)
        assert main([*ask, *QUICK, "--batch", "8"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert main([*ask, "--batch", "8"]) == 1  # by the runtime that it was begun with
    assert "23 images, 2 of them not classified (see column error)" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.csv.json").read_text())["runtime"] == "onnxruntime"
    assert main([*ask, "--json", "--batch", "8"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"out": str(out), "images": 23, "failed": 2, "runtime": "onnxruntime"}
    assert main([*ask, "--batch", "9"]) == 2
    assert "batch = 8, not 9" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "images"), "--batch", "9", *QUICK]) == 2
    assert "--batch: is only allowed with --out" in capsys.readouterr().err
    rows = rows_of(out)
    assert len({row["class"] for row in rows if row["class"]}) >= 1
    assert {row["path"] for row in rows} == {"column=1", ""}


def test_nothing_but_bad_images(tmp_path, set_times, capsys):
    pytest.importorskip("onnxruntime")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert main(["predict", str(tmp_path), "--out", str(tmp_path / "a.csv"), *QUICK]) == 2
    assert "none of 1 images could be classified; " in capsys.readouterr().err
    assert rows_of(tmp_path / "a.csv")[0]["error"].startswith("this is not an image")


@pytest.mark.slow
def test_killed_and_called_again_it_writes_the_same_file(tmp_path, set_times):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "images"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")

    def ask(name: str) -> list[str]:
        return ["predict", str(folder), "--out", str(tmp_path / name), "--batch", "3", *QUICK]

    assert main(ask("whole.csv")) == 0
    command = [sys.executable, "-m", "polypath", *ask("a.csv")]
    rows, at = tmp_path / "a.csv.part" / "rows.csv", []
    for least in (1, 5000, 9000):  # bytes that have to be there when it is killed
        process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            if rows.is_file() and rows.stat().st_size >= least:
                break
            time.sleep(0.002)
        process.kill()
        process.wait()
        at.append(rows.stat().st_size if rows.is_file() else None)
    assert at[0] is not None  # at least the first was stopped on its way
    assert main(ask("a.csv")) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    records = [json.loads((tmp_path / f"{name}.csv.json").read_text()) for name in ("a", "whole")]
    assert records[0] == records[1]
