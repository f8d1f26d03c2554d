"""Bundles whose files are links: in the Hub's cache, on a Kubernetes volume, in an installer's own store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from polypath.deploy.bundle import SHIPPED, Bundle
from polypath.deploy.plain_files import PlainFiles
from polypath.deploy.runtimes import open_runtime
from polypath.deploy.triton import write_repository

RUNTIMES = ("onnxruntime", "openvino", "torch")


def in_the_hub_s_cache(place: Path) -> Path:
    """``snapshots/X/NAME -> ../../blobs/N``."""
    blobs, snapshot = place / "blobs", place / "snapshots" / "0123abcd"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(SHIPPED.iterdir())):
        shutil.copyfile(file, blobs / str(i))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(i))
    return snapshot


def on_a_volume(place: Path) -> Path:
    """``NAME -> ..data/NAME``, ``..data -> ..2026_01``, as Kubernetes mounts a config map."""
    shutil.copytree(SHIPPED, place / "..2026_01")
    (place / "..data").symlink_to("..2026_01")
    for file in (place / "..2026_01").iterdir():
        (place / file.name).symlink_to(Path("..data") / file.name)
    return place


def in_a_linked_folder(place: Path) -> Path:
    shutil.copytree(SHIPPED, place / "模型 [x]")
    (place / "link").symlink_to("模型 [x]")
    return place / "link"


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.parametrize("laid_out", [in_the_hub_s_cache, on_a_volume, in_a_linked_folder])
def test_a_bundle_of_links_runs_as_one_of_files(laid_out, name, tmp_path, bundle):
    pytest.importorskip(name)
    x = np.zeros((1, 3, *bundle.size), np.float32)
    wanted, linked = (open_runtime(name, one, 1) for one in (bundle, Bundle.open(laid_out(tmp_path))))
    assert np.array_equal(linked.prepare("column=1", 1)(x), wanted.prepare("column=1", 1)(x))


def test_copies_are_made_where_they_are_needed_and_do_not_stay(tmp_path):
    names = ["model.safetensors", "manifest.json"]
    (tmp_path / "volume").mkdir()
    assert PlainFiles(SHIPPED, names).folder == SHIPPED
    assert PlainFiles(on_a_volume(tmp_path / "volume"), names).folder == tmp_path / "volume"
    files = PlainFiles(in_the_hub_s_cache(tmp_path), names)
    made = files.folder
    assert sorted(p.name for p in made.iterdir()) == sorted(names)
    assert not any(p.is_symlink() for p in made.iterdir())
    assert (made / names[0]).read_bytes() == (SHIPPED / names[0]).read_bytes()
    del files
    assert not made.exists()


def test_a_folder_whose_name_is_no_text(tmp_path, bundle):
    pytest.importorskip("onnxruntime")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    try:
        shutil.copytree(SHIPPED, folder)
    except OSError:
        pytest.skip("no such names in this file system")
    x = np.zeros((1, 3, *bundle.size), np.float32)
    assert open_runtime("onnxruntime", Bundle.open(folder), 1).prepare("column=1", 1)(x).shape == (1, 10)


def test_triton_s_repository_of_files_with_several_names(tmp_path):
    """As installers that link files out of their store leave the bundle of this package; onnx refuses such weights."""
    pytest.importorskip("onnx")
    folder = tmp_path / "installed"
    shutil.copytree(SHIPPED, folder)
    os.link(folder / "model.safetensors", tmp_path / "store")
    one = Bundle.open(folder).with_paths(["column=1"])
    assert len(write_repository(one, tmp_path / "repo")) == 1
