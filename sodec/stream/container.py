"""The .sodec container: header, sections, check. FORMAT.md says the same in prose; change both together.

`write` and `read` are inverse to each other. Nothing here knows of models or pixels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .._native import crc32c
from ..errors import CorruptStreamError, NewerFormatError, PictureTooLargeError, QualityError
from . import MAGIC, sections
from .header import (
    CHECK_BYTES,
    FLAG_EXTENDED,
    FLAG_GREY,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_TILE,
    MAX_TILE_LOG2,
    MIN_TILE_LOG2,
    QUALITY_STEPS,
    TILE_LOG2,
    VERSION,
    Cursor,
    Header,
    TileEntry,
    check_limits,
    check_start,
    crc_matches,
    header_check_matches,
    parse_header,
    parse_index,
    short_check,
    tile_grid,
)  # fmt: skip
from .header import PEEK_BYTES as PEEK_BYTES
from .header import peek as peek

SUFFIX = ".sodec"


@dataclass(frozen=True)
class Stream:
    """What a stream holds. `payloads` are the entropy-coded tiles in row-major order.

    Of a damaged stream that is salvaged, the payloads of lost tiles are empty; `damaged` names what is lost, and
    `repairs` says in sentences what was read otherwise than it is stored.
    """

    width: int
    height: int
    quality: float  # 1..100 in steps of 0.5
    fingerprint: bytes  # 3 bytes: the weights that wrote it
    payloads: tuple[bytes, ...]
    grey: bool = False
    tile_log2: int = TILE_LOG2
    alpha: npt.NDArray[np.uint8] | None = None  # (height, width) uint8
    packed_alpha: bytes | None = None  # its section, where `alpha` is not unpacked
    metadata: Mapping[str, bytes] = field(default_factory=dict)  # "exif", "icc", "xmp"
    damaged: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()

    @property
    def opaque(self) -> bool:
        """Whether there is no alpha."""
        return self.alpha is None and self.packed_alpha is None

    @property
    def tiles(self) -> tuple[int, int]:
        """Columns and rows of the tile grid."""
        return tile_grid(self.width, self.height, self.tile_log2)

    def tile_sizes(self) -> Iterator[tuple[int, int]]:
        """Width and height in pixels of each tile, in the order of `payloads`."""
        side = 1 << self.tile_log2
        for top in range(0, self.height, side):
            for left in range(0, self.width, side):
                yield min(side, self.width - left), min(side, self.height - top)

    def alpha_part(self, rows: slice, columns: slice) -> npt.NDArray[np.uint8] | None:
        """Rows and columns of alpha, for which no more than they need is unpacked; None of an opaque picture."""
        if self.packed_alpha is not None:
            return sections.unpack_alpha(self.packed_alpha, self.width, self.height, (rows, columns))
        return None if self.alpha is None else self.alpha[rows, columns]


@dataclass(frozen=True)
class Section:
    """A section as it is stored."""

    tag: int
    body: bytes


@dataclass(frozen=True)
class Parsed:
    """A stream whose sections are not unpacked."""

    stream: Stream  # without sections
    sections: tuple[Section, ...]
    header_bytes: int
    total_bytes: int


def write(stream: Stream) -> bytes:
    """The bytes of a stream.

    Raises
    ------
    PictureTooLargeError, QualityError
        A side beyond 1..65535, a quality beyond 1..100.
    ValueError
        A field that breaks the format otherwise: the caller's mistake, not the picture's.
    """
    return assemble(stream, sections.pack(stream.alpha, stream.metadata))


def assemble(stream: Stream, packed: sections.Packed) -> bytes:
    """`write` with sections that are packed already, whatever `stream` itself says of them."""
    _validate(stream)
    extended = len(stream.payloads) > 1 or bool(packed) or stream.tile_log2 != TILE_LOG2
    flags = FLAG_EXTENDED * extended | FLAG_GREY * stream.grey
    out = bytearray(MAGIC)
    out.append(VERSION << 4 | flags)
    out += stream.fingerprint
    out.append(round(stream.quality * QUALITY_STEPS))
    out += _varint(stream.width) + _varint(stream.height)
    if extended:
        out += bytes([0, stream.tile_log2, len(packed)])
        for key, body in packed:
            out += _varint(key) + _varint(len(body)) + short_check(body)
        for payload in stream.payloads:
            out += _varint(len(payload)) + short_check(payload)
        out += short_check(out)
        for _, body in packed:
            out += body
    for payload in stream.payloads:
        out += payload
    return bytes(out) + crc32c(out).to_bytes(CHECK_BYTES, "little")


def read(
    data: bytes,
    max_pixels: int = MAX_PIXELS,
    max_tile: int = MAX_TILE,
    *,
    salvage: bool = False,
    known: Collection[bytes] = (),
    alpha: bool = True,
) -> Stream:
    """The stream in `data`, every rule of the format checked; nothing is allocated for a size not yet checked.

    Parameters
    ----------
    max_pixels, max_tile
        Pictures of more pixels, and tiles of more pixels a side, are refused.
    salvage, known
        What is whole of a damaged stream is read, as `salvage.read` says.
    alpha
        False leaves that of a stream which is not salvaged packed.

    Raises
    ------
    CorruptStreamError
        Not a stream, truncated, or altered.
    NewerFormatError
        A later version, or a critical flag or section that this version does not know.
    PictureTooLargeError
        The header claims more than `max_pixels` pixels, or tiles larger than `max_tile`.
    """
    if salvage:
        from . import salvage as damage

        return damage.read(data, max_pixels, max_tile, known)
    return unpacked(parse(data, max_pixels, max_tile), alpha=alpha)


def unpacked(parsed: Parsed, *, alpha: bool = True) -> Stream:
    """The stream with its sections; `alpha` as in `read`, which says what is raised."""
    stream = parsed.stream
    metadata: dict[str, bytes] = {}
    for section in parsed.sections:
        name = sections.name_of(section.tag)
        if name == "other":
            continue
        if name != "alpha":
            metadata[name] = sections.unpack_metadata(section.body, name)
        elif alpha:
            stream = replace(stream, alpha=sections.unpack_alpha(section.body, stream.width, stream.height))
        else:
            stream = replace(stream, packed_alpha=section.body)
    return replace(stream, metadata=metadata)


def parse(data: bytes, max_pixels: int = MAX_PIXELS, max_tile: int = MAX_TILE) -> Parsed:
    """`read` without unpacking sections: its time and memory are those of the bytes."""
    data = bytes(data)
    check_start(data)
    if not crc_matches(data):
        raise altered(data)
    cursor = Cursor(data, 4, len(data) - CHECK_BYTES)
    header = parse_header(cursor)
    check_limits(header, max_pixels, max_tile)
    if header.extended:
        index = parse_index(cursor, header)
        if not header_check_matches(cursor):
            raise CorruptStreamError("the check of the extended header does not match")
    elif tile_grid(header.width, header.height, header.tile_log2) != (1, 1):
        raise CorruptStreamError(
            f"{header.width}x{header.height} is more than one tile, but the stream has no tile index"
        )
    else:
        index = [TileEntry(cursor.end - cursor.position, None)]
    header_bytes = cursor.position
    bodies = tuple(
        Section(entry.tag, _checked_body(cursor, entry.length, entry.check, f"section {entry.tag}"))
        for entry in header.directory
    )
    payloads = tuple(_checked_body(cursor, *entry, f"tile {number}") for number, entry in enumerate(index))
    if cursor.position != cursor.end:
        raise CorruptStreamError(f"{cursor.end - cursor.position} bytes are left over after the last tile")
    return Parsed(stream_of(header, payloads), bodies, header_bytes, len(data))


def stream_of(header: Header, payloads: tuple[bytes, ...]) -> Stream:
    """A stream without sections."""
    return Stream(
        header.width, header.height, header.quality, header.fingerprint, payloads, header.grey, header.tile_log2
    )


def altered(data: bytes) -> CorruptStreamError:
    """The error of a stream whose CRC-32C does not match; it says which part is damaged where the index tells."""
    stored, computed = int.from_bytes(data[-CHECK_BYTES:], "little"), crc32c(memoryview(data)[:-CHECK_BYTES])
    message = f"truncated or altered stream: CRC-32C {computed:08x}, {stored:08x} is stored"
    cursor = Cursor(data, 4, len(data))
    try:
        header = parse_header(cursor)
        if not header.extended:
            return CorruptStreamError(message)
        index = parse_index(cursor, header)
        if not header_check_matches(cursor):
            return CorruptStreamError(f"{message}; the header, bytes 0 to {cursor.position - 1}, is damaged")
    except (CorruptStreamError, NewerFormatError) as error:
        return CorruptStreamError(f"{message}; the header is damaged in bytes 0 to {cursor.position - 1}: {error}")
    for what, length, check in bodies_of(header, index):
        first, cursor.position = cursor.position, cursor.position + length
        if cursor.position > len(data) or short_check(memoryview(data)[first : cursor.position]) != check:
            part = f"bytes {first} to {cursor.position - 1} of {len(data)}, {what}, are the first damaged part"
            return CorruptStreamError(f"{message}; {part}")
    return CorruptStreamError(f"{message}; all sections and tiles are whole")


def bodies_of(header: Header, index: list[TileEntry]) -> Iterator[tuple[str, int, bytes | None]]:
    """Name, length and short check of each section and tile, in the order in which they are stored."""
    for entry in header.directory:
        yield f"section {entry.tag}", entry.length, entry.check
    for number, tile in enumerate(index):
        yield f"tile {number}", *tile


def _checked_body(cursor: Cursor, length: int, check: bytes | None, what: str) -> bytes:
    if length == 0:
        raise CorruptStreamError(f"{what} is empty")
    body = cursor.take(length, what)
    if check is not None and short_check(body) != check:
        raise CorruptStreamError(f"the check of {what} does not match")
    return body


def _validate(stream: Stream) -> None:
    width, height = stream.width, stream.height
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise PictureTooLargeError(f"picture size {width}x{height}: sides of 1..{MAX_SIDE} can be stored")
    if not 1 <= stream.quality <= 100 or stream.quality * QUALITY_STEPS % 1:
        raise QualityError(f"quality {stream.quality} is not in 1..100 in steps of {1 / QUALITY_STEPS}")
    if len(stream.fingerprint) != 3:
        raise ValueError(f"a fingerprint has 3 bytes, not {len(stream.fingerprint)}")
    if not MIN_TILE_LOG2 <= stream.tile_log2 <= MAX_TILE_LOG2:
        raise ValueError(f"tile size 2^{stream.tile_log2} is not in 2^{MIN_TILE_LOG2}..2^{MAX_TILE_LOG2}")
    columns, rows = stream.tiles
    if len(stream.payloads) != columns * rows:
        raise ValueError(f"{len(stream.payloads)} payloads for {columns}x{rows} tiles")
    if not all(stream.payloads):
        raise ValueError(f"the payload of tile {stream.payloads.index(b'')} is empty")
    alpha = stream.alpha
    if alpha is not None and (alpha.shape != (height, width) or alpha.dtype != np.uint8):
        raise ValueError(f"alpha is {alpha.dtype} {alpha.shape}, not uint8 {(height, width)}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
