"""Interpret names of folders and files: find out which split they belong to, and which are hidden or system files.

split_of("training_set")                                     # train
splits_among(["seg_train", "seg_test", "seg_pred"])          # {"train": "seg_train", "test": "seg_test"}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

WORDS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "extra": "extra",
}
"""Words that denote a split in a name, as on the Hugging Face Hub."""

FILLERS = frozenset(
    {
        *("set", "sets", "data", "dataset", "split", "folder", "files", "samples"),
        *("image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"),
    }
)
SYSTEM = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini"),
    }
)
"""Folders and files that operating systems create, in lower case. Names that begin with a dot are hidden anyway."""
_COMPOUND = re.compile(
    rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})({'|'.join(sorted(FILLERS, key=len, reverse=True))})"
)


@dataclass(frozen=True)
class SplitName:
    """A name that contains one word for a split.

    ``around`` are all words of the name, with ``*`` in place of that word. ``plain`` is true if all other words are
    fillers or numbers (``training_set``, ``val2017``).
    """

    split: str
    around: tuple[str, ...]
    plain: bool


def read_name(name: str) -> SplitName | None:
    """Return the split that a name denotes. Return None if the name contains no word for a split, or several."""
    words = _words(name)
    found = [i for i, word in enumerate(words) if word in WORDS]
    if len(found) != 1:
        return None
    at = found[0]
    rest = words[:at] + words[at + 1 :]
    plain = all(word in FILLERS or word.isdigit() for word in rest)
    return SplitName(WORDS[words[at]], (*words[:at], "*", *words[at + 1 :]), plain)


def split_of(name: str) -> str | None:
    """Return ``train``, ``test``, ``validation`` or ``extra`` if the name contains a word for this split and otherwise
    only fillers (such as ``set``) or numbers."""
    found = read_name(name)
    return found.split if found and found.plain else None


def splits_among(names: Iterable[str], given: Collection[str] = ()) -> dict[str, str]:
    """Map each split to the name that denotes it. The map is empty if ``names`` do not denote splits, but classes, for
    example.

    Plain names (``Train``, ``test_images``) and names in ``given`` are splits if one of them is in ``given`` or denotes
    ``train``, or if there are no other names. Otherwise, names such as ``seg_train`` are splits if several of them
    differ only in the word for the split, and one of them denotes ``train``. If several names denote the same split, a
    name that consists only of the word becomes this split. The others become splits under their full names.
    """
    names = list(names)
    read = {name: found for name in names if (found := read_name(name))}
    plain = [name for name in names if name in given or (name in read and read[name].plain)]
    if any(name in given or read[name].split == "train" for name in plain) or (plain and len(plain) == len(names)):
        chosen = plain
    else:
        groups: dict[tuple[str, ...], list[str]] = {}
        for name, found in read.items():
            groups.setdefault(found.around, []).append(name)
        whole = [group for group in groups.values() if _trains_and_more(read[name].split for name in group)]
        chosen = [name for group in whole for name in group]
    splits: dict[str, str] = {}
    for name in chosen:
        split = read[name].split if name in read else name
        same = [other for other in chosen if other in read and read[other].split == split]
        if len(same) > 1 and name.lower() not in WORDS:
            split = name
        splits[name if split in splits else split] = name
    return splits


def hidden_or_system(name: str) -> bool:
    """Return whether a file or folder is hidden or made by the operating system (``.DS_Store``, ``__MACOSX``)."""
    return name.startswith(".") or name.lower() in SYSTEM


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = []
    for word in re.findall(r"[^\W\d_]+|\d+", spaced.lower()):
        compound = _COMPOUND.fullmatch(word)
        words += compound.groups() if compound else [word]
    return words


def _trains_and_more(splits: Iterable[str]) -> bool:
    found = set(splits)
    return "train" in found and len(found) > 1
