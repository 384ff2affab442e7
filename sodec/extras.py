"""Packages of the extras: imported when they are used, and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingPackageError


def require(module: str, purpose: str, *packages: str) -> Any:
    """Imports and returns a module.

    Parameters
    ----------
    purpose
        What needs it, for the error.
    packages
        What to install, where it is called otherwise than the module.

    Raises
    ------
    MissingPackageError
        The module, or one that it imports without declaring it, is not installed. Both are named.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs `pip install {' '.join(packages or (module,))}` ({error})"
        ) from None
