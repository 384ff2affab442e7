"""EXIF as bytes: what its orientation is, and the same bytes with another one. Nothing else in them is touched.

The layout is TIFF's: a header that says the byte order and where the first directory is; the directory has 12 bytes for
each tag (Exif 3.0, section 4.6). Re-serialising EXIF through Pillow would turn UTF-8 names into question marks.
"""

from __future__ import annotations

import struct

PREFIX = b"Exif\0\0"  # before the TIFF header in JPEG, and in what Pillow holds
ORIENTATION = 0x0112
SHORT, LONG = 3, 4  # types of a tag
# What turns the stored picture upright, by orientation: transpose, then flip rows, then flip columns.
UPRIGHT = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
    5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


class BrokenExifError(ValueError):
    """The bytes are not EXIF: no TIFF header, or a directory that leaves them."""


def orientation(exif: bytes) -> int:
    """1 to 8; 1 where it is not stored, or is no such number. Raises `BrokenExifError`."""
    place = _place(exif)
    if place is None:
        return 1
    order, kind, at = place
    value = struct.unpack_from(order + ("H" if kind == SHORT else "I"), exif, at)[0]
    return value if value in UPRIGHT else 1


def upright(exif: bytes) -> bytes:
    """The same EXIF with orientation 1, if it stores one. Raises `BrokenExifError`."""
    place = _place(exif)
    if place is None:
        return exif
    order, kind, at = place
    value = struct.pack(order + ("H" if kind == SHORT else "I"), 1)
    return exif[:at] + value + exif[at + len(value) :]


def _place(exif: bytes) -> tuple[str, int, int] | None:
    """Byte order, type and place of the orientation's value; None where there is none that is a number."""
    start = len(PREFIX) if exif.startswith(PREFIX) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        raise BrokenExifError(f"no TIFF header: {exif[start : start + 4].hex(' ') or 'nothing'}")
    try:
        directory = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        count = struct.unpack_from(order + "H", exif, directory)[0]
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, at)
            struct.unpack_from("4x", exif, at + 8)
            if tag == ORIENTATION:
                return (order, kind, at + 8) if kind in (SHORT, LONG) and values == 1 else None
    except struct.error:
        raise BrokenExifError(f"its directory does not fit into {len(exif)} bytes") from None
    return None
