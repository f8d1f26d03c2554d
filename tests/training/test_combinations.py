"""Settings that exclude each other are refused by name before anything is trained; all others train."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from combinations import every, reason

from conftest import child_environment

HERE = Path(__file__).parent


@pytest.mark.slow  # tests/training/test_distributed.py has the quick ones
@pytest.mark.timeout(3600)
def test_each_combination_trains_or_is_refused_by_field() -> None:
    command = [sys.executable, "-W", "ignore", str(HERE / "combinations.py")]
    done = subprocess.run(command, env=child_environment(HERE), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(every())
    trained: Counter[tuple[str, Any]] = Counter()
    for row in rows:
        said, refused = row.pop("said"), reason(row)
        if refused is None:
            assert said == "trained", row
            trained.update(row.items())
        else:
            assert said.startswith(f"refused: {refused}"), (said, row)
    assert min(trained.values()) >= 2  # of every value of every setting
