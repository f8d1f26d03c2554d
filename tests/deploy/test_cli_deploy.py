from __future__ import annotations

import json
import os
import shutil
import time
import warnings

import numpy as np
import pytest
from PIL import Image

from polypath.cli import main
from polypath.deploy.bundle import SHIPPED

pytest.importorskip("onnxruntime")
QUICK = ["--runtime", "onnxruntime", "--threads", "1"]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    for i in range(2):
        array = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(array).save(place / f"{i}.png")
    return place


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predicts_images_of_a_folder_as_json_lines(folder, set_times, capsys):
    assert main(["predict", str(folder), "--json", "--top-k", "2", "--budget-ms", "100000", *QUICK]) == 0
    rows = lines(capsys)
    assert [row["image"] for row in rows] == [str(folder / "0.png"), str(folder / "1.png")]
    for row in rows:
        assert len(row["top"]) == 2
        assert row["runtime"] == "onnxruntime"
        assert row["ms"] > 0
    assert main(["predict", str(SHIPPED), str(folder / "0.png"), "--json", "--path", "column=1", *QUICK]) == 0
    (named,) = lines(capsys)
    assert named["path"] == "column=1"


def test_times_are_measured_again_when_asked(folder, set_times, capsys):
    ask = ["predict", str(folder / "0.png"), "--json", "--budget-ms", "100000", *QUICK]
    for options, made in (([], 1), ([], 1), (["--profile", "fresh"], 2), (["--profile", "0.5"], 3), ([], 3)):
        assert main([*ask, *options]) == 0
        assert len(set_times) == made
    assert main([*ask[:3], *QUICK, "--profile", "fresh"]) == 0  # for later sessions, though no budget needs it here
    assert len(set_times) == 4


def test_predicts_as_a_table(folder, set_times, capsys):
    assert main(["predict", str(folder), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "0.png" in out
    assert "%" in out
    assert "onnxruntime" in out


def spoil(folder):
    """Beside two good images: one that is none, a pipe, a link to nothing, a good one of an odd name, a hidden one."""
    (folder / "bad.jpg").write_bytes(b"no image")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere")
    shutil.copy(folder / "0.png", folder / os.fsdecode(b"caf\xe9.png"))
    (folder / "._0.png").write_bytes(b"of a Mac")


def test_bad_images_are_listed_and_the_others_answered(folder, set_times, capsys):
    spoil(folder)
    assert main(["predict", str(folder), *QUICK]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()[3:]] == [f"{folder}/{n}.png" for n in ("0", "1", r"caf\xe9")]
    assert "not classified: 3 of 6 images" in err
    told = [line.strip() for line in err.splitlines() if line.startswith("  ")]
    assert told[0].startswith(f"{folder}/bad.jpg: this is not an image")
    assert told[1:] == [
        f"{folder}/gone.png: No such file or directory",
        f"{folder}/pipe.png: must be a regular file, but is a pipe",
    ]


def test_bad_images_are_entries_of_the_json(folder, set_times, capsys):
    spoil(folder)
    assert main(["predict", str(folder), "--json", *QUICK]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [os.path.basename(row["image"]) for row in rows] == [
        *("0.png", "1.png", "bad.jpg", r"caf\xe9.png", "gone.png", "pipe.png")
    ]
    assert ["error" in row for row in rows] == ["top" not in row for row in rows]
    assert [row["error"] for row in rows if "error" in row][1:] == [
        *("No such file or directory", "must be a regular file, but is a pipe")
    ]


def test_metadata_that_are_not_read_give_no_warning(folder, set_times, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 50)).save(folder / "0.png", "JPEG", exif=exif.tobytes()[:-6])
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        Image.open(folder / "0.png").getexif()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert main(["predict", str(folder), "--json", *QUICK]) == 0
    assert not [warning for warning in told if "EXIF" in str(warning.message)]
    assert len(lines(capsys)) == 2


def test_an_image_is_answered_before_the_next_is_read(folder, set_times, capsys, monkeypatch):
    """What is finished is shown, whatever comes after it."""
    from polypath.deploy import AnytimePredictor

    real, seen = AnytimePredictor.predict, []

    def predict(self, image, **options):
        if seen:
            raise KeyboardInterrupt
        seen.append(image)
        return real(self, image, **options)

    monkeypatch.setattr(AnytimePredictor, "predict", predict)
    assert main(["predict", str(folder), *QUICK]) == 130
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{folder}/0.png")


def test_a_run_is_not_taken_for_a_folder_of_images(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.json").write_text("{}")
    assert main(["predict", str(tmp_path / "run"), "photo.jpg", *QUICK]) == 2
    assert "this is an unfinished run: continue it with `polypath resume" in capsys.readouterr().err


def test_nothing_but_bad_images_is_status_2(folder, set_times, capsys):
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(b"no image")
    assert main(["predict", str(folder), *QUICK]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 4)
    assert err.splitlines()[-1] == "polypath: error: none of 2 images could be classified"
    assert main(["predict", str(folder), "--json", *QUICK]) == 2
    assert len(lines(capsys)) == 2


def test_an_image_that_takes_too_long_is_one_of_the_bad(folder, set_times, capsys, monkeypatch):
    from polypath.deploy import decoder

    real = decoder.open_image
    first = (folder / "0.png").read_bytes()

    def slow(data, *limits, **options):
        time.sleep(0.2 if data == first else 0)
        return real(data, *limits, **options)

    monkeypatch.setattr(decoder, "open_image", slow)
    assert main(["predict", str(folder), "--budget-ms", "150", *QUICK]) == 1
    assert "0.png: budget_ms 150 cannot be met" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--budget-ms", "nan"], "budget_ms = nan"),
        (["--budget-ms", "-1"], "budget_ms = -1.0"),
        (["--budget-ms", "0.001"], "cannot be met: the cheapest path needs 1 ms"),
        (["--budget-ms", "1", "--path", "whole"], "give only one of them"),
        (["--allow-late"], "--allow-late: is only allowed with --budget-ms"),
        (["--path", "column=7"], "give one of column=1"),
        (["--top-k", "11"], "only 10 classes"),
        (["--profile", "0"], "--profile: '0' is not stored, fresh or a number of seconds above 0"),
        (["--profile", "new"], "--profile: 'new' is not"),
        (["--runtime", "tpu"], "must be auto or one of"),
    ],
)
def test_mistakes_are_one_line_and_status_2(folder, set_times, capsys, arguments, words):
    assert main(["predict", str(folder / "0.png"), *QUICK, *arguments]) == 2
    caught = capsys.readouterr()
    assert words in caught.err
    assert caught.err.count("\n") == 1
    assert caught.out == ""


def test_places_without_images_are_status_2(tmp_path, capsys):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    for places, words in (
        ([str(tmp_path / "none.png")], "no such file"),
        ([str(tmp_path / "bad.jpg"), *QUICK], "bad.jpg: this is not an image"),
        ([str(SHIPPED)], "add images"),
    ):
        assert main(["predict", *places]) == 2
        assert words in capsys.readouterr().err


def test_export_refuses_a_folder_that_is_there(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("")
    assert main(["export", str(SHIPPED), "--out", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


def test_export_tells_results_on_standard_output_and_notes_on_standard_error(tmp_path, capsys):
    source, out = str(SHIPPED), tmp_path / "graphs"
    assert main(["export", source, "--format", "torch", "--paths", "column=1", "--out", str(out)]) == 0
    results, notes = capsys.readouterr()
    (file,) = out.iterdir()
    assert results.startswith(f"wrote {file}: ")
    assert notes.startswith(f"{file.stem}: torch.export: max difference ")
    assert results.count("\n") == notes.count("\n") == 1


def test_triton_s_repository_has_a_model_a_path(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    import onnxruntime

    assert main(["export", str(SHIPPED), "--format", "triton", "--out", str(tmp_path / "repo"), "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["models"]
    assert sorted(names) == sorted(p.name for p in (tmp_path / "repo").iterdir())
    for name in names:
        assert f'name: "{name}"' in (tmp_path / "repo" / name / "config.pbtxt").read_text()
        assert len((tmp_path / "repo" / name / "labels.txt").read_text().split()) == 10
        file = tmp_path / "repo" / name / "1" / "model.onnx"
        model = onnx.load(file, load_external_data=False)
        assert not any(i.external_data for i in model.graph.initializer)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.zeros((2, 3, 32, 32), np.float32)})
    assert isinstance(logits, np.ndarray)
    assert logits.shape == (2, 10)
