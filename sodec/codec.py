"""Codec: a model on a device, kept for many pictures. Data flows picture -> model -> symbols -> container, and back."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

from . import memory, picture
from .errors import DamageWarning, DeviceError, UnknownModelError, ViewError, item_named, warn
from .files import StreamLike, read_stream
from .picture import PictureLike
from .pipeline import rate
from .pipeline.decoder import decode_all
from .pipeline.encoder import encode
from .pipeline.engine import Engine
from .pipeline.engines import make_engine
from .pipeline.rate import checked_quality as checked_quality
from .pipeline.source import TileSource
from .pipeline.view import Region, checked_view
from .stream import container
from .stream.header import MAX_PIXELS, MAX_TILE, check_limits
from .weights import Bundle, bundled_models, resolve

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from .models import SodecModel
    from .pipeline.torch_engine import TorchEngine

MIN_TILE = 128
ON_ERROR = ("raise", "conceal")
OUTPUTS = {"pil": picture.to_pil, "numpy": picture.to_array, "torch": picture.to_tensor}


@dataclass
class Report:
    """What a call of `Codec.compress` or `Codec.decompress` did, for callers that pass one as `report`.

    Each call adds to the report that it is given, so threads that share a codec don't see each other's.

    Attributes
    ----------
    times
        Seconds by stage. On a GPU the stages are only timed, and so synchronised, where there is a report.
    lost
        Rectangles (x, y, width, height) in pixels that `decompress` filled from their surroundings.
    """

    times: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lost: list[Region] = field(default_factory=list)


class Latents(NamedTuple):
    """The decoder's inputs: the quantised latents of a picture."""

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
        A folder of weights instead of the bundled ones, or "hf:owner/name@commit" of the Hugging Face hub (extra:
        hub); or a `Bundle` that is open already.
    engine
        What runs the networks: "torch" (extra: torch; any device, every model), "onnx" (ONNX Runtime, on the CPU,
        `lite` alone), or "auto": "torch" where only it can serve, or where it is installed and faster.
    device
        "cpu", "cuda" or any other name that torch knows.
    dtype
        "float32", "bfloat16", "float16", or "auto": with PyTorch bfloat16 where the processor multiplies it natively,
        else float32, the only one that "onnx" has.
    tile
        Side in pixels of what is decoded at once, a multiple of 128. Smaller ones take less memory and more time. None:
        as few equal parts as have at most 2.3 million pixels each, and with `sd21` 1024.
    threads
        Of the networks on a CPU; None is the engine's choice. PyTorch's are those of the whole process.
    cuda_graphs
        Whether sizes that are decoded again are replayed as CUDA graphs, without launches from Python; None: on a CUDA
        device. Where there is too little memory for a graph, or a capture fails (with a warning), decoding goes
        without.

    Raises
    ------
    UnknownModelError, WeightsError, DeviceError
        No such model; a file that is missing, altered or of another configuration; no such engine, device or dtype, or
        too little memory (in `decompress` too), with the size that is needed and a tile that would fit.
    MissingPackageError
        PyTorch is needed and not installed.
    ViewError
        No such tile.
    """

    @memory.errors_named()
    def __init__(
        self,
        model: str = "lite",
        *,
        weights: str | Path | Bundle | None = None,
        engine: str = "auto",
        device: str = "cpu",
        dtype: str = "auto",
        tile: int | None = None,
        threads: int | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        _check_process()
        if tile is not None and (tile < MIN_TILE or tile % MIN_TILE):
            raise ViewError(f"tile must be a multiple of {MIN_TILE} (got {tile})")
        self.bundle = resolve(model, weights)
        self.engine = make_engine(
            self.bundle, engine=engine, device=device, dtype=dtype, tile=tile, threads=threads, cuda_graphs=cuda_graphs
        )
        self.device, self.dtype = self.engine.device, self.engine.dtype

    @overload
    def compress(
        self, pictures: list[Any] | tuple[Any, ...], quality: float | None = ..., **options: Any
    ) -> list[bytes]: ...

    @overload
    def compress(self, pictures: Tensor, quality: float | None = ..., **options: Any) -> bytes | list[bytes]: ...

    @overload
    def compress(self, pictures: PictureLike, quality: float | None = ..., **options: Any) -> bytes: ...

    @memory.errors_named()  # type: ignore[misc]  # the options of the overloads are those named here
    def compress(
        self,
        pictures: PictureLike | Sequence[PictureLike],
        quality: float | None = None,
        *,
        target_bpp: float | None = None,
        max_bytes: int | None = None,
        first_frame: bool = False,
        metadata: bool = False,
        alpha: str = "lossy",
        flatten: str | None = None,
        max_pixels: int = MAX_PIXELS,
        progress: Callable[[float], None] | None = None,
        report: Report | None = None,
    ) -> bytes | list[bytes]:
        """The stream of a picture, or a list of streams for a list of pictures or a tensor (B, 3, H, W).

        Parameters
        ----------
        pictures
            Path, bytes, binary file, PIL image, uint8 array (H, W, 3), tensor (3, H, W) in 0..1, or several; arrays
            and tensors may be grey or have alpha too. `sodec.picture.load` says what is converted.
        quality
            1 (smallest) to 100, in steps of 0.5; 50 unless a target is given.
        target_bpp, max_bytes
            Instead of a quality: bits per pixel of the whole stream, or its bytes. The finest coding that stays
            within is searched with one analysis and at most 8 entropy passes, and ends within 2 % below.
        first_frame
            Takes the first frame of an animation, which is refused otherwise.
        metadata
            Keeps EXIF, XMP and an sRGB profile, as sections of their own that `inspect` itemises.
        alpha
            "lossy": off by at most 4 of 255 where that saves more than 15 % of its bytes; or "lossless".
        flatten
            A colour, as "white" or "#ffffff", to put a transparent picture on; its alpha is not kept then.
        max_pixels
            Pictures of more are refused before they are decoded.
        progress
            Called with the share of the picture that is analysed, 0 to 1, after each tile.
        report
            Receives the time of every stage.

        Raises
        ------
        UnsupportedPictureError, PictureTooLargeError, QualityError
            Named with the value at fault, before anything is computed. Of several pictures the first bad one is named
            by its index, as pictures[3], and no stream is returned.
        TargetError
            The target is not a positive number, or below the smallest size possible, which the message names.
        """
        quality = rate.resolve_target(quality, target_bpp, max_bytes)
        engine = self._timed(report)
        given: Any = pictures
        many = isinstance(given, (list, tuple)) or (picture.is_tensor(given) and given.ndim == 4)
        sources: list[Any] = list(given) if many else [given]

        def compressed(source: PictureLike) -> bytes:
            with engine.stage("read"):
                loaded = picture.load(
                    source, first_frame=first_frame, metadata=metadata, alpha=alpha, flatten=flatten,
                    max_pixels=max_pixels,
                )  # fmt: skip
            limit = rate.byte_limit(*loaded.size, target_bpp, max_bytes) if quality is None else None
            return encode(engine, self.bundle.fingerprint, loaded, quality, limit, progress)

        streams = []
        for number, source in enumerate(sources):
            with item_named("pictures" if many else None, number):
                streams.append(compressed(source))
        return streams if many else streams[0]

    @overload
    def decompress(self, streams: StreamLike, *, output: Literal["pil"] = ..., **options: Any) -> Image.Image: ...

    @overload
    def decompress(self, streams: StreamLike, *, output: Literal["numpy"], **options: Any) -> np.ndarray: ...

    @overload
    def decompress(self, streams: StreamLike, *, output: Literal["torch"], **options: Any) -> Tensor: ...

    @overload
    def decompress(self, streams: list[Any] | tuple[Any, ...], *, output: str = ..., **options: Any) -> list[Any]: ...

    @overload
    def decompress(self, streams: StreamLike, *, output: str = ..., **options: Any) -> Any: ...

    @memory.errors_named()  # type: ignore[misc]  # as `compress`
    def decompress(
        self,
        streams: StreamLike | Sequence[StreamLike],
        *,
        output: str = "pil",
        mode: str = "full",
        fidelity: float | None = None,
        region: Sequence[int] | None = None,
        scale: float = 1,
        noise: float = 1,
        on_error: str = "raise",
        max_pixels: int = MAX_PIXELS,
        max_tile: int = MAX_TILE,
        progress: Callable[[float], None] | None = None,
        report: Report | None = None,
    ) -> Any:
        """The picture of a stream, or a list of pictures for a list of streams.

        On a CUDA device windows of one size, of several pictures or of a large one, are decoded in batches, while the
        symbols of the next ones are read; in smaller batches, with one warning, where there is too little memory. Each
        picture is then the one that it would be alone but for the rounding of the dtype, since libraries may sum in
        another order (on an H200 in bfloat16 at most 2 of 255 away). On a CPU pictures are decoded one after the
        other, and equal those that are decoded alone.

        Parameters
        ----------
        streams
            Bytes, path or binary file, or several. All headers of several are read before anything is decoded.
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
        noise
            How loud the decoder's noise is, 0 to 1. It depends on nothing but the place in the picture, so every
            decoding is the same; 0 gives a calmer picture.
        on_error
            "raise", or "conceal": a damaged tile is filled from its surroundings and a `DamageWarning` names its
            rectangle, also where bytes were inserted or are missing. A header is read where one damaged byte, apart
            from magic and fingerprint, explains it; a warning says which. Damage to the only tile is an error.
        max_pixels, max_tile
            Streams of more pixels, or with tiles of more pixels a side, are refused before memory is taken for them:
            time and memory grow with both, whatever the bytes. sodec writes tiles of 1,024.
        progress
            Called with the share of the work that is done, 0 to 1, after each tile of a picture; several count alike.
        report
            Receives the time of every stage and the rectangles that were lost.

        Raises
        ------
        CorruptStreamError, NewerFormatError, UnknownModelError, PictureTooLargeError
            The bytes are damaged, too new, of other weights, or of a picture beyond the limits. Of several streams
            the first bad one is named by its index, as streams[3], and no picture is returned.
        ViewError
            A mode, fidelity, scale or noise that does not exist, or a region that is not within the picture.
        """
        if output not in OUTPUTS:
            raise ValueError(f"output must be one of {', '.join(OUTPUTS)} (got {output!r})")
        if on_error not in ON_ERROR:
            raise ValueError(f"on_error must be one of {', '.join(ON_ERROR)} (got {on_error!r})")
        view = checked_view(mode, fidelity, region, scale, noise)
        conceal = on_error == "conceal"
        engine = self._timed(report)

        many = isinstance(streams, (list, tuple))
        given: list[Any] = list(streams) if many else [streams]  # type: ignore[arg-type]
        naming = partial(item_named, "streams" if many else None)
        read = []
        for number, data in enumerate(given):
            with naming(number), engine.stage("container"):
                read.append(self._read(data, max_pixels, max_tile, salvage=conceal))
        pictures: list[Any] = [None] * len(read)
        for number, decoded in decode_all(engine, read, view, conceal=conceal, progress=progress, naming=naming):
            _warn_of_damage(read[number], decoded.lost, f"streams[{number}]: " if many else "")
            if report is not None:
                report.lost += decoded.lost
            pictures[number] = OUTPUTS[output](decoded.picture)
        return pictures if many else pictures[0]

    def latents(self, data: StreamLike) -> Latents:
        """y_hat and z_hat of a stream of one tile, for looking at the parts of the decoder one by one.

        `DeviceError` unless the engine is PyTorch's.
        """
        import torch

        engine = self._torch_engine
        stream = self._read(data)
        if len(stream.payloads) != 1:
            raise ValueError(f"the stream has {len(stream.payloads)} tiles, not one")
        z, y = TileSource(engine, stream, content=False).symbols(0)
        with engine.running():
            (y_hat,) = engine.dequantise(z, y, stream.quality, content=False)
        z_hat = torch.from_numpy(z).to(engine.device)[None].to(engine.dtype)
        return Latents(y_hat, z_hat, engine.at(stream.quality))

    @property
    def prepared(self) -> Any:
        """How the networks were specialised for this device; printed, it is a summary."""
        return self.engine.prepared

    @property
    def model(self) -> SodecModel:
        """The networks, of PyTorch's engine; `DeviceError` of another."""
        return self._torch_engine.model

    @property
    def _torch_engine(self) -> TorchEngine:
        if self.engine.name != "torch":
            raise DeviceError("the networks are PyTorch modules, which only engine='torch' has")
        return cast("TorchEngine", self.engine)

    def _read(
        self,
        data: StreamLike | container.Stream,
        max_pixels: int = MAX_PIXELS,
        max_tile: int = MAX_TILE,
        *,
        salvage: bool = False,
    ) -> container.Stream:
        if isinstance(data, container.Stream):  # `sodec.decompress` has read it, to find the weights
            stream = data
            check_limits(stream, max_pixels, max_tile)
        else:
            known = (self.bundle.fingerprint,)
            stream = container.read(read_stream(data), max_pixels, max_tile, salvage=salvage, known=known, alpha=False)
        if stream.fingerprint != self.bundle.fingerprint:
            raise UnknownModelError(
                f"the stream needs weights {stream.fingerprint.hex()}; this codec holds "
                f"{self.bundle.name} {self.bundle.fingerprint.hex()} (bundled: {', '.join(bundled_models())})"
            )
        return stream

    def _timed(self, report: Report | None) -> Engine:
        _check_process()
        return self.engine.timed(None if report is None else report.times)


_used_in: int | None = None  # the process that made the first codec


def _check_process() -> None:
    """`DeviceError` in a process that was forked from one that had used a codec: its threads are not in the child."""
    global _used_in
    if _used_in is None:
        _used_in = os.getpid()
    elif _used_in != os.getpid():
        raise DeviceError(
            "this process was forked after sodec had been used, and its engine would hang in it: start processes with "
            'multiprocessing.get_context("spawn"), or use sodec only in the children'
        )


def _warn_of_damage(stream: container.Stream, lost: tuple[Region, ...], which: str = "") -> None:
    """Warns of all damage to a stream; `which` begins the messages."""
    tiles = [f"the tile at {','.join(map(str, box))} (x,y,width,height) is damaged; it is filled from its surroundings"
             for box in lost]  # fmt: skip
    sections = [
        f"{name} of the stream is damaged and left out" for name in stream.damaged if name.startswith("section")
    ]
    for message in (*tiles, *stream.repairs, *sections):
        warn(which + message, DamageWarning)
