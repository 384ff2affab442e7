"""A numcodecs codec, and so a compressor of zarr arrays: chunks of uint8 pictures become .sodec streams (extra: zarr).

It is lossy, and made for photographs: measurements, masks and labels need another codec.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec as NumcodecsCodec
from numcodecs.compat import ensure_bytes, ensure_ndarray, ndarray_copy
from numcodecs.registry import register_codec

from .. import api
from ..stream.container import MAX_PIXELS, MAX_TILE


class Sodec(NumcodecsCodec):  # type: ignore[misc]  # numcodecs has no types
    """Chunks of shape (H, W), (H, W, 3) or (H, W, 4), uint8; axes of length one before them are allowed.

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
        """The stream of one chunk; `UnsupportedPictureError` where its shape or dtype is not that of a picture."""
        chunk = ensure_ndarray(buf)
        while chunk.ndim > 2 and chunk.shape[0] == 1 and (chunk.ndim > 3 or chunk.shape[2] not in (3, 4)):
            chunk = chunk[0]
        return api.compress(np.ascontiguousarray(chunk), self.quality, model=self.model, device=self.device)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The chunk's pixels, without the axes of length one; or put into `out`."""
        pixels = api.decompress(
            ensure_bytes(buf), output="numpy", device=self.device, max_pixels=self.max_pixels, max_tile=self.max_tile
        )
        return ndarray_copy(pixels, out)


register_codec(Sodec)
