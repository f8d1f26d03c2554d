"""Optional packages. They are imported on first use; the error for a missing package says what to install."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from types import ModuleType

from polypath.core.silence import imported


def need(package: str, what: str, extra: str = "deploy") -> ModuleType:
    """Import ``package``.

    Raises:
        ImportError: the package is not installed. The message contains ``what``, the feature that needs the package.
    """
    try:
        return imported(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if str(error.name).partition(".")[0] != top:  # a dependency of this package is missing
            raise
        raise ImportError(f"{what} needs {top}: pip install 'polypath[{extra}]'") from None


def installed(package: str) -> bool:
    """Return whether ``package`` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def version_of(package: str) -> str:
    """Return the version of an installed package. The package is imported only if its distribution has another name.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(imported(package).__version__).partition("-")[0]
