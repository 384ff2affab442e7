"""Bodies of a stream's sections: alpha, and metadata that a picture may bring along (FORMAT.md, 2.2 and 2.3)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..errors import CorruptStreamError

ALPHA = 1
METADATA = {"exif": 2, "icc": 3, "xmp": 4}
METADATA_NAMES = {tag: name for name, tag in METADATA.items()}
MAX_METADATA = 1 << 24  # bytes of one, unpacked

PLAIN, DEFLATED = 0, 1  # methods
ALPHA_BAND, INFLATED_AT_ONCE = 1 << 20, 1 << 16  # values of alpha, and bytes of its section, that are unpacked at once


def name_of(tag: int) -> str:
    """The name of a section's type: "alpha", "exif", "icc", "xmp" or "other"."""
    return "alpha" if tag == ALPHA else METADATA_NAMES.get(tag, "other")


Packed = list[tuple[int, bytes]]  # key of the directory (2 x type + 1 if critical), and body


def pack(alpha: npt.NDArray[np.uint8] | None, metadata: Mapping[str, bytes]) -> Packed:
    """The sections of a stream. `ValueError` for metadata of an unknown name, empty, or beyond `MAX_METADATA`."""
    packed = [] if alpha is None else [(ALPHA << 1 | 1, pack_alpha(alpha))]
    for name, data in metadata.items():
        if name not in METADATA:
            raise ValueError(f"metadata must be one of {', '.join(METADATA)} (got {name!r})")
        if not 1 <= len(data) <= MAX_METADATA:
            raise ValueError(f"metadata {name!r} must have 1 to {MAX_METADATA} bytes (got {len(data)})")
        packed.append((METADATA[name] << 1, _pack_metadata(data)))
    return sorted(packed)


def pack_alpha(alpha: npt.NDArray[np.uint8]) -> bytes:
    """One byte where all are the same, else deflated differences."""
    if alpha.min() == alpha.max():
        return bytes([PLAIN, alpha.flat[0]])
    rows = alpha.copy()
    rows[1:] -= alpha[:-1]  # modulo 256
    return bytes([DEFLATED]) + zlib.compress(rows, 9)


def unpack_alpha(
    body: bytes, width: int, height: int, part: tuple[slice, slice] = (slice(None), slice(None))
) -> npt.NDArray[np.uint8]:
    """Rows and columns `part` of the alpha of a picture of `width` x `height` pixels, uint8.

    Inflates no further than to the last of these rows, a few at a time.

    Raises `CorruptStreamError` where the body is not that of such a picture, as far as it is read.
    """
    first, last, _ = part[0].indices(height)
    columns = range(width)[part[1]]
    if body[0] == PLAIN:
        if len(body) != 2:
            raise CorruptStreamError(f"a constant alpha section has 2 bytes, not {len(body)}")
        return np.full((last - first, len(columns)), body[1], dtype=np.uint8)
    if body[0] != DEFLATED:
        raise CorruptStreamError(f"alpha method {body[0]} does not exist")
    source = _Inflated(body)
    alpha = np.empty((last - first, len(columns)), np.uint8)
    above = np.zeros(width, np.uint8)
    rows = max(1, ALPHA_BAND // width)
    for top in range(0, last, rows):
        bottom = min(top + rows, last)
        raw = source.take((bottom - top) * width)
        if len(raw) < (bottom - top) * width:
            raise CorruptStreamError(f"the alpha section does not hold {width}x{height} values")
        band = np.frombuffer(raw, np.uint8).reshape(-1, width)
        if bottom > first:
            values = np.cumsum(band, axis=0, dtype=np.uint8)
            values += above
            begin = max(first, top)
            alpha[begin - first : bottom - first] = values[begin - top :, part[1]]
            above = values[-1]
        else:
            above = above + band.sum(axis=0, dtype=np.uint8)
    if last == height and not source.ended():
        raise CorruptStreamError(f"the alpha section does not hold {width}x{height} values")
    return alpha


class _Inflated:
    """The data of a deflated section, piece by piece."""

    def __init__(self, body: bytes) -> None:
        self.body, self.place, self.inflater = body, 1, zlib.decompressobj()

    def take(self, count: int) -> bytes:
        """The next bytes; fewer where the data end. `CorruptStreamError` where they can't be inflated."""
        pieces, missing = [], count
        while missing and not self.inflater.eof:
            piece = self._inflate(missing)
            if piece is None:
                break
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def ended(self) -> bool:
        """Whether the data end here, and the section with them."""
        while not self.inflater.eof and (piece := self._inflate(1)) is not None:
            if piece:
                return False
        return self.inflater.eof and not self.inflater.unused_data and self.place >= len(self.body)

    def _inflate(self, most: int) -> bytes | None:
        """At most so many bytes, perhaps none; None where the section has no more."""
        waiting = self.inflater.unconsumed_tail
        if not waiting:
            waiting = self.body[self.place : self.place + INFLATED_AT_ONCE]
            self.place += len(waiting)
        try:
            piece = self.inflater.decompress(waiting, most)
        except zlib.error as error:
            raise CorruptStreamError(f"the alpha section can't be inflated: {error}") from None
        return piece if piece or waiting else None


def unpack_metadata(body: bytes, name: str) -> bytes:
    """The bytes as they were; `CorruptStreamError` where they can't be decompressed."""
    if body[0] == PLAIN:
        data = body[1:]
    elif body[0] == DEFLATED:
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(body[1:], MAX_METADATA + 1)
        except zlib.error as error:
            raise CorruptStreamError(f"the {name} section can't be inflated: {error}") from None
        if len(data) <= MAX_METADATA and (not inflater.eof or inflater.unused_data):
            raise CorruptStreamError(f"the {name} section does not end where its data does")
    else:
        raise CorruptStreamError(f"{name} method {body[0]} does not exist")
    if not 1 <= len(data) <= MAX_METADATA:
        raise CorruptStreamError(f"the {name} section is empty, or holds more than {MAX_METADATA} bytes")
    return data


def _pack_metadata(data: bytes) -> bytes:
    deflated = zlib.compress(data, 9)
    return bytes([DEFLATED]) + deflated if len(deflated) < len(data) else bytes([PLAIN]) + data
