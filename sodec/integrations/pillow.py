"""The format SODEC for Pillow: `Image.open("x.sodec")`, `image.save("x.sodec", quality=50)`, after `import sodec`.

Opening reads the header, and no torch is imported before pixels are asked for. `draft`, and so `thumbnail`, decode the
preview.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from ..stream import MAGIC

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

FORMAT = "SODEC"
SUFFIX, MIME = ".sodec", "image/x-sodec"
SAVE_OPTIONS = ("quality", "target_bpp", "max_bytes", "metadata", "first_frame", "model", "device")


def register_when_imported() -> None:
    """Makes the format known to Pillow: now if it is loaded, else as soon as it is.

    Importing Pillow here would take 31 ms of CPU, and all the rest of `import sodec` takes 23 (one Zen core).
    """
    if image := sys.modules.get("PIL.Image"):
        _register(image)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds PIL.Image as the others do, once, and has the format registered when it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "PIL.Image":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_source and the like, for those who look at modules

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)


def _register(image: Any) -> None:
    image.register_open(FORMAT, _open, lambda start: start.startswith(MAGIC))
    image.register_save(FORMAT, _save)
    image.register_extension(FORMAT, SUFFIX)
    image.register_mime(FORMAT, MIME)


def _open(file: IO[bytes], name: str | bytes) -> Any:
    from .pillow_file import SodecImageFile

    return SodecImageFile(file, name)


def _save(image: Image.Image, file: IO[bytes], name: str | bytes) -> None:
    """Options of `Image.save`: those of `sodec.compress`."""
    from ..api import compress

    options = {key: image.encoderinfo[key] for key in SAVE_OPTIONS if key in image.encoderinfo}
    file.write(compress(image, **options))
