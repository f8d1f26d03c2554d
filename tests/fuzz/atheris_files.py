"""One door of :mod:`fuzz.hostile_files` or images, by atheris, which looks for inputs that reach new code.

    pip install atheris
    python tests/fuzz/atheris_files.py manifest -max_total_time=600        # options are libFuzzer's
    python tests/fuzz/atheris_files.py every 600 FOLDER [DOOR ...]         # one after the other, seconds each

``every`` keeps in FOLDER the corpus of each door, its log, an input that was found, and ``findings.json``: seed,
revision, runs, what was covered and what was found.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
DOORS = ("manifest", "config", "recipe", "profile", "image")
SEED = 17


def fuzz(name: str, options: list[str]) -> None:
    """Open files at one door until libFuzzer's options, or a finding, end the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["polypath"]):
        from fuzz.hostile_files import Doors
        from polypath.data.images import open_image

    class Bytes(random.Random):
        """Random choices read from bytes, so that what atheris learns of the bytes it learns of the choices."""

        def __init__(self, data: bytes) -> None:
            super().__init__(0)
            self._left = atheris.FuzzedDataProvider(data)

        def random(self) -> float:
            return self._left.ConsumeIntInRange(0, 2**24 - 1) / 2**24

        def getrandbits(self, k: int) -> int:
            return self._left.ConsumeIntInRange(0, 2**k - 1)

    def one(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            if name == "image":
                open_image(data)
            else:
                doors.all[name](Bytes(data))

    place = Path(tempfile.mkdtemp(prefix="polypath-fuzz-"))  # libFuzzer ends the process without cleaning up
    os.environ["POLYPATH_CACHE"] = str(place / "cache")
    doors = Doors(place)
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def every(seconds: int, folder: Path, names: list[str]) -> int:
    """Each door in a process of its own; the number of findings."""
    import torch

    from polypath.storage.files import write_json
    from polypath.training.run import environment

    doors: dict[str, Any] = {}
    for name in names:
        corpus, log = folder / name / "corpus", folder / name / "log.txt"
        corpus.mkdir(parents=True, exist_ok=True)
        write_seeds(name, corpus)
        options = [f"-max_total_time={seconds}", f"-seed={SEED}", f"-artifact_prefix={folder / name}/"]
        options += ["-timeout=300", "-len_control=0"]  # by the clock on the wall, and the machine may be busy
        command = [sys.executable, __file__, name, *options, str(corpus)]
        with tempfile.TemporaryDirectory() as temporary, open(log, "w") as stream:
            place = {**os.environ, "TMPDIR": temporary}
            status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=place).returncode
        doors[name] = {"status": status, **told(log.read_text(errors="replace")), "corpus": len(list(corpus.iterdir()))}
        inputs = sorted(path.name for path in (folder / name).iterdir() if path.name not in ("corpus", "log.txt"))
        doors[name]["inputs_found"] = inputs
        print(name, doors[name], flush=True)
        record = {"environment": environment(torch.device("cpu")), "seconds": seconds, "seed": SEED, "doors": doors}
        write_json(folder / "findings.json", record)
    return sum(door["status"] != 0 for door in doors.values())


def told(log: str) -> dict[str, Any]:
    """What libFuzzer wrote at the end of a door, and the traceback of what it found."""
    runs, covered = re.findall(r"^Done (\d+) runs", log, re.M), re.findall(r"cov: (\d+)", log)
    finding = re.search(r"=== Uncaught Python exception: ===\n(.*?)\n(?:==|$)", log, re.S)
    late = re.search(r"ERROR: libFuzzer: (.*)", log)
    return {
        "runs": int(runs[-1]) if runs else None,
        "covered": int(covered[-1]) if covered else None,
        "finding": finding[1] if finding else late[1] if late else None,
    }


def write_seeds(name: str, folder: Path) -> None:
    """What a door begins with: images, or bytes for as many choices as a case needs; short ones make the same choices
    again and again, and libFuzzer keeps none that reaches nothing new."""
    from PIL import Image

    if name == "image":
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
            Image.new("RGB", (8, 8), (200, 100, 50)).save(folder / f"seed.{kind.lower()}", kind)
    else:
        for i in range(16):
            (folder / f"seed{i}").write_bytes(random.Random(f"{SEED} {i}").randbytes(512))


if __name__ == "__main__":
    if sys.argv[1] == "every":
        sys.exit(every(int(sys.argv[2]), Path(sys.argv[3]).resolve(), sys.argv[4:] or list(DOORS)) > 0)
    fuzz(sys.argv[1], sys.argv[2:])
