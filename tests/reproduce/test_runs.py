"""The store of runs: what determines a key, what is shared, and which code counts."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_experiments import tiny

from polypath.reproduce import code, runs
from polypath.reproduce.experiment import Scale
from polypath.reproduce.images import Images
from polypath.reproduce.runner import reproduce
from polypath.reproduce.runs import RunStore
from polypath.storage.lock import FolderLock
from polypath.training.loop import train
from polypath.training.recipe import replace as changed

RECIPE = tiny().scale("smoke").arms["learns"]


def key(changes: dict[str, Any] | None = None, **more: Any) -> str:
    return RunStore().run(changed(RECIPE, (changes or {}) | more), Images()).folder.name


def test_a_run_is_known_by_all_that_decides_its_numbers(monkeypatch):
    assert key() == key() == key(name="another", device="auto" if not torch.cuda.is_available() else "cpu")
    assert key().startswith("plain-")
    others = [key(seed=1), key(epochs=2), key({"optim.lr": 0.01}), key(precision="bf16"), key({"data.size": 4})]
    monkeypatch.setattr(runs, "training_id", lambda: "another")
    others.append(key())
    assert len({*others, key()}) == len(others)


def test_checkpoints_come_every_epoch_but_where_they_are_points_of_a_figure():
    def every(**changes) -> int:
        return RunStore().run(changed(RECIPE, changes), Images()).recipe.checkpoint_every

    assert every(checkpoint_every=5, keep=1) == every(checkpoint_every=5, keep=2) == 1
    assert every(checkpoint_every=5, keep=9) == 5


def test_experiments_share_the_runs_of_arms_that_they_have_in_common(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(runs, "train", lambda recipe, *a, **k: trained.append(recipe) or train(recipe, *a, **k))
    reproduce(tiny(), "smoke", seeds=1, out=tmp_path / "one")
    assert len(trained) == 2
    arms = {"of another name": RECIPE, "the same": RECIPE}
    other = replace(tiny(), name="fractalnet/other", scales={"smoke": lambda: Scale(arms=arms)}, claims=())
    result = reproduce(other, "smoke", seeds=1, out=tmp_path / "other")
    assert len(trained) == 2
    assert result.errors["the same"] == result.errors["of another name"]


def test_arms_may_be_trained_for_both_lengths(tmp_path, own_runs):
    arms = {arm: changed(recipe, {"epochs": 2}) for arm, recipe in tiny().scale("smoke").arms.items()}
    both = replace(tiny(), scales={"smoke": lambda: Scale(arms=arms, seeds=1, both_lengths=True)})
    result = reproduce(both, "smoke", out=tmp_path / "out")
    once = reproduce(tiny(), "smoke", seeds=1, out=tmp_path / "once")  # trains nothing: half of two is one
    assert len(list(own_runs.glob("*/run"))) == 4
    assert result.half_errors == once.errors
    assert result.half_values == once.values
    assert result.precisions == ["fp32"]


def test_another_writer_is_waited_for(tmp_path, monkeypatch, caplog):
    """Locks belong to processes, so the other writer is a fork."""
    caplog.set_level("INFO", runs.LOG.name)
    store, images = RunStore(), Images()
    run = store.run(RECIPE, images)
    run.folder.mkdir(parents=True)
    read, write = os.pipe()
    if (other := os.fork()) == 0:
        with FolderLock(run.folder):
            os.write(write, b"!")
            time.sleep(0.3)
        os._exit(0)
    os.read(read, 1)
    monkeypatch.setattr(runs.time, "sleep", lambda seconds: threading.Event().wait(0.05))
    store.finish(run, images, "it")
    os.waitpid(other, 0)
    assert run.finished
    assert sum(text.startswith("waiting: ") for text in caplog.messages) == 1


def test_the_store_needs_a_place(monkeypatch):
    monkeypatch.setattr(runs, "runs_folder", lambda: None)
    with pytest.raises(ValueError, match="--runs DIR or POLYPATH_RUNS"):
        RunStore()


# --- which code counts --------------------------------------------------------------------------------------------


def test_comments_docstrings_and_layout_are_no_code():
    plain = "def f(x):\n    return x + 1\n"
    assert code.code_of('"""Says."""\n# why\ndef f(x):\n    """Adds."""\n\n    return (x + 1)\n') == code.code_of(plain)
    assert code.code_of(plain) != code.code_of(plain.replace("1", "2"))


def test_modules_are_followed_through_lazy_imports(tmp_path):
    package = tmp_path / "polypath"
    for name, text in {
        "__init__": "",
        "a": "def f():\n    from polypath.b import c\n",
        "b/__init__": "",
        "b/c": "import numpy, polypath.d\n",
        "d": "",
        "e": "import polypath.a",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / f"{name}.py").write_text(text)
    assert list(code.modules_of(["polypath.a"], package)) == [f"polypath.{n}" for n in ("a", "b", "b.c", "d")]


def test_a_training_run_imports_nothing_that_its_digest_leaves_out():
    """In a separate process, which has imported nothing yet."""
    import subprocess
    import sys

    from conftest import child_environment

    program = (
        "import sys, tempfile; from polypath.training.loop import train; from polypath.training.recipes import "
        "get_recipe; from polypath.training.recipe import replace\n"
        "recipe = replace(get_recipe('crescendonet-digits'), {'epochs': 1, 'data.train_images': 64})\n"
        "train(recipe, tempfile.mkdtemp() + '/run', quiet=True)\n"
        "print(*(n for n in sys.modules if n.startswith('polypath')))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counted = code.modules_of(code.TRAINING)
    files = {name for name in done.stdout.split() if name.count(".") > 1}  # packages themselves hold no training code
    assert {n for n in files if n not in counted and not n.startswith(code.RECIPES)} == set()


def test_digests_are_of_the_code_at_hand(monkeypatch, tmp_path):
    own, all_of_it = code.modules_of(code.TRAINING), code.modules_of(["polypath.reproduce.runner", *code.TRAINING])
    assert set(own) < set(all_of_it)
    assert not any(name.startswith(("polypath.reproduce", "polypath.serve", "polypath.deploy")) for name in own)
    assert len(code.training_id()) == len(code.code_id()) == 12
    assert code.training_id() != code.code_id()
