"""Checkpoints: written atomically, read only if intact; a hundred damaged runs, none of which crashes or runs code."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
from pathlib import Path

import pytest
import torch
from tiny import equal, images, left, tiny

from polypath.storage.digests import json_digest
from polypath.training.checkpoint import Checkpoint, Checkpoints
from polypath.training.loop import resume, train

TENSORS = {"model/a": torch.arange(6.0).view(2, 3), "model/b": torch.tensor(3), "optim/a": torch.ones(2, 3).half()}
STATE = {"epoch": 1, "float": 0.1 + 0.2, "none": None}


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "run" / "checkpoints", "recipe")


def fill(store: Checkpoints, *steps: int) -> None:
    for step in steps:
        store.save(Checkpoint(step, {k: t + step for k, t in TENSORS.items()}, {**STATE, "epoch": step}))


# --- one checkpoint ----------------------------------------------------------------------------------------


def test_round_trip_to_the_bit(store: Checkpoints) -> None:
    tensors = {**TENSORS, "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)}
    store.save(Checkpoint(7, tensors, STATE))
    found = store.load(7)
    assert equal(found.tensors, {k: t.contiguous() for k, t in tensors.items()})
    assert found.state == STATE
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-00000007.json", "step-00000007.safetensors"]


def test_newest_and_best_are_kept(store: Checkpoints) -> None:
    fill(store, 1, 2, 3, 4, 5)
    store.keep(2, [2])
    assert store.steps() == [2, 4, 5]
    store.after(4)
    assert store.steps() == [2, 4]
    assert len(list(store.folder.iterdir())) == 4


def test_what_a_killed_process_left_is_cleared(store: Checkpoints) -> None:
    fill(store, 1)
    (store.folder / ".step-00000002.safetensors.77.tmp").write_bytes(b"half")
    (store.folder / "step-00000002.safetensors").write_bytes(b"whole, and its JSON never came")
    assert store.steps() == [1]
    store.after(1)
    assert len(list(store.folder.iterdir())) == 2


def test_another_recipe_or_format_is_refused(store: Checkpoints) -> None:
    fill(store, 1)
    with pytest.raises(ValueError, match=r"another recipe than this run's recipe\.json"):
        Checkpoints(store.folder, "other").load(1)
    file = store.folder / "step-00000001.json"
    body = json.loads(file.read_text())
    body |= {"format": 99}
    del body["checksum"]
    file.write_text(json.dumps({**body, "checksum": json_digest(body)}))
    with pytest.raises(ValueError, match="format 99"):
        store.load(1)


def test_newest_that_fits(store: Checkpoints) -> None:
    assert store.newest() is None
    fill(store, 1, 2, 3)
    said: list[str] = []

    def fits(checkpoint: Checkpoint) -> None:
        if checkpoint.step > 1:
            raise ValueError(f"not {checkpoint.step}")

    found = store.newest(fits, said.append)
    assert found is not None
    assert found.step == 1
    assert [("not 3" in line, "resuming from step 1" in line) for line in said] == [(True, True), (False, True)]
    (store.folder / "step-00000001.safetensors").unlink()
    with pytest.raises(ValueError, match="no checkpoint can be used"):
        store.newest(fits, said.append)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system cannot limit the size of files")
def test_no_space_leaves_the_earlier_one(store: Checkpoints) -> None:
    fill(store, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with pytest.raises(OSError, match=r"step 2 \(0\.4 MiB\).*step 1 is intact; free some space") as error:
            store.save(Checkpoint(2, {"model/big": torch.zeros(100_000)}, STATE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno
    assert store.steps() == [1]
    assert store.load(1).state["epoch"] == 1
    assert len(list(store.folder.iterdir())) == 2


# --- a hundred damaged runs --------------------------------------------------------------------------------


class Bomb:
    """Stands for a malicious pickle."""

    fuse = ""

    def __reduce__(self):
        return os.mkdir, (self.fuse,)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after its second epoch, with the checkpoints of both."""
    path = tmp_path_factory.mktemp("begun") / "run"
    train(tiny(epochs=3, keep=9), path, data=images(), quiet=True)
    for file in ("summary.json", "curves.png"):
        (path / file).unlink()
    shutil.rmtree(path / "model")
    last = (path / "checkpoints").glob("step-00000015.*")
    for file in last:
        file.unlink()
    return path


def damage(run: Path, kind: str, draw: random.Random) -> str:
    """Damage a run in one way; returns the damaged file."""
    files = sorted(p for p in run.rglob("*") if p.suffix in (".safetensors", ".json", ".jsonl"))
    newest = [p for p in files if p.name.startswith("step-00000010")]
    file = draw.choice([*newest, *newest, *files])
    data = bytearray(file.read_bytes())
    if kind == "cut":
        file.write_bytes(data[: draw.randrange(len(data))])
    elif kind == "flip":
        for _ in range(draw.choice((1, 8))):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        file.write_bytes(data)
    elif kind == "zeros":
        begin = draw.randrange(len(data))
        file.write_bytes(data[:begin] + bytes(len(data) - begin))
    elif kind == "missing":
        file.unlink()
    elif kind == "folder":
        file.unlink()
        file.mkdir()
    elif kind == "pickle":
        bomb = Bomb()
        bomb.fuse = str(run / "exploded")
        file.write_bytes(pickle.dumps(bomb))
    elif kind == "model":  # whole files of another network under this run's names
        other = tiny(model__widths=(3, 3)).model.build(0).state_dict()
        store = Checkpoints(run / "checkpoints", json.loads(newest[0].read_text())["recipe"])
        state = store.load(10).state
        store.save(Checkpoint(10, {f"model/{k}": t for k, t in other.items()}, state))
    elif kind == "nonsense":
        file.write_text(draw.choice(("[]", "null", '{"epochs": "many"}', "[" * 100_000, "{}", '"text"')))
    return file.name


KINDS = ("cut", "flip", "zeros", "missing", "folder", "pickle", "model", "nonsense")


@pytest.mark.parametrize("runs", [32, pytest.param(104, marks=pytest.mark.slow)])
def test_damaged_runs(
    runs: int, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import polypath.training.loop as loop

    whole, _ = left(begun)
    monkeypatch.setattr(loop._Session, "_train_epoch", lambda self, request: (_ for _ in ()).throw(Reached()))
    outcomes = {"recovered": 0, "refused": 0, "harmless": 0}
    for number in range(runs):
        kind, draw = KINDS[number % len(KINDS)], random.Random(number)
        run = tmp_path / str(number)
        shutil.copytree(begun, run)
        file = damage(run, kind, draw)
        caplog.clear()
        with pytest.raises((Reached, ValueError)) as end:
            resume(run, data=images())
        if end.type is Reached:  # restored, and about to train
            checkpoint, _ = left(run)
            if checkpoint.step == 10:
                assert equal(checkpoint.tensors, whole.tensors), (kind, file)
                outcomes["harmless"] += 1
            else:
                assert checkpoint.step == 5
                assert any("skipped a checkpoint" in line for line in caplog.messages) or kind == "missing", (
                    kind,
                    file,
                )
                outcomes["recovered"] += 1
        else:
            assert str(run) in str(end.value), (kind, file)
            outcomes["refused"] += 1
        assert not (run / "exploded").exists()
        shutil.rmtree(run)
    assert outcomes["recovered"] > runs / 4
    assert outcomes["refused"] > runs / 20


def test_a_run_without_a_checkpoint_starts_from_the_beginning_and_tells_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import polypath.training.loop as loop

    monkeypatch.setattr(loop._Session, "_train_epoch", lambda self, request: (_ for _ in ()).throw(Reached()))
    with pytest.raises(Reached):
        train(tiny(), tmp_path / "run", data=images())
    assert caplog.messages == []
    with pytest.raises(Reached):
        resume(tmp_path / "run", data=images(), quiet=True)
    assert caplog.messages == []
    with pytest.raises(Reached):
        resume(tmp_path / "run", data=images())
    assert caplog.messages == [f"{tmp_path / 'run'} has no checkpoint yet: starting from the beginning"]


class Reached(Exception):
    pass


def test_a_recovered_run_ends_as_an_undamaged_one(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path / "damaged")
    shutil.copytree(begun, tmp_path / "whole")
    file = tmp_path / "damaged" / "checkpoints" / "step-00000010.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    (a, rows), (b, others) = (finish(tmp_path / name) for name in ("damaged", "whole"))
    assert rows == others
    assert equal(a.tensors, b.tensors)


def finish(run: Path):
    resume(run, data=images(), quiet=True)
    return left(run)
