"""One door of :mod:`fuzz.hostile_files` or images, by atheris, which looks for inputs that reach new code.

pip install atheris
python tests/fuzz/atheris_files.py manifest|config|recipe|profile|weights|statistics|graph|image -max_total_time=600
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["polypath"]):
    from fuzz.hostile_files import Doors
    from polypath.data.images import open_image


class Bytes(random.Random):
    """Random choices that are read from bytes, so that what atheris learns of the bytes it learns of the choices."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._left = atheris.FuzzedDataProvider(data)

    def random(self) -> float:
        return self._left.ConsumeIntInRange(0, 2**24 - 1) / 2**24

    def getrandbits(self, k: int) -> int:
        return self._left.ConsumeIntInRange(0, 2**k - 1)


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    place = Path(tempfile.mkdtemp(prefix="polypath-fuzz-"))
    os.environ["POLYPATH_CACHE"] = str(place / "cache")
    doors = Doors(place)

    def one(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            if name == "image":
                open_image(data)
            else:
                doors.all[name](Bytes(data))

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
