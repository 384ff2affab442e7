"""The format SODEC for Pillow: `Image.open("x.sodec")`, `image.save("x.sodec", quality=50)`, after `import sodec`.

Opening reads the header, and no torch is imported before pixels are asked for. `draft`, and so `thumbnail`, decode the
preview. This module is part of `import sodec`, so it imports neither Pillow nor NumPy: `pillow_file.py` does the work.
"""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from ..stream import MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

FORMAT = "SODEC"
SUFFIX, MIME = ".sodec", "image/x-sodec"


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
    if not hasattr(image.Image.save, "__wrapped__"):
        image.Image.save = _save_whole(image.Image.save)


def _save_whole(save: Callable[..., None]) -> Callable[..., None]:
    """`Image.save` that replaces a .sodec file once the new one is complete; other formats are saved as ever.

    Pillow opens a file, and so empties it, before the format's writer sees the options: a bad quality, or a target that
    can't be met, would leave 0 bytes in place of what was there.
    """

    @functools.wraps(save)
    def save_whole(
        self: Image.Image, fp: str | bytes | os.PathLike[str] | IO[bytes], format: str | None = None, **params: Any
    ) -> None:
        if not isinstance(fp, (str, bytes, os.PathLike)) or not _is_sodec(fp, format):
            save(self, fp, format, **params)
            return
        buffer = io.BytesIO()
        save(self, buffer, FORMAT, **params)
        _write(fp, buffer.getvalue())

    return save_whole


def _is_sodec(path: str | bytes | os.PathLike[str], kind: str | None) -> bool:
    return kind.upper() == FORMAT if kind else os.fsdecode(path).lower().endswith(SUFFIX)


def _write(path: str | bytes | os.PathLike[str], data: bytes) -> None:
    """Raises what `open` does where the file can't be written."""
    from pathlib import Path

    from ..files import write_file

    try:
        write_file(Path(os.fsdecode(path)), data)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fsdecode(path)) from None


def _open(file: IO[bytes], name: str | bytes) -> Any:
    from .pillow_file import SodecImageFile

    return SodecImageFile(file, name)


def _save(image: Image.Image, file: IO[bytes], name: str | bytes) -> None:
    from .pillow_file import encoded

    file.write(encoded(image, image.encoderinfo))
