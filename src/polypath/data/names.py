"""What names of folders and files say: which split they are of, and what is never an image of ours.

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
"""The words for splits, as on the Hugging Face Hub."""

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
"""Folders and files that systems make beside one's own, in lower case; what begins with a dot is hidden anyway."""
_COMPOUND = re.compile(
    rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})({'|'.join(sorted(FILLERS, key=len, reverse=True))})"
)


@dataclass(frozen=True)
class SplitName:
    """A name with one word for a split in it.

    ``around`` are the words before and after it, ``plain`` that those say nothing (``training_set``, ``val2017``).
    """

    split: str
    around: tuple[str, ...]
    plain: bool


def read_name(name: str) -> SplitName | None:
    """The split that a name speaks of; None where it has no word for one, or several."""
    words = _words(name)
    found = [i for i, word in enumerate(words) if word in WORDS]
    if len(found) != 1:
        return None
    at = found[0]
    rest = words[:at] + words[at + 1 :]
    plain = all(word in FILLERS or word.isdigit() for word in rest)
    return SplitName(WORDS[words[at]], (*words[:at], "*", *words[at + 1 :]), plain)


def split_of(name: str) -> str | None:
    """``train``, ``test``, ``validation`` or ``extra`` where the name says that and nothing else."""
    found = read_name(name)
    return found.split if found and found.plain else None


def splits_among(names: Iterable[str], given: Collection[str] = ()) -> dict[str, str]:
    """Split to name, for those of these names that are splits; empty where they are something else, such as classes.

    A plain name (``Train``, ``test_images``) counts beside another one, or beside ``given`` names, or as the one to
    train on. Other names (``seg_train``) count where they say the same around the words for several splits, ``train``
    among them. Where two names are of one split, the plain word has it, and the others go by their own names.
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
    """Whether a file or folder is there for the system's sake (``.DS_Store``, ``__MACOSX``, ``@eaDir``)."""
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
