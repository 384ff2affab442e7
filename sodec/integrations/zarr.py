"""A codec of zarr's format 3: chunks of uint8 pictures become .sodec streams (extra: zarr, version 3).

It is the array's `serializer`, since it turns pixels into bytes. It is lossy, and made for photographs: measurements,
masks and labels need another codec.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.registry import register_codec

from .. import api
from ..errors import CorruptStreamError, UnsupportedPictureError
from ..pipeline.rate import checked_quality
from ..stream.header import MAX_PIXELS, MAX_TILE
from .numcodecs import encode_chunk, picture_shape

NAME = "sodec"


@dataclass(frozen=True)
class SodecCodec(ArrayBytesCodec):
    """Chunks of shape (H, W), (H, W, 3) or (H, W, 4), uint8; axes of length one before them are allowed.

    A fourth plane is alpha, and is coded without a loss. An array of another dtype or shape is refused when it is
    created.

    Parameters
    ----------
    quality
        1 to 100, as in `sodec.compress`.
    model
        As in `sodec.compress`.

    Attributes
    ----------
    device
        As in `sodec.compress`.
    max_pixels, max_tile
        As for `Codec.decompress`. These three are not stored with an array: assign to the class to change them.

    Examples
    --------
    >>> photos = zarr.create_array("photos-3.zarr", shape=(9, 512, 512, 3), chunks=(1, 512, 512, 3),
    ...                            dtype="u1", serializer=SodecCodec(quality=40), compressors=None)
    """

    quality: float = 50
    model: str = "lite"

    is_fixed_size: ClassVar[bool] = False  # type: ignore[misc]  # of the base an attribute, which no codec sets
    device: ClassVar[str] = "cpu"
    max_pixels: ClassVar[int] = MAX_PIXELS
    max_tile: ClassVar[int] = MAX_TILE

    def __post_init__(self) -> None:
        checked_quality(self.quality)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SodecCodec:
        """The codec that an array's metadata describe."""
        return cls(**data.get("configuration", {}))

    def to_dict(self) -> dict[str, Any]:
        """What is stored with an array."""
        return {"name": NAME, "configuration": {"quality": self.quality, "model": self.model}}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raises `UnsupportedPictureError` where an array's chunks are not pictures."""
        native = dtype.to_native_dtype() if hasattr(dtype, "to_native_dtype") else np.dtype(dtype)
        if native != np.uint8:
            raise UnsupportedPictureError(f"the array must be uint8 (got {native})")
        picture_shape(getattr(chunk_grid, "chunk_shape", shape))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known before coding."""
        raise NotImplementedError

    def _encode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        data = encode_chunk(chunk_data.as_numpy_array(), self.quality, self.model, self.device)
        return chunk_spec.prototype.buffer.from_bytes(data)

    def _decode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        pixels = api.decompress(
            chunk_data.to_bytes(), output="numpy", device=self.device, max_pixels=self.max_pixels,
            max_tile=self.max_tile,
        )  # fmt: skip
        if pixels.shape != picture_shape(chunk_spec.shape):
            raise CorruptStreamError(f"the chunk holds a picture of shape {pixels.shape}, not {chunk_spec.shape}")
        return chunk_spec.prototype.nd_buffer.from_numpy_array(pixels.reshape(chunk_spec.shape))

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)


register_codec(NAME, SodecCodec)
