"""EXIF as bytes: its orientation and resolution, and the same bytes with others. Nothing else in them is touched.

The layout is TIFF's: a header that says the byte order and where the first directory is; the directory has 12 bytes for
each tag (Exif 3.0, section 4.6). Re-serialising EXIF through Pillow would turn UTF-8 names into question marks.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

PREFIX = b"Exif\0\0"  # before the TIFF header in JPEG, and in what Pillow holds
EMPTY = PREFIX + b"MM\0*\0\0\0\x08" + bytes(6)  # no tags
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x0112, 0x011A, 0x011B, 0x0128
BYTE, SHORT, LONG, RATIONAL = 1, 3, 4, 5  # types of a tag
NUMBERS = {BYTE: "B", SHORT: "H", LONG: "I"}
UNITS = {2: 1.0, 3: 2.54}  # inch and centimetre: what makes dots per inch of a resolution
DPI_STEPS = 10_000  # of a stored resolution, per dot per inch
MAX_DPI = (2**32 - 1) / DPI_STEPS
# What turns the stored picture upright, by orientation: transpose, then flip rows, then flip columns.
UPRIGHT = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True), 4: (False, True, False),
    5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip


class BrokenExifError(ValueError):
    """The bytes are not EXIF: no TIFF header, a directory that leaves them, or an orientation that is no number."""


class _Directory(NamedTuple):
    """The first directory of tags."""

    order: str  # of bytes, as `struct` names it
    start: int  # of the TIFF header, from which places are counted
    at: int  # of the first entry, from the start of the bytes
    entries: tuple[bytes, ...]  # of 12 bytes each
    following: bytes  # 4 bytes: the place of the next directory

    def find(self, tag: int) -> int | None:
        """The index of a tag's entry."""
        for index, entry in enumerate(self.entries):
            if struct.unpack_from(self.order + "H", entry)[0] == tag:
                return index
        return None


def orientation(exif: bytes) -> int | None:
    """1 to 8, 1 also for another number; None where it is not stored. Raises `BrokenExifError`."""
    place = _orientation(_directory(exif))
    if place is None:
        return None
    at, form = place
    (value,) = struct.unpack_from(form, exif, at)
    return value if value in UPRIGHT else 1


def upright(exif: bytes) -> bytes:
    """The same EXIF with orientation 1, if it stores one. Raises `BrokenExifError`."""
    place = _orientation(_directory(exif))
    if place is None:
        return exif
    at, form = place
    value = struct.pack(form, 1)
    return exif[:at] + value + exif[at + len(value) :]


def without_orientation(exif: bytes) -> bytes:
    """The same EXIF without its orientation. Raises `BrokenExifError`."""
    directory = _directory(exif)
    index = directory.find(ORIENTATION)
    if index is None:
        return exif
    return _with_entries(exif, directory, directory.entries[:index] + directory.entries[index + 1 :])


def says_more(exif: bytes) -> bool:
    """Whether there are tags beside the orientation. Raises `BrokenExifError`."""
    directory = _directory(exif)
    return len(directory.entries) > (directory.find(ORIENTATION) is not None)


def dpi(exif: bytes) -> tuple[float, float] | None:
    """Dots per inch, horizontally and vertically; None where no resolution is stored. Raises `BrokenExifError`."""
    directory = _directory(exif)
    values = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        index = directory.find(tag)
        if index is None:
            return None
        _, kind, count, offset = struct.unpack(directory.order + "HHII", directory.entries[index])
        try:
            over, under = struct.unpack_from(directory.order + "II", exif, directory.start + offset)
        except struct.error:
            return None
        if kind != RATIONAL or count != 1 or not over or not under:
            return None
        values.append(over / under)
    index = directory.find(RESOLUTION_UNIT)
    unit = 2 if index is None else struct.unpack_from(directory.order + "H", directory.entries[index], 8)[0]
    return (values[0] * UNITS[unit], values[1] * UNITS[unit]) if unit in UNITS else None


def with_dpi(exif: bytes, dpi: tuple[float, float]) -> bytes:
    """The same EXIF with a resolution in dots per inch, where it stores none. Raises `BrokenExifError`."""
    exif = exif or EMPTY
    directory = _directory(exif)
    if any(directory.find(tag) is not None for tag in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT)):
        return exif
    order, tail = directory.order, b"".join(
        struct.pack(directory.order + "II", round(value * DPI_STEPS), DPI_STEPS) for value in dpi
    )  # fmt: skip
    place = _end(exif, directory) + 2 + 12 * (len(directory.entries) + 3) + 4  # of the values, behind the directory
    added = (
        struct.pack(order + "HHII", X_RESOLUTION, RATIONAL, 1, place),
        struct.pack(order + "HHII", Y_RESOLUTION, RATIONAL, 1, place + 8),
        struct.pack(order + "HHIHH", RESOLUTION_UNIT, SHORT, 1, 2, 0),
    )
    return _with_entries(exif, directory, directory.entries + added) + tail


def _directory(exif: bytes) -> _Directory:
    start = len(PREFIX) if exif.startswith(PREFIX) else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        raise BrokenExifError(f"no TIFF header: {exif[start : start + 4].hex(' ') or 'nothing'}")
    try:
        place = start + struct.unpack_from(order + "I", exif, start + 4)[0]
        count = struct.unpack_from(order + "H", exif, place)[0]
        entries = tuple(struct.unpack_from("12s", exif, place + 2 + 12 * index)[0] for index in range(count))
    except struct.error:
        raise BrokenExifError(f"its directory does not fit into {len(exif)} bytes") from None
    following = exif[place + 2 + 12 * count :][:4].ljust(4, b"\0")  # some writers leave it out
    return _Directory(order, start, place + 2, entries, following)


def _orientation(directory: _Directory) -> tuple[int, str] | None:
    """Place and `struct` format of the orientation's value; None where there is no orientation."""
    index = directory.find(ORIENTATION)
    if index is None:
        return None
    _, kind, count = struct.unpack_from(directory.order + "HHI", directory.entries[index])
    if kind not in NUMBERS or count != 1:
        raise BrokenExifError(f"its orientation is {count} values of type {kind}, not a number")
    return directory.at + 12 * index + 8, directory.order + NUMBERS[kind]


def _end(exif: bytes, directory: _Directory) -> int:
    """Where a directory that is appended begins, from the TIFF header: at an even place."""
    length = len(exif) - directory.start
    return length + length % 2


def _with_entries(exif: bytes, directory: _Directory, entries: tuple[bytes, ...]) -> bytes:
    """The same bytes with another first directory, appended, so that nothing that tags point to has to move."""
    order, start, end = directory.order, directory.start, _end(exif, directory)
    entries = tuple(sorted(entries, key=lambda entry: int(struct.unpack_from(order + "H", entry)[0])))
    head = exif[: start + 4] + struct.pack(order + "I", end)
    appended = struct.pack(order + "H", len(entries)) + b"".join(entries) + directory.following
    return head + exif[start + 8 :].ljust(end - 8, b"\0") + appended
