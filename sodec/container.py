"""The .sodec container: header, sections, check. FORMAT.md says the same in prose; change both together.

`write` and `read` are inverse to each other; `inspect` tells what the bytes of a stream are spent on without
decoding any of them. Nothing here knows of models or pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from .checksum import crc32c
from .errors import CorruptStreamError, NewerFormatError, PictureTooLargeError, QualityError

MAGIC = b"\x9esd"  # not ASCII, not valid UTF-8: a text file never looks like a stream
VERSION = 1
SUFFIX = ".sodec"

MAX_SIDE = 65535
MAX_PIXELS = 1 << 28  # the default limit of a decoder
MAX_SECTIONS = 64
TILE_LOG2 = 10  # the tile of a stream that states none
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 16

# The low four bits of byte 3.
FLAG_EXTENDED, FLAG_GREY = 1, 2
FLAGS_KNOWN = FLAG_EXTENDED | FLAG_GREY
# The critical flags of the extended header: none is defined in version 1.
CRITICAL_KNOWN = 0

SECTION_ALPHA = 1
ALPHA_CONSTANT, ALPHA_DEFLATED = 0, 1

QUALITY_STEPS = 2  # per unit of quality: half a unit changes the bytes by about 1.5 %, which nobody sees

Sections = list[tuple[int, bytes]]  # the key of the directory, and the body

CHECK_BYTES = 4
SHORT_CHECK_BYTES = 2


@dataclass(frozen=True)
class Stream:
    """What a stream holds. `payloads` are the entropy-coded tiles in row-major order."""

    width: int
    height: int
    quality: float  # 1..100 in steps of 0.5
    fingerprint: bytes  # 3 bytes: the weights that wrote it
    payloads: tuple[bytes, ...]
    grey: bool = False
    tile_log2: int = TILE_LOG2
    alpha: npt.NDArray[np.uint8] | None = None  # (height, width) uint8

    @property
    def tiles(self) -> tuple[int, int]:
        """Columns and rows of the tile grid."""
        return tile_grid(self.width, self.height, self.tile_log2)


@dataclass(frozen=True)
class Info:
    """What a stream's bytes are spent on; made by `inspect`.

    The entries of `bytes` add up to its last, "total". "z" and "y" are told apart when the model is known here;
    otherwise one entry "symbols" stands for both. "lane states" are the coder's states and the byte or two before
    them, in each tile; "other" are sections of types unknown here.
    """

    format_version: int
    width: int
    height: int
    quality: float
    fingerprint: str
    model: str | None
    grey: bool
    alpha: bool
    tiles: tuple[int, int]
    tile_size: int
    lanes: tuple[int, ...]
    bytes: dict[str, int] = field(default_factory=dict)

    @property
    def bpp(self) -> float:
        """Bits of the whole file per pixel."""
        return self.bytes["total"] * 8 / (self.width * self.height)


@dataclass(frozen=True)
class _Section:
    tag: int
    critical: bool
    body: bytes


@dataclass(frozen=True)
class _Parsed:
    stream: Stream  # without alpha
    sections: tuple[_Section, ...]
    header_bytes: int


def tile_grid(width: int, height: int, tile_log2: int) -> tuple[int, int]:
    """Columns and rows of tiles that cover `width` x `height` pixels."""
    return -(-width >> tile_log2), -(-height >> tile_log2)


def write(stream: Stream) -> bytes:
    """The bytes of a stream.

    Raises
    ------
    PictureTooLargeError, QualityError
        A side beyond 1..65535, a quality beyond 1..100.
    ValueError
        A field that breaks the format otherwise: the caller's mistake, not the picture's.
    """
    return assemble(stream, pack_sections(stream.alpha))


def pack_sections(alpha: npt.NDArray[np.uint8] | None) -> Sections:
    """The sections of a stream, packed once where the same ones go into several streams (`assemble`)."""
    return [] if alpha is None else [(SECTION_ALPHA << 1 | 1, _pack_alpha(alpha))]


def assemble(stream: Stream, sections: Sections) -> bytes:
    """The bytes of a stream with these sections, whatever `stream` itself says of them. Raises as `write` does."""
    _validate(stream)
    extended = len(stream.payloads) > 1 or bool(sections) or stream.tile_log2 != TILE_LOG2
    flags = FLAG_EXTENDED * extended | FLAG_GREY * stream.grey
    out = bytearray(MAGIC)
    out.append(VERSION << 4 | flags)
    out += stream.fingerprint
    out.append(round(stream.quality * QUALITY_STEPS))
    out += _varint(stream.width) + _varint(stream.height)
    if extended:
        out += bytes([0, stream.tile_log2, len(sections)])
        for key, body in sections:
            out += _varint(key) + _varint(len(body)) + _short_check(body)
        for payload in stream.payloads:
            out += _varint(len(payload)) + _short_check(payload)
        out += _short_check(out)
        for _, body in sections:
            out += body
    for payload in stream.payloads:
        out += payload
    return bytes(out) + crc32c(out).to_bytes(CHECK_BYTES, "little")


def read(data: bytes, max_pixels: int = MAX_PIXELS) -> Stream:
    """The stream in `data`, every rule of the format checked; nothing is allocated for a size not yet checked.

    Raises
    ------
    CorruptStreamError
        Not a stream, truncated, or altered.
    NewerFormatError
        A later version, or a critical flag or section that this version does not know.
    PictureTooLargeError
        The header claims more than `max_pixels` pixels.
    """
    parsed = _parse(data, max_pixels)
    alpha = None
    for section in parsed.sections:
        if section.tag == SECTION_ALPHA:
            if alpha is not None:
                raise CorruptStreamError("the stream has two alpha sections")
            alpha = _unpack_alpha(section.body, parsed.stream.width, parsed.stream.height)
    stream = parsed.stream
    return stream if alpha is None else Stream(**{**vars(stream), "alpha": alpha})


def inspect(
    data: bytes,
    *,
    model_name: Callable[[bytes], str | None] | None = None,
    z_end: Callable[[bytes, Stream, int], int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Info:
    """What the bytes of a stream are spent on. Imports no torch, decodes no picture.

    Parameters
    ----------
    model_name
        Name of the model that has this fingerprint, or None if it is unknown.
    z_end
        Called with a tile's payload, the stream and the tile's number; returns how many bytes of the payload
        are consumed once z has been read (`entropy.Decoder.position`). Without it z and y are not told apart.
    """
    from .entropy import payload_info

    parsed = _parse(data, max_pixels)
    stream = parsed.stream
    details = [payload_info(payload) for payload in stream.payloads]
    states = sum(detail[2] for detail in details)
    symbols = sum(map(len, stream.payloads)) - states
    alpha = sum(len(s.body) for s in parsed.sections if s.tag == SECTION_ALPHA)
    other = sum(len(s.body) for s in parsed.sections if s.tag != SECTION_ALPHA)
    sizes = {"header": parsed.header_bytes}
    if z_end is None:
        sizes["symbols"] = symbols
    else:
        ends = sum(z_end(payload, stream, number) for number, payload in enumerate(stream.payloads))
        sizes |= {"z": ends - states, "y": symbols - (ends - states)}
    sizes |= {"lane states": states, "alpha": alpha, "other": other, "integrity": CHECK_BYTES, "total": len(data)}
    return Info(
        format_version=data[3] >> 4, width=stream.width, height=stream.height, quality=stream.quality,
        fingerprint=stream.fingerprint.hex(), model=model_name(stream.fingerprint) if model_name else None,
        grey=stream.grey, alpha=any(s.tag == SECTION_ALPHA for s in parsed.sections), tiles=stream.tiles,
        tile_size=1 << stream.tile_log2, lanes=tuple(detail[0] for detail in details), bytes=sizes,
    )  # fmt: skip


class _Cursor:
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


def _parse(data: bytes, max_pixels: int) -> _Parsed:
    data = bytes(data)
    _check_envelope(data)
    cursor = _Cursor(data, 4, len(data) - CHECK_BYTES)
    flags = data[3] & 15
    if unknown := flags & ~FLAGS_KNOWN:
        raise NewerFormatError(f"header flag {_lowest_bit(unknown)} is unknown to version {VERSION} of the format")
    fingerprint = cursor.take(3, "fingerprint")
    quality = cursor.byte("quality") / QUALITY_STEPS
    if not 1 <= quality <= 100:
        raise CorruptStreamError(f"quality {quality:g} is not in 1..100")
    width, height = cursor.varint("width"), cursor.varint("height")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise CorruptStreamError(f"picture size {width}x{height}: sides of 1..{MAX_SIDE} are allowed")
    if width * height > max_pixels:
        raise PictureTooLargeError(f"the header claims {width}x{height} pixels; the limit is {max_pixels}")
    tile_log2 = TILE_LOG2
    sections: tuple[_Section, ...] = ()
    index: list[tuple[int, bytes | None]] = []  # length and short check of each tile
    if flags & FLAG_EXTENDED:
        tile_log2, sections, index = _parse_extended(cursor, width, height)
    elif tile_grid(width, height, tile_log2) != (1, 1):
        raise CorruptStreamError(f"{width}x{height} is more than one tile, but the stream has no tile index")
    header_bytes = cursor.position - sum(len(s.body) for s in sections)
    if not index:
        index = [(cursor.end - cursor.position, None)]
    payloads = tuple(_checked_body(cursor, *entry, f"tile {number}") for number, entry in enumerate(index))
    if cursor.position != cursor.end:
        raise CorruptStreamError(f"{cursor.end - cursor.position} bytes are left over after the last tile")
    stream = Stream(width, height, quality, fingerprint, payloads, bool(flags & FLAG_GREY), tile_log2)
    return _Parsed(stream, sections, header_bytes)


def _check_envelope(data: bytes) -> None:
    """Magic, version, CRC: in this order, because a later version may hold its check elsewhere."""
    if not data:
        raise CorruptStreamError("the stream is empty")
    if data[:3] != MAGIC[: len(data)]:
        raise CorruptStreamError(f"not a .sodec stream: it begins with {data[:3].hex(' ')}, not {MAGIC.hex(' ')}")
    if len(data) < 3 + 1 + 3 + 1 + 2 + 1 + CHECK_BYTES:
        raise CorruptStreamError(f"truncated stream: {len(data)} bytes")
    version = data[3] >> 4
    if version > VERSION:
        raise NewerFormatError(f"the stream is of format version {version}; this sodec reads up to {VERSION}")
    if version == 0:
        raise CorruptStreamError("format version 0 does not exist")
    stored, computed = int.from_bytes(data[-CHECK_BYTES:], "little"), crc32c(memoryview(data)[:-CHECK_BYTES])
    if stored != computed:
        raise CorruptStreamError(f"truncated or altered stream: CRC-32C {computed:08x}, {stored:08x} is stored")


def _parse_extended(
    cursor: _Cursor, width: int, height: int
) -> tuple[int, tuple[_Section, ...], list[tuple[int, bytes | None]]]:
    """Tile size, sections and the tile index (length, short check); leaves the cursor at the first payload."""
    critical = cursor.byte("critical flags")
    if unknown := critical & ~CRITICAL_KNOWN:
        raise NewerFormatError(f"critical flag {_lowest_bit(unknown)} is unknown to version {VERSION} of the format")
    tile_log2 = cursor.byte("tile size")
    if not MIN_TILE_LOG2 <= tile_log2 <= MAX_TILE_LOG2:
        raise CorruptStreamError(f"tile size 2^{tile_log2} is not in 2^{MIN_TILE_LOG2}..2^{MAX_TILE_LOG2}")
    count = cursor.byte("section count")
    if count > MAX_SECTIONS:
        raise CorruptStreamError(f"{count} sections; the limit is {MAX_SECTIONS}")
    entries = []
    for _ in range(count):
        key = cursor.varint("section type")
        if key & 1 and key >> 1 != SECTION_ALPHA:
            raise NewerFormatError(f"critical section {key >> 1} is unknown to version {VERSION} of the format")
        entries.append((key, cursor.varint("section length"), cursor.take(SHORT_CHECK_BYTES, "section check")))
    columns, rows = tile_grid(width, height, tile_log2)
    # An entry takes at least three bytes: checked before a list of that many tiles is made.
    if columns * rows * 3 > cursor.end - cursor.position:
        raise CorruptStreamError(f"truncated stream: no room for the index of {columns}x{rows} tiles")
    tiles: list[tuple[int, bytes | None]] = [
        (cursor.varint("tile length"), cursor.take(SHORT_CHECK_BYTES, "tile check")) for _ in range(columns * rows)
    ]
    end = cursor.position
    if cursor.take(SHORT_CHECK_BYTES, "header check") != _short_check(memoryview(cursor.data)[:end]):
        raise CorruptStreamError("the check of the extended header does not match")
    sections = tuple(
        _Section(key >> 1, bool(key & 1), _checked_body(cursor, length, check, f"section {key >> 1}"))
        for key, length, check in entries
    )
    return tile_log2, sections, tiles


def _checked_body(cursor: _Cursor, length: int, check: bytes | None, what: str) -> bytes:
    if length == 0:
        raise CorruptStreamError(f"{what} is empty")
    body = cursor.take(length, what)
    if check is not None and _short_check(body) != check:
        raise CorruptStreamError(f"the check of {what} does not match")
    return body


def _pack_alpha(alpha: npt.NDArray[np.uint8]) -> bytes:
    if (alpha == alpha.flat[0]).all():
        return bytes([ALPHA_CONSTANT, alpha.flat[0]])
    rows = alpha.copy()
    rows[1:] -= alpha[:-1]  # modulo 256
    return bytes([ALPHA_DEFLATED]) + zlib.compress(rows.tobytes(), 9)


def _unpack_alpha(body: bytes, width: int, height: int) -> npt.NDArray[np.uint8]:
    if body[0] == ALPHA_CONSTANT:
        if len(body) != 2:
            raise CorruptStreamError(f"a constant alpha section has 2 bytes, not {len(body)}")
        return np.full((height, width), body[1], dtype=np.uint8)
    if body[0] != ALPHA_DEFLATED:
        raise CorruptStreamError(f"alpha method {body[0]} does not exist")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(body[1:], width * height + 1)
    except zlib.error as error:
        raise CorruptStreamError(f"the alpha section can't be inflated: {error}") from None
    if len(raw) != width * height or not inflater.eof or inflater.unused_data:
        raise CorruptStreamError(f"the alpha section does not hold {width}x{height} values")
    return np.cumsum(np.frombuffer(raw, dtype=np.uint8).reshape(height, width), axis=0, dtype=np.uint8)


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


def _short_check(data: bytes | bytearray | memoryview) -> bytes:
    return (crc32c(data) & 0xFFFF).to_bytes(SHORT_CHECK_BYTES, "little")


def _lowest_bit(value: int) -> int:
    return (value & -value).bit_length() - 1
