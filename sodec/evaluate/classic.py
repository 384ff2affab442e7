"""CompressAI's classic models as rivals: `mbt2018-mean` (weights of its zoo), `mbt2018-mean=FOLDER` (of files).

Their zoo is fetched from the network once and then cached by torch; where that fails the model says so and is left out.
A folder holds one file per quality, named as the zoo names them: `mbt2018-mean-3.safetensors`, or
`mbt2018-mean-3-7f9eb9da.pth.tar`, of which nothing but tensors is read.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnknownModelError, WeightsError
from .metrics import Array
from .optional import MissingPackageError, require

# Those whose context model runs pixel by pixel take seconds for each picture.
CLASSIC = (
    "bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018", "cheng2020-anchor", "cheng2020-attn",
)  # fmt: skip
ZOO_QUALITIES = (1, 2, 3, 4)  # up to about 0.5 bits per pixel
MULTIPLE = 64
SIZE = struct.Struct("<HHB")  # width, height, quality
LENGTH = struct.Struct("<I")


class CompressAICodec:
    """One of the models, a network per quality; the setting is CompressAI's quality.

    A stream is the picture's size and quality, then each of the model's strings behind its length.

    Raises
    ------
    MissingPackageError
        compressai is not installed, or its zoo can't be reached.
    WeightsError
        The folder has no weights of this model, or a file of it is not such.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        self.name = name
        networks = _zoo(name) if folder is None else _local(name, folder)
        self._networks = {quality: _ready(network) for quality, network in networks.items()}
        self.settings: Sequence[float] = sorted(self._networks)

    def encode(self, picture: Array, setting: float) -> bytes:
        """The stream of a picture (H, W, 3), whose edge goes on to multiples of 64."""
        import torch

        height, width = picture.shape[:2]
        padded = np.pad(picture, ((0, -height % MULTIPLE), (0, -width % MULTIPLE), (0, 0)), "edge")
        x = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            strings = self._networks[int(setting)].compress(x)["strings"]
        packed = b"".join(LENGTH.pack(len(one[0])) + one[0] for one in strings)
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
    """The codec that `name` or `name=FOLDER` stands for; None where it is no model of CompressAI's."""
    model, _, folder = name.partition("=")
    if model not in CLASSIC:
        return None
    return CompressAICodec(model, Path(folder) if folder else None)


def _zoo(name: str) -> dict[int, Any]:
    models = require("compressai.zoo", name, "compressai").image_models
    try:
        return {quality: models[name](quality, pretrained=True, progress=False) for quality in ZOO_QUALITIES}
    except Exception as error:  # no network, a moved address, a full disk: whatever urllib and torch raise
        reason = f"{type(error).__name__}: {error}"
        raise MissingPackageError(
            f"the weights of CompressAI's {name} can't be had here ({reason}); give a folder of them, {name}=FOLDER"
        ) from None


def _local(name: str, folder: Path) -> dict[int, Any]:
    architecture = require("compressai.zoo.image", name, "compressai").model_architectures[name]
    rename = require("compressai.zoo", name, "compressai").load_state_dict
    if not folder.is_dir():
        raise UnknownModelError(f"{folder}, for the weights of {name}, is no folder")
    pattern = re.compile(rf"{re.escape(name)}-(\d+)(-[0-9a-f]+)?\.(safetensors|pth|pth\.tar)")
    found = {}
    for file in sorted(folder.iterdir()):
        if match := pattern.fullmatch(file.name):
            try:
                found[int(match[1])] = architecture.from_state_dict(rename(_tensors(file)))
            except (KeyError, RuntimeError, ValueError) as error:
                raise WeightsError(f"{file} holds no weights of {name}: {str(error).splitlines()[0]}") from None
    if not found:
        raise WeightsError(f"{folder} has no file such as {name}-1.safetensors")
    return found


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
