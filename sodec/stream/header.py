"""The header of a stream: its fields, their limits, and how they are read (FORMAT.md, 2 and 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .._native import crc32c
from ..errors import CorruptStreamError, NewerFormatError, PictureTooLargeError
from . import MAGIC, sections

if TYPE_CHECKING:
    from .container import Stream

VERSION = 1

CELL = 16  # pixels a side that a position of y stands for
MAX_SIDE = 65535
# What a decoder accepts unless its caller raises it. Time and memory grow with both: every tile is read whole.
MAX_PIXELS = 1 << 28
MAX_TILE = 1024  # pixels a side
MAX_SECTIONS = 64
TILE_LOG2 = 10  # the tile of a stream that states none
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 16

# The low four bits of byte 3.
FLAG_EXTENDED, FLAG_GREY = 1, 2
FLAGS_KNOWN = FLAG_EXTENDED | FLAG_GREY
# The critical flags of the extended header: none is defined in version 1.
CRITICAL_KNOWN = 0

PEEK_BYTES = 1024  # hold any header up to its tile index: 64 sections take at most 12 bytes each

QUALITY_STEPS = 2  # per unit of quality: half a unit changes the bytes by about 1.5 %, which nobody sees

CHECK_BYTES = 4
SHORT_CHECK_BYTES = 2


class Entry(NamedTuple):
    """A section as the directory announces it."""

    tag: int
    critical: bool
    length: int
    check: bytes


class TileEntry(NamedTuple):
    """A tile as the index announces it."""

    length: int
    check: bytes | None  # None in a stream without an index


class Header(NamedTuple):
    """What a stream says before its tile index."""

    width: int
    height: int
    quality: float
    fingerprint: bytes
    grey: bool
    tile_log2: int
    extended: bool
    directory: tuple[Entry, ...]

    @property
    def alpha(self) -> bool:
        """Whether the picture has one."""
        return any(entry.tag == sections.ALPHA for entry in self.directory)


class Cursor:
    """Reads forward through the header, never past `end`."""

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data, self.position, self.end = data, position, end

    def take(self, count: int, what: str) -> bytes:
        if count > self.end - self.position:
            left = self.end - self.position
            raise CorruptStreamError(f"truncated stream: {what} takes {count} bytes, {left} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte(what)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value >> 32:
                    raise CorruptStreamError(f"{what}: not the shortest form of a number below 2^32")
                return value
        raise CorruptStreamError(f"{what}: a number of more than five bytes")


def peek(start: bytes) -> Header:
    """What the first `PEEK_BYTES` of a stream say of the picture. No check is made of what follows them.

    Raises
    ------
    CorruptStreamError, NewerFormatError
        Not the start of a stream that this version reads.
    """
    check_start(start)
    return parse_header(Cursor(start, 4, len(start)))


def tile_grid(width: int, height: int, tile_log2: int) -> tuple[int, int]:
    """Columns and rows of tiles that cover `width` x `height` pixels."""
    return -(-width >> tile_log2), -(-height >> tile_log2)


def check_limits(header: Header | Stream, max_pixels: int = MAX_PIXELS, max_tile: int = MAX_TILE) -> None:
    """`PictureTooLargeError` where the header claims more pixels, or tiles of more pixels a side, than these limits."""
    width, height = header.width, header.height
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"the stream claims {width}x{height} pixels, {width * height} in all; the limit is {max_pixels} "
            "(max_pixels=, --max-pixels)"
        )
    side = min(1 << header.tile_log2, max(width, height))
    if side > max_tile:
        raise PictureTooLargeError(
            f"the stream has tiles of {side} pixels a side; the limit is {max_tile} (max_tile=, --max-tile)"
        )


def check_start(data: bytes) -> None:
    """Checks magic and version, before the CRC-32C because a later version may hold its check elsewhere."""
    if not data:
        raise CorruptStreamError("the stream is empty")
    if data[:3] != MAGIC[: len(data)]:
        raise CorruptStreamError(f"not a .sodec stream: it begins with {data[:3].hex(' ')}, not {MAGIC.hex(' ')}")
    if len(data) < 3 + 1 + 3 + 1 + 2 + 1 + CHECK_BYTES:
        raise CorruptStreamError(f"truncated stream: {len(data)} bytes")
    version = data[3] >> 4
    if version > VERSION:
        if crc_matches(data[:3] + bytes([VERSION << 4 | data[3] & 15]) + data[4:]):
            raise CorruptStreamError(
                f"altered stream: byte 3 says format version {version}, but its CRC-32C is that of version {VERSION}"
            )
        raise NewerFormatError(f"the stream is of format version {version}; this sodec reads up to {VERSION}")
    if version == 0:
        raise CorruptStreamError("format version 0 does not exist")


def crc_matches(data: bytes) -> bool:
    return int.from_bytes(data[-CHECK_BYTES:], "little") == crc32c(memoryview(data)[:-CHECK_BYTES])


def parse_header(cursor: Cursor) -> Header:
    """All up to the tile index; leaves the cursor there."""
    flags = cursor.data[3] & 15
    if unknown := flags & ~FLAGS_KNOWN:
        raise NewerFormatError(f"header flag {_lowest_bit(unknown)} is unknown to version {VERSION} of the format")
    fingerprint = cursor.take(3, "fingerprint")
    quality = cursor.byte("quality") / QUALITY_STEPS
    if not 1 <= quality <= 100:
        raise CorruptStreamError(f"quality {quality:g} is not in 1..100")
    width, height = cursor.varint("width"), cursor.varint("height")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise CorruptStreamError(f"picture size {width}x{height}: sides of 1..{MAX_SIDE} are allowed")
    extended, grey = bool(flags & FLAG_EXTENDED), bool(flags & FLAG_GREY)
    tile_log2, directory = _parse_directory(cursor) if extended else (TILE_LOG2, ())
    return Header(width, height, quality, fingerprint, grey, tile_log2, extended, directory)


def _parse_directory(cursor: Cursor) -> tuple[int, tuple[Entry, ...]]:
    """Tile size and sections of the extended header."""
    critical = cursor.byte("critical flags")
    if unknown := critical & ~CRITICAL_KNOWN:
        raise NewerFormatError(f"critical flag {_lowest_bit(unknown)} is unknown to version {VERSION} of the format")
    tile_log2 = cursor.byte("tile size")
    if not MIN_TILE_LOG2 <= tile_log2 <= MAX_TILE_LOG2:
        raise CorruptStreamError(f"tile size 2^{tile_log2} is not in 2^{MIN_TILE_LOG2}..2^{MAX_TILE_LOG2}")
    count = cursor.byte("section count")
    if count > MAX_SECTIONS:
        raise CorruptStreamError(f"{count} sections; the limit is {MAX_SECTIONS}")
    entries: list[Entry] = []
    for _ in range(count):
        key = cursor.varint("section type")
        if key & 1 and key >> 1 != sections.ALPHA:
            raise NewerFormatError(f"critical section {key >> 1} is unknown to version {VERSION} of the format")
        length, check = cursor.varint("section length"), cursor.take(SHORT_CHECK_BYTES, "section check")
        name = sections.name_of(key >> 1)
        if name != "other" and any(entry.tag == key >> 1 for entry in entries):
            raise CorruptStreamError(f"the stream has two {name} sections")
        entries.append(Entry(key >> 1, bool(key & 1), length, check))
    return tile_log2, tuple(entries)


def parse_index(cursor: Cursor, header: Header) -> list[TileEntry]:
    """The entry of each tile; leaves the cursor at the check of the header."""
    columns, rows = tile_grid(header.width, header.height, header.tile_log2)
    # An entry takes at least three bytes: checked before a list of that many tiles is made.
    if columns * rows * 3 > cursor.end - cursor.position:
        raise CorruptStreamError(f"truncated stream: no room for the index of {columns}x{rows} tiles")
    return [
        TileEntry(cursor.varint("tile length"), cursor.take(SHORT_CHECK_BYTES, "tile check"))
        for _ in range(columns * rows)
    ]


def header_check_matches(cursor: Cursor) -> bool:
    """Whether the check of the extended header is that of all bytes before; leaves the cursor at the first body."""
    end = cursor.position
    return cursor.take(SHORT_CHECK_BYTES, "header check") == short_check(memoryview(cursor.data)[:end])


def short_check(data: bytes | bytearray | memoryview) -> bytes:
    return (crc32c(data) & 0xFFFF).to_bytes(SHORT_CHECK_BYTES, "little")


def _lowest_bit(value: int) -> int:
    return (value & -value).bit_length() - 1
