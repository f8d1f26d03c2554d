"""The folder of a run: which files are read, how often, and the errors of damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import images, tiny

from polypath.training import run as module
from polypath.training.loop import resume, train
from polypath.training.run import RunFolder
from polypath.training.schedules import ScheduleConfig


def test_checkpoints_are_tied_to_the_recipe_as_it_was_written(tmp_path: Path) -> None:
    """Whole numbers in fields of numbers are read as such and not as ``1.0``, for the digest at least."""
    recipe = tiny(optim__lr=1, schedule=ScheduleConfig(kind="step", at_epochs=(1, 2)))
    begun = RunFolder(tmp_path / "run", recipe)
    begun.create()
    begun.lock.release()
    found = RunFolder.open(tmp_path / "run")
    assert found.recipe == recipe
    assert found.checkpoints.recipe == begun.checkpoints.recipe


def test_a_resumed_run_reads_its_recipe_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(epochs=1), tmp_path / "run", data=images(), quiet=True)
    (tmp_path / "run" / "summary.json").unlink()
    read: list[str] = []
    made: list[Path] = []
    read_json, init = module.read_json, RunFolder.__init__

    def counted(file: Path) -> Any:
        read.append(file.name)
        return read_json(file)

    def noted(self: RunFolder, path: Path, *rest: Any) -> None:
        made.append(path)
        init(self, path, *rest)

    monkeypatch.setattr(module, "read_json", counted)
    monkeypatch.setattr(RunFolder, "__init__", noted)
    for _ in range(2):  # unfinished, then finished
        read.clear()
        made.clear()
        resume(tmp_path / "run", data=images(), quiet=True)
        assert read == ["recipe.json"]
        assert made == [tmp_path / "run"]


@pytest.mark.parametrize("line", ["{", "3", "[" * 100_000])
def test_a_damaged_line_of_metrics_is_named(line: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", tiny())
    folder.create()
    folder.lock.release()
    folder.metrics_file.write_text('{"epoch": 1, "rate": NaN}\n')
    assert folder.metrics()[0]["epoch"] == 1
    with folder.metrics_file.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        folder.metrics()


@pytest.mark.parametrize("text", ["{", "[]", '{"sessions": 3}', '{"sessions": [3]}'])
def test_a_damaged_environment_is_named(text: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", tiny())
    folder.create()
    folder.lock.release()
    assert folder.sessions() == []
    folder.environment_file.write_text(text)
    with pytest.raises(ValueError, match=r"environment\.json"):
        folder.sessions()
