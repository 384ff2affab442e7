"""Codec: a model on a device, kept for many pictures. Data flows picture -> model -> symbols -> container, and back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import container, picture, symbols, tiles
from .errors import QualityError, UnknownModelError
from .models import SodecModel
from .models.load import load_model, resolve_device, resolve_dtype
from .picture import Picture, PictureLike
from .tiles import Box
from .weights import Coding, bundled_models, find

OUTPUTS = {"pil": picture.to_pil, "numpy": picture.to_array, "torch": picture.to_tensor}
MODES = ("full", "fidelity")
MAX_SYMBOL = 32767


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
        Name of a bundled model.
    weights
        A folder of weights instead of the bundled ones.
    device
        "cpu", "cuda" or any other name that torch knows.
    dtype
        "float32", "bfloat16", "float16", or "auto": bfloat16 where the processor multiplies it natively.

    Attributes
    ----------
    times
        Seconds that the stages of the last call took, by name.

    Raises
    ------
    UnknownModelError, WeightsError, DeviceError
        No such model; a file that is missing, altered or of another configuration; no such device or dtype.
    """

    def __init__(
        self, model: str = "lite", *, weights: str | Path | None = None, device: str = "cpu", dtype: str = "auto"
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.bundle = find(model, None if weights is None else Path(weights))
        self.model: SodecModel = load_model(self.bundle, self.device, self.dtype)
        self.coding: Coding = self.bundle.coding
        self.times: dict[str, float] = {}

    def compress(
        self, pictures: PictureLike | Sequence[PictureLike], quality: float = 50, *, first_frame: bool = False
    ) -> Any:
        """The stream of a picture, or a list of streams for a sequence of pictures or a tensor (B, 3, H, W).

        Parameters
        ----------
        pictures
            Path, PIL image, uint8 array (H, W, 3), tensor (3, H, W) in 0..1, or several.
        quality
            1 (smallest) to 100, in steps of 0.5.
        first_frame
            Takes the first frame of an animation, which is refused otherwise.

        Raises
        ------
        UnsupportedPictureError, PictureTooLargeError, QualityError
            Named with the value at fault, before anything is computed.
        """
        quality = checked_quality(quality)
        self.times = defaultdict(float)
        many = isinstance(pictures, (list, tuple)) or (isinstance(pictures, Tensor) and pictures.ndim == 4)
        sources: list[Any] = list(pictures) if many else [pictures]  # type: ignore[arg-type]
        with self._stage("read"):
            loaded = [picture.load(source, first_frame=first_frame) for source in sources]
        streams = [self._compress(one, quality) for one in loaded]
        return streams if many else streams[0]

    def decompress(self, streams: bytes | Sequence[bytes], *, output: str = "pil", mode: str = "full") -> Any:
        """The picture of a stream, or a list of pictures for a sequence of streams.

        Parameters
        ----------
        output
            "pil" (RGB or L, with A where there is alpha), "numpy" (uint8 (H, W, 3), grey (H, W), alpha as a last
            plane) or "torch" (the same planes, float32 (C, H, W) in 0..1).
        mode
            "full", or "fidelity": the fidelity decoder's picture, faithful, smoother, and about twice as fast.

        Raises
        ------
        CorruptStreamError, NewerFormatError, UnknownModelError, PictureTooLargeError
            The bytes are damaged, too new, or of other weights.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output {output!r} is none of {', '.join(OUTPUTS)}")
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        self.times = defaultdict(float)
        if isinstance(streams, (list, tuple)):
            return [OUTPUTS[output](self._decompress(data, mode)) for data in streams]
        return OUTPUTS[output](self._decompress(bytes(streams), mode))  # type: ignore[arg-type]

    def latents(self, data: bytes) -> Latents:
        """y_hat and z_hat of a stream of one tile, for looking at the parts of the decoder one by one."""
        stream = self._read(data)
        if len(stream.payloads) != 1:
            raise ValueError(f"the stream has {len(stream.payloads)} tiles, not one")
        (z, y), quality = self._symbols(stream)[0], stream.quality
        with torch.inference_mode():
            z_hat, y_hat, _ = self._dequantise(z, y, quality)
        return Latents(y_hat, z_hat, torch.tensor([quality], device=self.device))

    # -- encoding

    def _compress(self, one: Picture, quality: float) -> bytes:
        width, height = one.size
        gain = self._gain(quality)
        payloads = []
        whole = Box(0, 0, tiles.padded(width), tiles.padded(height))
        for box in tiles.grid(width, height):
            window = box.grown(tiles.HALO, whole.right, whole.bottom)
            with self._stage("analysis"), torch.inference_mode():
                y = self.model.analysis(self._tensor(one.rgb, window)).float()
                rows, columns = box.cells().within(window.cells())
                y = y[..., rows, columns]
                z = self.model.hyper_analysis(y.to(self.dtype)).float().round().clamp(-MAX_SYMBOL, MAX_SYMBOL)
                mean = self._cropped(self.model.mean(z.to(self.dtype)), y)
                scaled = ((y - mean) * gain).round().clamp(-MAX_SYMBOL, MAX_SYMBOL)
                z_symbols, y_symbols = (t[0].to(torch.int16).cpu().numpy() for t in (z, scaled))
            with self._stage("entropy"):
                indexes = symbols.scale_indexes(self.coding, z_symbols, quality, *y_symbols.shape[1:])
                y_symbols = np.where(indexes == symbols.SKIP, np.int16(0), y_symbols)
                payloads.append(symbols.encode(self.coding, np.ascontiguousarray(z_symbols), y_symbols, indexes))
        with self._stage("container"):
            return container.write(
                container.Stream(
                    width, height, quality, self.bundle.fingerprint, tuple(payloads), one.grey, alpha=one.alpha
                )
            )

    def _tensor(self, rgb: np.ndarray, window: Box) -> Tensor:
        """The window's pixels, (1, 3, H, W) in 0..1; beyond the picture its edge goes on."""
        pixels = rgb[window.top : window.bottom, window.left : window.right]
        missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        return (tensor.permute(2, 0, 1)[None].to(torch.float32) / 255).to(self.dtype)

    # -- decoding

    def _read(self, data: bytes) -> container.Stream:
        stream = container.read(data)
        if stream.fingerprint != self.bundle.fingerprint:
            raise UnknownModelError(
                f"the stream needs weights {stream.fingerprint.hex()}; this codec holds "
                f"{self.bundle.name} {self.bundle.fingerprint.hex()} (bundled: {', '.join(bundled_models())})"
            )
        return stream

    def _symbols(self, stream: container.Stream) -> list[tuple[np.ndarray, np.ndarray]]:
        """z and y of each tile, the tiles side by side: the native coder leaves the GIL to the others."""

        def one(payload: bytes, box: Box) -> tuple[np.ndarray, np.ndarray]:
            return symbols.decode(self.coding, payload, stream.quality, *_cells(box))

        boxes = list(_tile_boxes(stream))
        if len(boxes) == 1:
            return [one(stream.payloads[0], boxes[0])]
        with ThreadPoolExecutor() as pool:
            return list(pool.map(one, stream.payloads, boxes))

    def _decompress(self, data: bytes, mode: str) -> Picture:
        with self._stage("container"):
            stream = self._read(data)
        with self._stage("entropy"):
            decoded = self._symbols(stream)
        with torch.inference_mode():
            y_hat, w = self._mosaic(stream, decoded)
            rgb = self._synthesise(y_hat, w, stream, mode)
        if stream.grey:
            # Rec. 601, the weights by which Pillow makes grey.
            rgb = np.repeat((rgb @ np.array([0.299, 0.587, 0.114], np.float32)).round()[..., None], 3, -1)
        return Picture(rgb.round().astype(np.uint8), stream.alpha, stream.grey)

    def _mosaic(self, stream: container.Stream, decoded: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        """y_hat (1, Cy, h, w) float32 and the content w (1, Cw, h, w) of the whole picture."""
        with self._stage("hyper-synthesis"):
            if len(decoded) == 1:
                _, y_hat, w = self._dequantise(*decoded[0], stream.quality)
                return y_hat, w
            cells = Box(0, 0, stream.width, stream.height).cells()
            config = self.model.config
            y_all = torch.empty((1, config.y_channels, cells.height, cells.width), device=self.device)
            w_all = torch.empty((1, config.content, cells.height, cells.width), device=self.device, dtype=self.dtype)
            for (z, y), box in zip(decoded, _tile_boxes(stream), strict=True):
                _, y_hat, w = self._dequantise(z, y, stream.quality)
                rows, columns = box.cells().within(cells)
                y_all[..., rows, columns] = y_hat
                w_all[..., rows, columns] = w
            return y_all, w_all

    def _dequantise(self, z: np.ndarray, y: np.ndarray, quality: float) -> tuple[Tensor, Tensor, Tensor]:
        """z_hat, y_hat = y / gain + mean, and w, of one tile."""
        z_hat = torch.from_numpy(z).to(self.device)[None].to(self.dtype)
        scaled = torch.from_numpy(y).to(self.device)[None].float()
        y_hat = scaled / self._gain(quality) + self._cropped(self.model.mean(z_hat), scaled)
        return z_hat, y_hat, self._cropped(self.model.content(z_hat), scaled).to(self.dtype)

    def _synthesise(self, y_hat: Tensor, w: Tensor, stream: container.Stream, mode: str) -> np.ndarray:
        """float32 (H, W, 3) in 0..255: windows decoded with a halo, joined by ramps."""
        width, height = stream.width, stream.height
        whole = Box(0, 0, tiles.padded(width), tiles.padded(height))
        quality = torch.tensor([stream.quality], device=self.device)
        boxes = list(tiles.grid(width, height))
        canvas = np.zeros((height, width, 3), np.float32) if len(boxes) > 1 else None
        for box in boxes:
            window = box.grown(tiles.HALO, whole.right, whole.bottom)
            rows, columns = window.cells().within(whole.cells())
            here = y_hat[..., rows, columns].to(self.dtype)
            with self._stage("fidelity"):
                x = self.model.fidelity(here, quality)
            if mode == "full":
                x = self._refine(here, w[..., rows, columns], x, quality)
            shown = box.grown(tiles.BLEND, width, height)
            rows, columns = shown.within(window)
            pixels = (x[0, :, rows, columns].float().clamp(0, 1) * 255).permute(1, 2, 0).cpu().numpy()
            if canvas is None:
                return np.asarray(pixels)
            down = tiles.ramp(box.top, box.bottom, shown.top, shown.bottom, height)
            across = tiles.ramp(box.left, box.right, shown.left, shown.right, width)
            canvas[shown.within(Box(0, 0, width, height))] += pixels * (down[:, None] * across[None])[..., None]
        assert canvas is not None
        return canvas

    def _refine(self, y_hat: Tensor, w: Tensor, fidelity: Tensor, quality: Tensor) -> Tensor:
        """The steps of `SodecModel.refine`, timed one by one."""
        model = self.model
        with self._stage("guidance"):
            tokens = model.guidance(fidelity)
        with self._stage("transformation"):
            l_t = model.transform(y_hat, w, quality)
        with self._stage("UNet"):
            l_0 = model.denoise(l_t, tokens).to(self.dtype)
        with self._stage("latent decoder"):
            return model.latent_decoder(l_0)

    # -- both

    def _gain(self, quality: float) -> Tensor:
        """(1, Cy, 1, 1) float32."""
        return self.model.gain(torch.tensor([quality], device=self.device)).exp()[:, :, None, None].detach()

    @staticmethod
    def _cropped(x: Tensor, like: Tensor) -> Tensor:
        return x.float()[..., : like.shape[-2], : like.shape[-1]]

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times[name] += time.perf_counter() - start


def checked_quality(quality: float) -> float:
    """`quality` rounded to what a stream can hold. `QualityError` unless it is a number from 1 to 100."""
    if isinstance(quality, bool) or not isinstance(quality, (int, float, np.number)) or not 1 <= quality <= 100:
        raise QualityError(f"quality {quality!r} is not a number from 1 to 100")
    return round(float(quality) * container.QUALITY_STEPS) / container.QUALITY_STEPS


def _tile_boxes(stream: container.Stream) -> Iterator[Box]:
    return tiles.grid(stream.width, stream.height, 1 << stream.tile_log2)


def _cells(box: Box) -> tuple[int, int]:
    """Height and width in cells."""
    cells = box.cells()
    return cells.height, cells.width
