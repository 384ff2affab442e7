"""The codecs under test, as users have them, behind one small protocol."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, features

from ..errors import UnknownModelError
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


def rival(name: str, threads: int = 1) -> ImageCodec:
    """A codec to compare with, at its documented effort; `threads` where it can be told.

    Settings run from the smallest file that the codec makes to more than 0.5 bits per pixel on photographs.

    Raises
    ------
    UnknownModelError
        No codec has this name.
    MissingPackageError
        This Pillow can't write the format, or the plugin is not installed.
    """
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
    raise UnknownModelError(f"codec {name!r} is none of {', '.join(RIVALS)}")


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
