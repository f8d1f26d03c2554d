"""Method files, and the one message for files that are not methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polypath.worth.method import open_method, stated
from polypath.worth.protocol import Images

GOOD = """
import numpy as np
name = "mine"
def options(folder):
    return {"one": lambda image: np.zeros(3)}
"""
IMAGE = np.zeros((2, 2, 3), np.uint8)
NONE = Images(IMAGE[None], np.zeros(1, np.int64))


def written(folder: Path, text: str) -> Path:
    file = folder / "method.py"
    file.write_text(text)
    return file


def test_what_a_method_may_leave_out(tmp_path: Path) -> None:
    method = open_method(written(tmp_path, GOOD))
    assert (method.name, method.pflop, method.trains) == ("mine", None, False)
    (answer,) = method.options(tmp_path).values()
    assert method.scores("one", answer, IMAGE, 3).tolist() == [0, 0, 0]
    more = open_method(written(tmp_path, GOOD + "pflop = 2\ndef train(train, held_out, folder, seed): pass\n"))
    assert more.trains
    assert more.train(NONE, NONE, tmp_path, 0) == more.pflop == 2.0  # what it says, where training says nothing
    assert (stated(None), stated(0.25)) == ("not stated", "0.25")


def test_its_digest_is_of_all_that_answers_come_from(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a").write_text("1")
    text = GOOD + "files = ['weights']\n"
    before = open_method(written(tmp_path, text)).digest
    assert open_method(written(tmp_path, text)).digest == before
    assert open_method(written(tmp_path, text + "# a word\n")).digest != before
    assert open_method(written(tmp_path, text)).digest == before
    (tmp_path / "weights" / "a").write_text("2")
    assert open_method(written(tmp_path, text)).digest != before


BAD_FILES = {
    "no Python": ("name = ", r"line 1: SyntaxError"),
    "raises": ("import os\nname = 1 / 0", r"line 2: ZeroDivisionError: division by zero"),
    "leaves": ("raise SystemExit(0)", r"line 1: SystemExit: 0"),
    "no name": ("def options(folder): pass", r"name = None: must be a name"),
    "name is no text": (GOOD + "name = 3", r"name = 3: must be a name"),
    "no options": ("name = 'a'", r"must define the function options"),
    "options is no function": ("name = 'a'\noptions = {}", r"must define the function options"),
    "train is no function": (GOOD + "train = 3", r"must define the function train"),
    "pflop is no number": (GOOD + "pflop = 'many'", r"pflop = 'many': must be a finite number of at least 0"),
    "pflop is not finite": (GOOD + "pflop = float('nan')", r"pflop = nan: must be a finite number"),
    "files is a text": (GOOD + "files = 'weights'", r"files = 'weights': must be a list"),
    "no such file": (GOOD + "files = ['weights']", r"files: .*weights does not exist"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_what_is_no_method_is_told(tmp_path: Path, case: str) -> None:
    text, said = BAD_FILES[case]
    file = written(tmp_path, text)
    with pytest.raises(ValueError, match=said) as told:
        open_method(file)
    assert str(told.value).startswith(f"--method {file}")
    with pytest.raises(ValueError, match=r"no such file"):
        open_method(tmp_path / "none.py")
    with pytest.raises(ValueError, match=r"no such file"):
        open_method(tmp_path)
    other = tmp_path / "method.txt"
    other.write_text(GOOD)
    with pytest.raises(ValueError, match=r"must be a Python file"):
        open_method(other)


BAD_ANSWERS = {
    "raises": ("[1, 2, 3][9]", r"one failed, line 5: IndexError"),
    "another shape": ("np.zeros((1, 3))", r"one returned scores of shape \(1, 3\): must be \(3,\)"),
    "NaN": ("np.array([0, np.nan, 1])", r"one returned a score that is not a finite number"),
    "infinite": ("np.array([0, np.inf, 1])", r"one returned a score that is not a finite number"),
    "text": ("'cat'", r"one failed.*ValueError: could not convert"),
    "nothing": ("None", r"one returned scores of shape \(\)|one failed"),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_answers_are_a_finite_score_for_each_class(tmp_path: Path, case: str) -> None:
    answer, said = BAD_ANSWERS[case]
    method = open_method(written(tmp_path, GOOD.replace("np.zeros(3)", answer)))
    with pytest.raises(ValueError, match=said):
        method.scores("one", method.options(tmp_path)["one"], IMAGE, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{}", r"options must return a dict of at least one function"),
        ("[1]", r"options must return a dict of at least one function"),
        ("{'one': 3}", r"options: 'one' = 3: must be a function"),
        ("{3: print}", r"options: name = 3: must be a name"),
        ("folder.none", r"options failed, line 3: AttributeError"),
    ],
)
def test_options_are_functions_by_name(tmp_path: Path, given: str, said: str) -> None:
    method = open_method(written(tmp_path, f"name = 'a'\ndef options(folder):\n    return {given}\n"))
    with pytest.raises(ValueError, match=said):
        method.options(tmp_path)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 'much'", r"train's PFLOP = 'much'"),
        ("return -1", r"train's PFLOP = -1"),
        ("1 / 0", r"train failed, line"),
    ],
)
def test_training_says_what_it_cost(tmp_path: Path, body: str, said: str) -> None:
    text = GOOD + f"def train(train, held_out, folder, seed): {body}\n"
    with pytest.raises(ValueError, match=said):
        open_method(written(tmp_path, text)).train(NONE, NONE, tmp_path, 0)
