"""What a saved config says of how images are prepared is checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import polypath as pp


@pytest.mark.parametrize(
    ("part", "said", "message"),
    [
        ("image", {"size": [8, 8], "to": 0}, r"config\.image\.to = 0: must be a whole number from 1 to 8192, or None"),
        ("image", {"size": [8, 0]}, r"config\.image\.size = \(8, 0\)"),
        ("normalisation", {"mean": [0.5], "std": [0.0]}, r"config\.normalisation\.std = \(0\.0,\)"),
        ("normalisation", {"mean": [1e400], "std": [1.0]}, r"config\.normalisation\.mean"),
        ("normalisation", {"mean": [0.5] * 3, "std": [1.0]}, "3 means and 1 deviations"),
        ("pretrained_cfg", {"input_size": 3}, r"config\.pretrained_cfg\.input_size = 3"),
        ("pretrained_cfg", {"input_size": [3, 0, 8]}, r"config\.pretrained_cfg\.input_size"),
    ],
)
def test_impossible_preparations_are_refused(part: str, said: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = pp.save(pp.create_model("resnet20_cifar", depth=8, width=4), tmp_path / "net") / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {part: said}))
    with pytest.raises(ValueError, match=message):
        pp.load(tmp_path / "net")
