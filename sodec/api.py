"""The functions of the package: `compress`, `decompress`, `inspect`. Codecs are kept, so the second call is fast."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .errors import UnknownModelError
from .files import StreamLike, read_stream
from .stream import container, info, symbols
from .stream.info import Info
from .weights import bundled_models, find_by_fingerprint

if TYPE_CHECKING:
    from .codec import Codec
    from .picture import PictureLike


def compress(
    picture: PictureLike,
    quality: float | None = None,
    *,
    target_bpp: float | None = None,
    max_bytes: int | None = None,
    model: str = "lite",
    device: str = "cpu",
    **options: Any,
) -> bytes:
    """A picture as a .sodec stream; `Codec.compress` says what is taken and raised, and what else can be asked.

    Examples
    --------
    >>> data = sodec.compress("photo.jpg", quality=20)
    >>> data = sodec.compress("photo.jpg", max_bytes=8000)
    """
    return codec(model, device).compress(picture, quality, target_bpp=target_bpp, max_bytes=max_bytes, **options)


def decompress(data: StreamLike, *, output: str = "pil", device: str = "cpu", **options: Any) -> Any:
    """The picture of a stream; `Codec.decompress` says what comes back, what is raised and what else can be asked.

    Examples
    --------
    >>> image = sodec.decompress("photo.sodec")
    >>> face = sodec.decompress(data, region=(400, 120, 256, 256))
    """
    data = read_stream(data)
    fingerprint = container.peek(data[: container.PEEK_BYTES]).fingerprint
    bundle = find_by_fingerprint(fingerprint)
    if bundle is None:
        container.read(data)  # which says so where the bytes are damaged, the fingerprint among them perhaps
        raise UnknownModelError(
            f"the stream needs weights {fingerprint.hex()}, which are not installed "
            f"(bundled: {', '.join(bundled_models()) or 'none'}); give their folder to sodec.Codec(weights=...)"
        )
    return codec(bundle.folder.name, device).decompress(data, output=output, **options)


def inspect(data: StreamLike) -> Info:
    """Sizes, quality, model, and bytes by section, without torch and without decoding the picture.

    Raises what `sodec.stream.container.read` raises. Where the weights are bundled, z and y are told apart.
    """
    data = read_stream(data)
    bundle = find_by_fingerprint(container.read(data).fingerprint)
    if bundle is None:
        return info.inspect(data)

    def z_end(payload: bytes, stream: container.Stream, number: int) -> int:
        from .pipeline.tiles import grid

        cells = list(grid(stream.width, stream.height, 1 << stream.tile_log2))[number].cells()
        return symbols.z_end(bundle.coding, payload, cells.height, cells.width)

    return info.inspect(data, model_name=lambda _: bundle.name, z_end=z_end)


@functools.lru_cache(maxsize=2)
def codec(model: str, device: str) -> Codec:
    """The codec behind `compress` and `decompress`, made at the first call."""
    from .codec import Codec

    return Codec(model, device=device)
