"""sodec: photographs in a few kilobytes, by a one-step diffusion codec.

>>> data = sodec.compress("photo.jpg", quality=50)
>>> image = sodec.decompress(data)

Names are loaded when first used, so `import sodec` does not import torch. Pillow then opens and saves .sodec files.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .integrations.pillow import register_when_imported as _register_with_pillow

if TYPE_CHECKING:
    from .api import compress, decompress, inspect
    from .codec import Codec, Report
    from .errors import SodecError

__version__ = "0.1.0"
__all__ = ["Codec", "Report", "SodecError", "compress", "cpu", "decompress", "inspect"]

_HOME = {
    "Codec": "codec", "Report": "codec", "SodecError": "errors", "compress": "api", "decompress": "api",
    "inspect": "api",
}  # fmt: skip

_register_with_pillow()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sodec' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def cpu() -> dict[str, Any]:
    """What the native code runs on: {"chosen": instruction set, "supported": [...], "bfloat16": bool}."""
    from . import _native

    return dict(_native.cpu())
