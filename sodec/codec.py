"""Codec: a model on a device, kept for many pictures. Data flows picture -> model -> symbols -> container, and back."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import picture
from .errors import DamageWarning, DeviceError, UnknownModelError, ViewError
from .files import StreamLike, read_stream
from .models import SodecModel
from .models.load import load_model, resolve_device, resolve_dtype
from .picture import PictureLike
from .pipeline import device as devices
from .pipeline import rate
from .pipeline.decoder import TileSource, decode
from .pipeline.encoder import encode
from .pipeline.engine import Engine
from .pipeline.rate import checked_quality as checked_quality
from .pipeline.tiles import TILE
from .pipeline.view import Region, checked_view
from .stream import container
from .weights import Bundle, bundled_models, find
from .weights.hub import located

MIN_TILE = 128
ON_ERROR = ("raise", "conceal")
OUTPUTS = {"pil": picture.to_pil, "numpy": picture.to_array, "torch": picture.to_tensor}


class Latents(NamedTuple):
    """What the decoder knows of a picture once its bytes are read."""

    y_hat: Tensor  # (1, Cy, h, w) float32
    z_hat: Tensor  # (1, Cz, ceil(h/4), ceil(w/4))
    quality: Tensor  # (1,)


class Codec:
    """Compresses and decompresses pictures with one model.

    Parameters
    ----------
    model
        Name of a bundled model, or "sd21", whose weights are given.
    weights
        A folder of weights instead of the bundled ones, or a hub id, "owner/name@revision" (extra: hub); or a
        `Bundle` that is open already.
    device
        "cpu", "cuda" or any other name that torch knows.
    dtype
        "float32", "bfloat16", "float16", or "auto": bfloat16 where the processor multiplies it natively.
    tile
        Side in pixels of what is decoded at once, a multiple of 128. Smaller ones take less memory and more time.
    cuda_graphs
        Replays the decoder's networks as CUDA graphs, one for each size met more than once.

    Attributes
    ----------
    prepared
        How the networks were specialised for this device; printed, it is a summary.
    lost
        The rectangles (x, y, width, height) that the last `decompress` filled from their surroundings.

    Raises
    ------
    UnknownModelError, WeightsError, DeviceError
        No such model; a file that is missing, altered or of another configuration; no such device or dtype, or too
        little memory (in `decompress` too), with the size that is needed and a tile that would fit.
    ViewError
        No such tile.
    """

    def __init__(
        self,
        model: str = "lite",
        *,
        weights: str | Path | Bundle | None = None,
        device: str = "cpu",
        dtype: str = "auto",
        tile: int = TILE,
        cuda_graphs: bool = False,
    ) -> None:
        if tile < MIN_TILE or tile % MIN_TILE:
            raise ViewError(f"tile {tile} is not a multiple of {MIN_TILE}")
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        if isinstance(weights, Bundle):
            self.bundle = weights
        else:
            self.bundle = find(model, None if weights is None else located(weights))
        if cuda_graphs and self.device.type != "cuda":
            raise DeviceError(f"CUDA graphs need a CUDA device, this one is {self.device}")
        devices.check_weights(self.bundle.size, self.device, self.dtype, self.bundle.name)
        self.prepared = load_model(self.bundle, self.device, self.dtype)
        self.engine = Engine(
            self.prepared.model, self.bundle.coding, self.device, self.dtype, tile=tile, cuda_graphs=cuda_graphs
        )
        self.lost: list[Region] = []

    @property
    def times(self) -> dict[str, float]:
        """Seconds that the stages of the last call took, by name."""
        return self.engine.times

    def compress(
        self,
        pictures: PictureLike | Sequence[PictureLike],
        quality: float | None = None,
        *,
        target_bpp: float | None = None,
        max_bytes: int | None = None,
        first_frame: bool = False,
        metadata: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """The stream of a picture, or a list of streams for a sequence of pictures or a tensor (B, 3, H, W).

        Parameters
        ----------
        pictures
            Path, binary file, PIL image, uint8 array (H, W, 3), tensor (3, H, W) in 0..1, or several.
        quality
            1 (smallest) to 100, in steps of 0.5; 50 unless a target is given.
        target_bpp, max_bytes
            Instead of a quality: bits per pixel of the whole stream, or its bytes. The finest coding that stays
            within is searched with one analysis and at most 8 entropy passes, and ends within 2 % below.
        first_frame
            Takes the first frame of an animation, which is refused otherwise.
        metadata
            Keeps EXIF, XMP and an sRGB profile, as sections of their own that `inspect` itemises.
        progress
            Called with the share of the picture that is analysed, 0 to 1, after each tile.

        Raises
        ------
        UnsupportedPictureError, PictureTooLargeError, QualityError
            Named with the value at fault, before anything is computed.
        TargetError
            The target is not a positive number, or below the smallest size possible, which the message tells.
        """
        quality = rate.check_wish(quality, target_bpp, max_bytes)
        self._restart()
        many = isinstance(pictures, (list, tuple)) or (isinstance(pictures, Tensor) and pictures.ndim == 4)
        sources: list[Any] = list(pictures) if many else [pictures]  # type: ignore[arg-type]

        def one(source: PictureLike) -> bytes:
            with self.engine.stage("read"):
                loaded = picture.load(source, first_frame=first_frame, metadata=metadata)
            limit = rate.byte_limit(*loaded.size, target_bpp, max_bytes) if quality is None else None
            return encode(self.engine, self.bundle.fingerprint, loaded, quality, limit, progress)

        streams = [one(source) for source in sources]
        return streams if many else streams[0]

    def decompress(
        self,
        streams: StreamLike | Sequence[StreamLike],
        *,
        output: str = "pil",
        mode: str = "full",
        fidelity: float | None = None,
        region: Sequence[int] | None = None,
        scale: float = 1,
        on_error: str = "raise",
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """The picture of a stream, or a list of pictures for a sequence of streams.

        Parameters
        ----------
        streams
            Bytes, path or binary file, or several.
        output
            "pil" (RGB or L, with A where there is alpha), "numpy" (uint8 (H, W, 3), grey (H, W), alpha as a last
            plane) or "torch" (the same planes, float32 (C, H, W) in 0..1).
        mode
            "full", or "fidelity": the fidelity decoder's picture, faithful, smoother, and about twice as fast.
        fidelity
            The share of that picture in a blend with the full one, 0 to 1.
        region
            (x, y, width, height) in pixels: only the tiles that reach into it are decoded.
        scale
            1, 1/2, 1/4 or 1/8: a preview, the means of the fidelity decoder's pixels. Sides are rounded up, and so
            are the edges of a region, which stays in pixels of the whole picture.
        on_error
            "raise", or "conceal": a damaged tile is filled from its surroundings, and a `DamageWarning` says so;
            `lost` holds the rectangles. A stream whose header is damaged, or whose only tile, is refused all the same.
        progress
            Called with the share of the tiles that is decoded, 0 to 1, after each.

        Raises
        ------
        CorruptStreamError, NewerFormatError, UnknownModelError, PictureTooLargeError
            The bytes are damaged, too new, or of other weights.
        ViewError
            A mode, fidelity or scale that there is none of, or a region that is not within the picture.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r} is none of {', '.join(OUTPUTS)}")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error {on_error!r} is none of {', '.join(ON_ERROR)}")
        view = checked_view(mode, fidelity, region, scale)
        conceal = on_error == "conceal"
        self._restart()

        def one(data: StreamLike) -> Any:
            stream = self._read(data, conceal)
            decoded = decode(self.engine, stream, view, conceal=conceal, progress=progress)
            self._tell_of_damage(stream, decoded.lost)
            return OUTPUTS[output](decoded.picture)

        if isinstance(streams, (list, tuple)):
            return [one(data) for data in streams]
        return one(streams)  # type: ignore[arg-type]

    def latents(self, data: StreamLike) -> Latents:
        """y_hat and z_hat of a stream of one tile, for looking at the parts of the decoder one by one."""
        stream = self._read(data)
        if len(stream.payloads) != 1:
            raise ValueError(f"the stream has {len(stream.payloads)} tiles, not one")
        z, y = TileSource(self.engine, stream, content=False).symbols(0)
        with torch.inference_mode():
            y_hat, _ = self.engine.dequantise(z, y, stream.quality, content=False)
        z_hat = torch.from_numpy(z).to(self.device)[None].to(self.dtype)
        return Latents(y_hat, z_hat, torch.tensor([stream.quality], device=self.device))

    @property
    def model(self) -> SodecModel:
        """The networks."""
        return self.engine.model

    def _read(self, data: StreamLike, salvage: bool = False) -> container.Stream:
        with self.engine.stage("container"):
            stream = container.read(read_stream(data), salvage=salvage)
        if stream.fingerprint != self.bundle.fingerprint:
            raise UnknownModelError(
                f"the stream needs weights {stream.fingerprint.hex()}; this codec holds "
                f"{self.bundle.name} {self.bundle.fingerprint.hex()} (bundled: {', '.join(bundled_models())})"
            )
        return stream

    def _tell_of_damage(self, stream: container.Stream, lost: tuple[Region, ...]) -> None:
        self.lost += lost
        for rectangle in lost:
            told = ",".join(map(str, rectangle))
            _warn(f"the tile at {told} (x,y,width,height) is damaged; it is filled from its surroundings")
        for name in stream.damaged:
            if name.startswith("section"):
                _warn(f"{name} of the stream is damaged and left out")

    def _restart(self) -> None:
        self.engine.times = defaultdict(float)
        self.lost = []


def _warn(message: str) -> None:
    warnings.warn(message, DamageWarning, stacklevel=5)
