"""The codecs under test, as users have them, behind one small protocol.

CompressAI's classic models are among them: `mbt2018-mean` with the weights of its zoo, which are fetched from the
network once and then cached by torch, or `mbt2018-mean=FOLDER` with those of a folder. A folder holds one file per
quality, named as in the zoo: `mbt2018-mean-3.safetensors`, or `mbt2018-mean-3-7f9eb9da.pth.tar`, from which only
tensors are read.
"""

from __future__ import annotations

import io
import re
import runpy
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, features

from ..errors import MissingPackageError, UnknownModelError, WeightsError
from ..extras import require
from .metrics import Array


class ImageCodec(Protocol):
    """What `run.evaluate` needs of a codec. Pictures are uint8 (H, W, 3); a larger setting gives more bytes."""

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
    """sodec through its public interface. With mode="fidelity" it decodes the fidelity picture."""

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
    """A user's own codec: a .py file with three functions.

    `settings()` lists numbers, of which a larger one gives more bytes; `encode(picture, setting)` takes uint8
    (H, W, 3) and returns bytes; `decode(data)` gives the picture back. The file is run: evaluate only what you trust.

    Raises
    ------
    UnknownModelError
        The file can't be run, or lacks one of the functions.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = Path(path).stem
        try:
            functions = runpy.run_path(str(path))
        except Exception as error:  # the file may raise anything
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
    """A codec to compare with, by its name or by a .py file; at its documented effort, on `threads` if it can be set.

    Settings go from the smallest file that the codec makes to more than 0.5 bits per pixel on photographs.

    Raises
    ------
    UnknownModelError
        No codec has this name.
    MissingPackageError
        This Pillow can't write the format, the plugin is not installed, or a model's weights can't be fetched.
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
        # The plugin takes `quality`; it silently ignores `distance`.
        return PillowCodec(name, "JXL", (1, 10, 30, 60), {"effort": 7, "num_threads": threads})
    if name == "heic":
        require("pillow_heif", "heic", "pillow-heif").register_heif_opener()
        return PillowCodec(name, "HEIF", (1, 10, 20, 30, 40, 50))
    raise UnknownModelError(f"the codec must be one of {', '.join((*RIVALS, *CLASSIC))}, or a .py file (got {name!r})")


RIVALS = ("avif", "webp", "jpeg", "jxl", "heic")


def rivals(names: Sequence[str], threads: int = 1) -> tuple[list[ImageCodec], dict[str, str]]:
    """The codecs of these names that work here, and the reason for each of the others."""
    working: list[ImageCodec] = []
    left_out = {}
    for name in names:
        try:
            working.append(rival(name, threads))
        except MissingPackageError as error:
            left_out[name] = str(error)
    return working, left_out


# CompressAI's models. Those whose context model runs pixel by pixel take seconds for each picture.
CLASSIC = (
    "bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "cheng2020-attn",
)  # fmt: skip
ZOO_QUALITIES = (1, 2, 3, 4)  # up to about 0.5 bits per pixel
MULTIPLE = 64
SIZE = struct.Struct("<HHB")  # width, height, quality
LENGTH = struct.Struct("<I")


class CompressAICodec:
    """One of CompressAI's models, with a network per quality; the setting is CompressAI's quality.

    A stream is the picture's size and quality, then each of the model's strings after its length.

    Raises
    ------
    MissingPackageError
        compressai is not installed, or its zoo can't be reached.
    WeightsError
        The folder has no weights of this model, or a file in it is damaged.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        networks = _zoo(name) if folder is None else _local(name, folder)
        self._networks = {quality: _ready(network) for quality, network in networks.items()}
        self.settings: Sequence[float] = sorted(self._networks)

    def encode(self, picture: Array, setting: float) -> bytes:
        """The stream of a picture (H, W, 3), whose edges are repeated up to multiples of 64."""
        import torch

        height, width = picture.shape[:2]
        padded = np.pad(picture, ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0)), "edge")
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            strings = self._networks[int(setting)].compress(x)["strings"]
        packed = b"".join(LENGTH.pack(len(string)) + string for string, *_ in strings)
        return SIZE.pack(width, height, int(setting)) + packed

    def decode(self, data: bytes) -> Array:
        """uint8 (H, W, 3)."""
        import torch

        width, height, quality = SIZE.unpack_from(data)
        strings, place = [], SIZE.size
        while place < len(data):
            (length,) = LENGTH.unpack_from(data, place)
            place += LENGTH.size + length
            strings.append([data[place - length : place]])
        network = self._networks[quality]
        # The last string is that of the lowest latent: of y where it is alone, else of z.
        step = network.downsampling_factor
        shape = (-(-height // MULTIPLE) * MULTIPLE // step, -(-width // MULTIPLE) * MULTIPLE // step)
        with torch.inference_mode():
            x = network.decompress(strings, shape)["x_hat"]
        pixels = (x[0].clamp(0, 1) * 255).round().permute(1, 2, 0)
        return pixels[:height, :width].to(torch.uint8).contiguous().numpy()


def classic(name: str) -> CompressAICodec | None:
    """CompressAI's model for `name` or `name=FOLDER`; None where it has no model of this name."""
    model, _, folder = name.partition("=")
    if model not in CLASSIC:
        return None
    return CompressAICodec(model, Path(folder) if folder else None)


def _zoo(name: str) -> dict[int, Any]:
    models = require("compressai.zoo", name, "compressai").image_models
    try:
        return {quality: models[name](quality, pretrained=True, progress=False) for quality in ZOO_QUALITIES}
    except Exception as error:  # no network, a moved address, a full disk: urllib and torch raise many kinds
        reason = f"{type(error).__name__}: {error}"
        raise MissingPackageError(
            f"the weights of CompressAI's {name} can't be fetched here ({reason}); give a folder of them, {name}=FOLDER"
        ) from None


def _local(name: str, folder: Path) -> dict[int, Any]:
    architecture = require("compressai.zoo.image", name, "compressai").model_architectures[name]
    rename = require("compressai.zoo", name, "compressai").load_state_dict
    if not folder.is_dir():
        raise UnknownModelError(f"{folder}, for the weights of {name}, is not a folder")
    pattern = re.compile(rf"{re.escape(name)}-(\d+)(-[0-9a-f]+)?\.(safetensors|pth|pth\.tar)")
    networks = {}
    for file in sorted(folder.iterdir()):
        if match := pattern.fullmatch(file.name):
            try:
                networks[int(match[1])] = architecture.from_state_dict(rename(_tensors(file)))
            except (KeyError, RuntimeError, ValueError) as error:
                raise WeightsError(f"{file} holds no weights of {name}: {str(error).splitlines()[0]}") from None
    if not networks:
        raise WeightsError(f"{folder} has no file such as {name}-1.safetensors")
    return networks


def _tensors(file: Path) -> dict[str, Any]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        return dict(torch.load(file, map_location="cpu", weights_only=True))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError) as error:
        raise WeightsError(f"{file} can't be read: {str(error).splitlines()[0]}") from None


def _ready(network: Any) -> Any:
    network.eval().requires_grad_(False).update()
    return network
