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


def unpack_alpha(body: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    """(height, width) uint8; `CorruptStreamError` where the body is not that of such a picture."""
    if body[0] == PLAIN:
        if len(body) != 2:
            raise CorruptStreamError(f"a constant alpha section has 2 bytes, not {len(body)}")
        return np.full((height, width), body[1], dtype=np.uint8)
    if body[0] != DEFLATED:
        raise CorruptStreamError(f"alpha method {body[0]} does not exist")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(body[1:], width * height + 1)
    except zlib.error as error:
        raise CorruptStreamError(f"the alpha section can't be inflated: {error}") from None
    if len(raw) != width * height or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"the alpha section does not hold {width}x{height} values")
    return np.cumsum(np.frombuffer(raw, dtype=np.uint8).reshape(height, width), axis=0, dtype=np.uint8)


def unpack_metadata(body: bytes, name: str) -> bytes:
    """The bytes as they were; `CorruptStreamError` where they can't be had."""
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
