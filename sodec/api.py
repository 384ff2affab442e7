"""The functions of the package: `compress`, `decompress`, `inspect`. Codecs are kept, so the second call is fast."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from . import memory
from .errors import UnknownModelError, item_named
from .files import StreamLike, read_stream
from .pipeline.tiles import CELL
from .stream import container, info, symbols
from .stream.header import MAX_PIXELS, MAX_SIDE, MAX_TILE
from .stream.info import Info
from .weights import Bundle, bundled_fingerprints, bundled_models, find_by_fingerprint, resolve

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

    from .codec import Codec
    from .picture import PictureLike


@overload
def compress(picture: list[Any] | tuple[Any, ...], quality: float | None = ..., **options: Any) -> list[bytes]: ...


@overload
def compress(picture: Tensor, quality: float | None = ..., **options: Any) -> bytes | list[bytes]: ...


@overload
def compress(picture: PictureLike, quality: float | None = ..., **options: Any) -> bytes: ...


def compress(
    picture: Any,
    quality: float | None = None,
    *,
    target_bpp: float | None = None,
    max_bytes: int | None = None,
    model: str = "lite",
    weights: str | Path | Bundle | None = None,
    engine: str = "auto",
    device: str = "cpu",
    **options: Any,
) -> bytes | list[bytes]:
    """A picture as a .sodec stream; a list of pictures, or a tensor (B, 3, H, W), as a list of streams.

    `model`, `weights`, `engine` and `device` are those of `Codec`. `Codec.compress` says what is taken and raised, and
    which other options there are.

    Examples
    --------
    >>> data = sodec.compress("photo.jpg", quality=20)
    >>> data = sodec.compress("photo.jpg", max_bytes=8000)
    """
    codec = kept_codec(resolve(model, weights), device, engine)
    return codec.compress(picture, quality, target_bpp=target_bpp, max_bytes=max_bytes, **options)


@overload
def decompress(data: StreamLike, *, output: Literal["pil"] = ..., **options: Any) -> Image.Image: ...


@overload
def decompress(data: StreamLike, *, output: Literal["numpy"], **options: Any) -> np.ndarray: ...


@overload
def decompress(data: StreamLike, *, output: Literal["torch"], **options: Any) -> Tensor: ...


@overload
def decompress(data: list[Any] | tuple[Any, ...], *, output: str = ..., **options: Any) -> list[Any]: ...


def decompress(
    data: Any,
    *,
    output: str = "pil",
    weights: str | Path | Bundle | None = None,
    engine: str = "auto",
    device: str = "cpu",
    **options: Any,
) -> Any:
    """The picture of a stream, or the list of pictures of a list of streams.

    The stream names the bundled model that it needs; `weights` are given for streams of other ones.
    `Codec.decompress` says what comes back, what is raised and which other options there are.

    Examples
    --------
    >>> image = sodec.decompress("photo.sodec")
    >>> face = sodec.decompress(data, region=(400, 120, 256, 256))
    """
    if weights is not None:
        return kept_codec(resolve("", weights), device, engine).decompress(data, output=output, **options)
    many = isinstance(data, (list, tuple))
    # A coding that is not installed is named whatever the size is; the codec refuses what is too large. Only salvage
    # unpacks alpha here.
    limits = {"max_pixels": MAX_SIDE**2, "max_tile": MAX_SIDE}
    if salvage := options.get("on_error") == "conceal":
        limits = {name: options[name] for name in limits if name in options}
    known, streams = tuple(bundled_fingerprints()), list[tuple[Bundle, Any]]()
    for number, one in enumerate(data if many else [data]):
        with item_named("streams" if many else None, number), memory.errors_named():
            stream = container.read(read_stream(one), **limits, salvage=salvage, known=known, alpha=False)
            streams.append((_bundle_of(stream.fingerprint), stream))
    if many and len({bundle.fingerprint for bundle, _ in streams}) == 1:
        codec = kept_codec(streams[0][0], device, engine)
        return codec.decompress([stream for _, stream in streams], output=output, **options)
    pictures = []
    for number, (bundle, one) in enumerate(streams):
        with item_named("streams" if many else None, number):
            pictures.append(kept_codec(bundle, device, engine).decompress(one, output=output, **options))
    return pictures if many else pictures[0]


@memory.errors_named()
def inspect(data: StreamLike, *, max_pixels: int = MAX_PIXELS, max_tile: int = MAX_TILE) -> Info:
    """Sizes, quality, model, and bytes by section, without torch and without decoding the picture.

    Time and memory grow with the bytes, not with the pixels. Where the weights are bundled, the bytes of z and y are
    counted apart. Sections (alpha, metadata) are counted but not unpacked.

    Parameters
    ----------
    data
        Bytes, path or binary file.
    max_pixels, max_tile
        As for `Codec.decompress`.

    Raises
    ------
    CorruptStreamError, NewerFormatError, PictureTooLargeError
        As `Codec.decompress`.
    """
    parsed = container.parse(read_stream(data), max_pixels, max_tile)
    bundle = find_by_fingerprint(parsed.stream.fingerprint)
    if bundle is None:
        return info.described(parsed)

    def z_end(payload: bytes, width: int, height: int) -> int:
        return symbols.z_end(bundle.coding, payload, -(-height // CELL), -(-width // CELL))

    model = bundle.name, bundle.version
    return info.described(parsed, model=model, z_end=z_end)


@functools.lru_cache(maxsize=2)
def kept_codec(bundle: Bundle, device: str, engine: str = "auto") -> Codec:
    """The codec behind `compress` and `decompress`, made at the first call with these weights, device and engine."""
    from .codec import Codec

    return Codec(weights=bundle, engine=engine, device=device)


def _bundle_of(fingerprint: bytes) -> Bundle:
    """The bundled weights of this fingerprint. `UnknownModelError` where there are none."""
    bundle = find_by_fingerprint(fingerprint)
    if bundle is None:
        raise UnknownModelError(
            f"the stream needs weights {fingerprint.hex()}, which are not installed "
            f"(bundled: {', '.join(bundled_models()) or 'none'}); give their folder as weights="
        )
    return bundle
