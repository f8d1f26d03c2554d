"""The warning that a name of an earlier release gives."""

from __future__ import annotations

import sys
import warnings


def warn_renamed(old: str, new: str, level: int) -> None:
    """Warn that ``old`` is now ``new``, at the line that is ``level`` calls above the function that calls this.

    ``from package import name`` asks the package twice, first whether it has the name; that does not warn.
    """
    asker = sys._getframe(level + 1)  # pyright: ignore[reportPrivateUsage] (documented in spite of its name)
    if asker.f_globals.get("__name__") != "importlib._bootstrap":
        message = f"{old} is now {new}; the old name goes with the next release"
        warnings.warn(message, DeprecationWarning, stacklevel=level + 2)
