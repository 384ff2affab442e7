"""A numcodecs codec, and so a compressor of zarr's format 2: chunks of uint8 pictures become .sodec streams.

`sodec.integrations.zarr` is the one of format 3 (both: extra zarr). They are lossy, and made for photographs:
measurements, masks and labels need another codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numcodecs.compat import ensure_bytes, ensure_ndarray
from numcodecs.registry import register_codec

from .. import api
from ..errors import UnsupportedPictureError
from ..picture import load
from ..stream.header import MAX_PIXELS, MAX_TILE


class Sodec(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no types
    """Chunks of shape (H, W), (H, W, 3) or (H, W, 4), uint8; axes of length one before them are allowed.

    A fourth plane is alpha, and is coded without a loss.

    Parameters
    ----------
    quality
        1 to 100, as in `sodec.compress`.
    model, device
        As in `sodec.compress`.

    Attributes
    ----------
    max_pixels, max_tile
        As for `Codec.decompress`. Assign to the class to change them: they are not stored with an array, so that no
        store raises the limits of its reader.

    Examples
    --------
    >>> photos = zarr.create_array("photos.zarr", shape=(9, 512, 512, 3), chunks=(1, 512, 512, 3),
    ...                            dtype="u1", zarr_format=2, compressors=Sodec(quality=40))
    """

    codec_id = "sodec"
    max_pixels, max_tile = MAX_PIXELS, MAX_TILE

    def __init__(self, quality: float = 50, model: str = "lite", device: str = "cpu") -> None:
        self.quality, self.model, self.device = quality, model, device

    def encode(self, buf: Any) -> bytes:
        """The stream of one chunk.

        `UnsupportedPictureError` where its shape or dtype is not that of a picture, or where its memory is in Fortran
        order, as that of zarr's arrays of order="F": what `decode` returns would be read in that order too, though it
        is not, and nothing in a stream says so.
        """
        chunk = ensure_ndarray(buf)
        if chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            raise UnsupportedPictureError(
                'a chunk must be in C order (got Fortran order): create the array with order="C", '
                "or pass numpy.ascontiguousarray(chunk)"
            )
        return encode_chunk(chunk, self.quality, self.model, self.device)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The chunk's pixels, without the axes of length one; or put into `out`, whose pixels are as many."""
        pixels = api.decompress(
            ensure_bytes(buf), output="numpy", device=self.device, max_pixels=self.max_pixels, max_tile=self.max_tile
        )
        if out is None:
            return pixels
        target = ensure_ndarray(out)
        np.copyto(target, pixels.reshape(target.shape))
        return out


def picture_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A chunk's shape without the axes of length one before the picture; `UnsupportedPictureError` if it is none."""
    picture = tuple(shape)
    while len(picture) > 2 and picture[0] == 1 and (len(picture) > 3 or picture[2] not in (3, 4)):
        picture = picture[1:]
    if len(picture) == 2 or (len(picture) == 3 and picture[2] in (3, 4)):
        return picture
    raise UnsupportedPictureError(
        f"a chunk must be one picture: (H, W), (H, W, 3) or (H, W, 4), after axes of length one (got {tuple(shape)})"
    )


def encode_chunk(chunk: np.ndarray, quality: float, model: str, device: str) -> bytes:
    """The stream of a chunk that is one picture. It decodes to as many planes, also where three of them are equal."""
    pixels = np.ascontiguousarray(chunk).reshape(picture_shape(chunk.shape))
    picture = replace(load(pixels, alpha="lossless"), grey=pixels.ndim == 2)
    return api.compress(picture, quality, model=model, device=device)


register_codec(Sodec)
