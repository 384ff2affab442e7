"""Packages that only evaluation needs: imported when used, and named when missing."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import SodecError


class MissingPackageError(SodecError, ImportError):
    """A package that the metric, codec or plot needs is not installed."""


def require(module: str, purpose: str, *packages: str) -> Any:
    """The module, or `MissingPackageError` saying what to install for `purpose`.

    `packages` are the names to install, where they differ from the module's. The module that failed is named too:
    it may be one that the package needs and does not declare.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        wanted = " ".join(packages or (module,))
        raise MissingPackageError(f"{purpose} needs `pip install {wanted}` ({error})") from None
