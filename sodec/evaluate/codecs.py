"""The codecs under test, as users have them, behind one small protocol."""

from __future__ import annotations

import io
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, features

from ..errors import UnknownModelError
from .classic import CLASSIC, classic
from .metrics import Array
from .optional import MissingPackageError, require


class ImageCodec(Protocol):
    """What `run.evaluate` asks of a codec. Pictures are uint8 (H, W, 3); a larger setting makes more bytes."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Sequence[float]: ...

    def encode(self, picture: Array, setting: float) -> bytes: ...

    def decode(self, data: bytes) -> Array: ...


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes, by itself or through a plugin; the setting is its `quality`."""

    name: str
    format: str
    settings: Sequence[float]
    options: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, picture: Array, setting: float) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, self.format, quality=int(setting), **self.options)
        return buffer.getvalue()

    def decode(self, data: bytes) -> Array:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))


class SodecCodec:
    """sodec through its public interface. With mode="fidelity" the fidelity decoder's picture is what counts."""

    def __init__(
        self,
        settings: Sequence[float],
        *,
        model: str = "lite",
        weights: str | Path | None = None,
        device: str = "cpu",
        mode: str = "full",
    ) -> None:
        from ..codec import Codec, checked_quality

        self.name = "sodec" if mode == "full" else f"sodec-{mode}"
        self.settings = [checked_quality(setting) for setting in settings]
        self.mode = mode
        self.codec = Codec(model, weights=weights, device=device)

    def encode(self, picture: Array, setting: float) -> bytes:
        data: bytes = self.codec.compress(picture, quality=setting)
        return data

    def decode(self, data: bytes) -> Array:
        return np.asarray(self.codec.decompress(data, output="numpy", mode=self.mode))


class FileCodec:
    """A codec of someone's own: a .py file with three functions.

    `settings()` lists numbers, a larger one making more bytes; `encode(picture, setting)` takes uint8 (H, W, 3) and
    returns bytes; `decode(data)` gives the picture back. The file is run: evaluate only what you trust.

    Raises
    ------
    UnknownModelError
        The file can't be run, or lacks one of the functions.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = Path(path).stem
        try:
            functions = runpy.run_path(str(path))
        except Exception as error:  # whatever the file raises
            raise UnknownModelError(f"codec {path} can't be run: {type(error).__name__}: {error}") from error
        missing = [name for name in ("settings", "encode", "decode") if not callable(functions.get(name))]
        if missing:
            raise UnknownModelError(f"codec {path} has no function {', '.join(missing)}")
        self.settings: Sequence[float] = list(functions["settings"]())
        self._encode, self._decode = functions["encode"], functions["decode"]

    def encode(self, picture: Array, setting: float) -> bytes:
        return bytes(self._encode(picture, setting))

    def decode(self, data: bytes) -> Array:
        return np.asarray(self._decode(data))


def rival(name: str, threads: int = 1) -> ImageCodec:
    """A codec to compare with, by name, at its documented effort, or of a .py file; `threads` where it can be told.

    Settings run from the smallest file that the codec makes to more than 0.5 bits per pixel on photographs.

    Raises
    ------
    UnknownModelError
        No codec has this name.
    MissingPackageError
        This Pillow can't write the format, the plugin is not installed, or a model's weights can't be had.
    """
    if name.endswith(".py"):
        return FileCodec(name)
    if (model := classic(name)) is not None:
        return model
    if name == "jpeg":
        return PillowCodec(name, "JPEG", (1, 5, 10, 25), {"optimize": True})
    if name == "webp":
        return PillowCodec(name, "WEBP", (0, 3, 15, 40), {"method": 6})
    if name == "avif":
        if not features.check("avif"):
            raise MissingPackageError("avif needs a Pillow built with libavif (11.3 or newer)")
        return PillowCodec(name, "AVIF", (0, 10, 20, 30, 40, 50), {"speed": 6, "max_threads": threads})
    if name == "jxl":
        require("pillow_jxl", "jxl", "pillow-jxl-plugin")
        # The plugin's knob is `quality`; it ignores `distance` silently.
        return PillowCodec(name, "JXL", (1, 10, 30, 60), {"effort": 7, "num_threads": threads})
    if name == "heic":
        require("pillow_heif", "heic", "pillow-heif").register_heif_opener()
        return PillowCodec(name, "HEIF", (1, 10, 20, 30, 40, 50))
    raise UnknownModelError(f"codec {name!r} is none of {', '.join((*RIVALS, *CLASSIC))}, nor a .py file")


RIVALS = ("avif", "webp", "jpeg", "jxl", "heic")


def rivals(names: Sequence[str], threads: int = 1) -> tuple[list[ImageCodec], dict[str, str]]:
    """The codecs of these names that work here, and the reason for each that doesn't."""
    found: list[ImageCodec] = []
    left_out = {}
    for name in names:
        try:
            found.append(rival(name, threads))
        except MissingPackageError as error:
            left_out[name] = str(error)
    return found, left_out
