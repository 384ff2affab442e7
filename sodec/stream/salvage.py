"""What can be read of a damaged stream.

Sections and tiles are found by their checks, even where bytes before them were inserted or are missing. A damaged
header is read where one changed, inserted or missing byte explains the damage, apart from the bytes that are known
anyway (magic, version, the fingerprints of installed weights). Every search has a limit, so time stays bounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .._native import crc32c
from ..errors import CorruptStreamError, SodecError
from . import MAGIC, container, sections
from . import header as headers
from .container import Stream
from .header import CHECK_BYTES, MAX_PIXELS, MAX_TILE, VERSION, Cursor, Header, TileEntry

REACH = 1 << 18  # bytes to either side of its place in which a body is looked for
NEAR = 64  # bytes within which one short check is enough: chance alone gives a match here in 1 of 500 searches
SEARCHED_PLACES = 1 << 23  # looked at for displaced bodies: about two seconds
HEADER_EDITS = 1 << 21  # bytes of headers read while an edit that explains the damage is looked for: as long
HEADER_BYTES = 1 << 16  # a longer header is not edited
START_BYTES = 14  # of a header without extension, at most
ONE_TILE_BYTES = 1 << 23  # no stream of one tile and no index is longer

# The state of CRC-32C, begun with 0, after each byte; and the byte by the highest byte of that state.
_TABLE = [crc32c(bytes([byte ^ 0xFF])) ^ 0xFF000000 for byte in range(256)]
_BYTE_OF = {state >> 24: byte for byte, state in enumerate(_TABLE)}


def read(data: bytes, max_pixels: int = MAX_PIXELS, max_tile: int = MAX_TILE, known: Collection[bytes] = ()) -> Stream:
    """What is whole of a stream: `Stream.damaged` names the lost parts, `Stream.repairs` says what was put right.

    Parameters
    ----------
    max_pixels, max_tile
        As for `container.read`.
    known
        Fingerprints that a damaged one may have been, of 3 bytes each.

    Raises
    ------
    CorruptStreamError
        The header can't be put right, or there is no index that says which parts are whole.
    NewerFormatError, PictureTooLargeError
        As `container.read`.
    """
    data = bytes(data)
    if headers.crc_matches(data):
        return container.read(data, max_pixels, max_tile)
    reading = _read_header(data, known)
    header = reading.header
    headers.check_limits(header, max_pixels, max_tile)
    names = [name for name, _, _ in container.bodies_of(header, reading.index)]
    damaged = [name for name, body in zip(names, reading.bodies, strict=True) if not body]
    alpha: npt.NDArray[np.uint8] | None = None
    metadata: dict[str, bytes] = {}
    for entry, body in zip(header.directory, reading.bodies, strict=False):
        name = sections.name_of(entry.tag)
        try:
            if body and name == "alpha":
                alpha = sections.unpack_alpha(body, header.width, header.height)
            elif body and name != "other":
                metadata[name] = sections.unpack_metadata(body, name)
        except CorruptStreamError:
            damaged.append(f"section {entry.tag}")
    return replace(
        container.stream_of(header, tuple(reading.bodies[len(header.directory) :])),
        alpha=alpha, metadata=metadata, damaged=tuple(damaged), repairs=reading.repairs,
    )  # fmt: skip


def fingerprint(data: bytes, known: Collection[bytes]) -> bytes:
    """The weights that a stream needs, damaged or not. Raises as `read`, but for its limits."""
    data = bytes(data)
    return (headers.peek(data) if headers.crc_matches(data) else _read_header(data, known).header).fingerprint


def locate(data: bytes, start: int, entries: Sequence[TileEntry]) -> list[bytes]:
    """The bodies that the entries announce, one after the other from `start` on; empty where one is lost.

    A body whose check does not match at its place is looked for at the distance that the length of `data` suggests,
    and then at up to `REACH` bytes before and behind.
    """
    places = list(accumulate((entry.length for entry in entries), initial=start))
    from_end = len(data) - CHECK_BYTES - places[-1]
    budget = SEARCHED_PLACES

    def body(number: int, shift: int) -> bytes:
        nonlocal budget
        length, check = entries[number]
        place = places[number] + shift
        if not length or place < 0 or place + length > len(data):
            return b""
        budget -= 1 + length // 256  # a check of 256 bytes takes about as long as a place of the search
        part = data[place : place + length]
        return part if headers.short_check(part) == check else b""

    def confirmed(number: int, shift: int) -> bool:
        return any(body(after, shift) for after in range(number + 1, min(number + 3, len(entries))))

    def displaced(number: int, shift: int) -> int | None:
        nonlocal budget
        if body(number, from_end):
            return from_end
        length, check = entries[number]
        low = max(0, places[number] + shift - REACH)
        high = min(places[number] + shift + REACH, len(data) - length)
        if check is None or not length or high < low or budget < high - low:
            return None
        budget -= high - low
        shifts = sorted((place - places[number] for place in _matches(data, length, check, low, high)),
                        key=lambda other: abs(other - shift))  # fmt: skip
        for other in shifts:
            if budget > 0 and confirmed(number, other):
                return other
        return shifts[0] if shifts and abs(shifts[0] - shift) <= NEAR else None

    bodies = []
    shift = 0
    for number in range(len(entries)):
        part = body(number, shift)
        if not part and not (number + 1 < len(entries) and body(number + 1, shift)):
            other = displaced(number, shift)
            if other is not None:
                shift = other
                part = body(number, shift)
        bodies.append(part)
    return bodies


def _matches(data: bytes, length: int, check: bytes, low: int, high: int) -> Iterator[int]:
    """The places from `low` to `high` at which `length` bytes have this short check."""
    zeros = bytes(length)
    bits = [crc32c(bytes([1 << bit]) + zeros) ^ crc32c(zeros + b"\0") for bit in range(8)]
    leaving = [0]  # what a byte that leaves the window has added to the state
    for bit in bits:
        leaving += [state ^ bit for state in leaving]
    begun = crc32c(zeros)
    wanted = int.from_bytes(check, "little")
    state = crc32c(memoryview(data)[low : low + length]) ^ begun
    for place in range(low, high + 1):
        if (state ^ begun) & 0xFFFF == wanted:
            yield place
        if place < high:
            state = _TABLE[(state ^ data[place + length]) & 0xFF] ^ state >> 8 ^ leaving[data[place]]


@dataclass(frozen=True)
class _Edit:
    """`new` instead of the `removed` bytes from `place` on."""

    place: int
    removed: int
    new: bytes

    def of(self, data: bytes) -> bytes:
        return data[: self.place] + self.new + data[self.place + self.removed :]

    def __str__(self) -> str:
        fields = ["magic"] * 3 + ["version and flags"] + ["fingerprint"] * 3 + ["quality"]
        field = fields[self.place] if self.place < len(fields) else "picture size or index"
        where = f"byte {self.place} of the stream ({field})"
        if not self.removed:
            return f"{where} is missing; it is taken to be 0x{self.new.hex()}"
        return f"{where} is damaged; " + (f"it is taken to be 0x{self.new.hex()}" if self.new else "it is left out")


class _Head(NamedTuple):
    """A damaged stream, some bytes of its start put right."""

    data: bytes
    repairs: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """A header as it may have been, the bodies whose checks match, and what was put right to read them."""

    header: Header
    index: list[TileEntry]
    bodies: list[bytes]  # of sections, then tiles; empty where one is lost
    repairs: tuple[str, ...]
    whole: bool  # the CRC-32C of the stream matches

    @property
    def confirmed(self) -> int:
        return sum(map(bool, self.bodies))


def _read_header(data: bytes, known: Collection[bytes]) -> _Reading:
    """The reading of a stream, its CRC-32C not matching, that explains it best; the errors of `read` without one."""
    heads = [_Head(data, ()), *_known_starts(data, known)]
    if len(data) < 4 or not (len(heads) > 1 or _has_magic(data)):
        headers.check_start(data)
    for head in heads:
        reading = _reading(Cursor(head.data, 4, len(data)), repairs=head.repairs)
        if reading and (reading.confirmed or head.data == data):
            return reading
    best = max(_edited(heads), key=lambda found: _rank(found[0], found[1], known), default=None)
    if best:
        return best[0]
    for head in heads:
        note = "the check of the header does not match; sections and tiles are taken by their own checks"
        reading = _reading(Cursor(head.data, 4, len(data)), repairs=(*head.repairs, note), lenient=True)
        if reading and reading.confirmed >= 2 and data[3] >> 4 == VERSION:
            return reading
    headers.check_start(data)
    raise CorruptStreamError(f"{container.altered(data)}; {_why_nothing_is_left(data)}")


def _has_magic(data: bytes) -> bool:
    """Whether the magic is there, but for one byte that is changed, inserted or missing."""
    first, _, third = MAGIC
    return any(pair in data[:4] for pair in (MAGIC[:2], MAGIC[1:], bytes([first, third]))) or (
        (data[0], data[2]) == (first, third)
    )


def _known_starts(data: bytes, known: Collection[bytes]) -> Iterator[_Head]:
    """The stream with magic, version and each known fingerprint put in, where at least three of the bytes agree."""
    for coding in known if len(data) > 3 else ():
        start = MAGIC + bytes([VERSION << 4 | data[3] & headers.FLAGS_KNOWN]) + coding
        edits = [
            _Edit(place, 1, bytes([new])) for place, new in enumerate(start) if data[place : place + 1] != bytes([new])
        ]
        if 0 < len(edits) <= len(start) - 3:
            yield _Head(start + data[len(start) :], tuple(map(str, edits)))


def _reading(
    cursor: Cursor, rest: bytes = b"", *, repairs: tuple[str, ...] = (), whole: bool = False, lenient: bool = False
) -> _Reading | None:
    """The stream of the cursor's bytes and the rest; None where no check bears it out.

    `whole` says that the CRC-32C matches, which is the only check of a stream without an index. `lenient` takes an
    index whose own check does not match.
    """
    head = cursor.data
    if head[:3] != MAGIC or len(head) < 4 or head[3] >> 4 != VERSION:
        return None
    try:
        header = headers.parse_header(cursor)
        if header.extended:
            index = headers.parse_index(cursor, header)
            if not headers.header_check_matches(cursor) and not lenient:
                return None
        elif not whole or headers.tile_grid(header.width, header.height, header.tile_log2) != (1, 1):
            return None
    except SodecError:
        return None
    data = head + rest
    if not header.extended:
        payload = data[cursor.position : -CHECK_BYTES]
        return _Reading(header, [TileEntry(len(payload), None)], [payload], repairs, whole=True)
    entries = [TileEntry(entry.length, entry.check) for entry in header.directory] + index
    return _Reading(header, index, locate(data, cursor.position, entries), repairs, headers.crc_matches(data))


def _edited(heads: Sequence[_Head]) -> Iterator[tuple[_Reading, _Edit]]:
    """Every reading of a stream with one byte of its header changed, inserted or left out; none after a whole one."""
    budget = HEADER_EDITS
    read_to = START_BYTES  # by any reading: no byte behind matters
    size = min(START_BYTES, len(heads[0].data) - CHECK_BYTES)
    needed = _crc_before(heads[0].data, size) if size > 0 else None
    for place in range(min(HEADER_BYTES, len(heads[0].data))):
        if place > read_to:
            return
        for head in heads:
            start, rest = head.data[:HEADER_BYTES], head.data[HEADER_BYTES:]
            for edit in _edits(start, place):
                edited = edit.of(start)
                end = size + len(edit.new) - edit.removed
                whole = place <= size and crc32c(edited[:end]) == needed
                cursor = Cursor(edited, 4, len(edited))
                reading = _reading(cursor, rest, whole=whole)
                budget -= 16 + cursor.position
                read_to = max(read_to, cursor.position)
                if reading and reading.confirmed:
                    yield replace(reading, repairs=(*head.repairs, str(edit))), edit
                if budget < 0 or (reading and reading.whole):
                    return


def _edits(data: bytes, place: int) -> Iterator[_Edit]:
    """Every change, insertion and removal of one byte."""
    for value in range(256):
        if value != data[place]:
            yield _Edit(place, 1, bytes([value]))
        yield _Edit(place, 0, bytes([value]))
    yield _Edit(place, 1, b"")


def _rank(reading: _Reading, edit: _Edit, known: Collection[bytes]) -> tuple[bool, int, bool, bool]:
    """Orders readings that all pass the 16 bits of the header's check: the last is the likeliest."""
    return reading.whole, reading.confirmed, reading.header.fingerprint in known, edit.removed == len(edit.new)


def _crc_before(data: bytes, size: int) -> int | None:
    """The CRC-32C that the first bytes must have, going by the rest and by the check at the end."""
    if len(data) > ONE_TILE_BYTES:
        return None
    state = int.from_bytes(data[-CHECK_BYTES:], "little") ^ 0xFFFFFFFF
    for byte in reversed(data[size:-CHECK_BYTES]):
        index = _BYTE_OF[state >> 24]
        state = (state ^ _TABLE[index]) << 8 & 0xFFFFFFFF | index ^ byte
    return state ^ 0xFFFFFFFF


def _why_nothing_is_left(data: bytes) -> str:
    try:
        if not headers.parse_header(Cursor(data, 4, len(data))).extended:
            return "the picture is one tile without an index, so nothing says which of its bytes are whole"
    except SodecError:
        pass
    return "no single byte explains the damage to the header"
