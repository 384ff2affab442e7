"""What can be read of a damaged stream.

Sections and tiles are found by their checks, even where bytes before them were inserted or are missing. Every search
has a limit, so time stays bounded. A damaged header is put right in four ways, of which the first that succeeds counts:

1. Magic, version and fingerprint, known anyway, are put in.
2. One changed, inserted or missing byte makes the CRC-32C of the whole stream match. By chance that happens to fewer
   than 1 in 10^5 damaged streams (513 changes at each of at most 60 bytes, against 32 bits).
3. A flipped bit or a byte too much in the fields before the index makes the check of the header match, and a tile is
   whole. That check has 16 bits, so the guesses are few: by chance 1 in 800 damaged streams gets a wrong header here.
4. The header is taken as it is stored where at least two tiles are whole.

No other fingerprint is ever guessed than those of installed weights.
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
HEADER_BYTES = 1 << 16  # a longer header is not edited
REPAIRED_BYTES = 1 << 23  # of the longest stream whose CRC-32C is traced back to its header: about two seconds
# Bytes in which single bits are guessed: flags, and quality to section count, where sides take two bytes each.
GUESSED = (3, *range(7, 15))

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

    @property
    def confirmed_tiles(self) -> int:
        return sum(map(bool, self.bodies[len(self.header.directory) :]))


def _read_header(data: bytes, known: Collection[bytes]) -> _Reading:
    """The reading of a stream, its CRC-32C not matching, that explains it best; the errors of `read` without one."""
    heads = [_Head(data, ()), *_known_starts(data, known)]
    if len(data) < 4 or not (len(heads) > 1 or _has_magic(data)):
        headers.check_start(data)
    for head in heads:
        reading = _reading(head)
        if reading and (reading.whole or reading.confirmed or head.data == data):
            return reading
    for edited in (_repaired(heads), _guessed(heads)):
        found = [reading for reading, edit in edited if _may_be(reading, data, edit, known)]
        if found:
            return max(found, key=lambda reading: reading.confirmed)
    for head in heads:
        note = "the check of the header does not match; sections and tiles are taken by their own checks"
        reading = _reading(_Head(head.data, (*head.repairs, note)), lenient=True)
        if reading and reading.confirmed_tiles >= 2 and data[3] >> 4 == VERSION:
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
    """The stream with magic, version and a known fingerprint put in, where at least three of the bytes agree.

    A fingerprint that is known already stays.
    """
    stored = data[4:7]
    for coding in [stored] if stored in known else known if len(data) > 3 else ():
        start = MAGIC + bytes([VERSION << 4 | data[3] & headers.FLAGS_KNOWN]) + coding
        edits = [
            _Edit(place, 1, bytes([new])) for place, new in enumerate(start) if data[place : place + 1] != bytes([new])
        ]
        if 0 < len(edits) <= len(start) - 3:
            yield _Head(start + data[len(start) :], tuple(map(str, edits)))


def _may_be(reading: _Reading, data: bytes, edit: _Edit, known: Collection[bytes]) -> bool:
    """Whether the fingerprint is one that is installed, or is as it was stored."""
    found = reading.header.fingerprint
    return found in known or (found == data[4:7] and edit.place > 6 and (reading.whole or not known))


def _reading(head: _Head, edit: _Edit | None = None, *, lenient: bool = False) -> _Reading | None:
    """The stream as `head` and `edit` have it; None where no check bears it out.

    `lenient` takes an index whose own check does not match.
    """
    start, rest = head.data[:HEADER_BYTES], head.data[HEADER_BYTES:]
    repairs = head.repairs
    if edit is not None:
        start, repairs = edit.of(start), (*repairs, str(edit))
    if start[:3] != MAGIC or len(start) < 4 or start[3] >> 4 != VERSION:
        return None
    cursor = Cursor(start, 4, len(start))
    try:
        header = headers.parse_header(cursor)
        if header.extended:
            index = headers.parse_index(cursor, header)
            if not headers.header_check_matches(cursor) and not lenient:
                return None
        elif headers.tile_grid(header.width, header.height, header.tile_log2) != (1, 1):
            return None
    except SodecError:
        return None
    if edit is not None and edit.place >= cursor.position:
        return None  # behind the header
    data = start + rest
    whole = headers.crc_matches(data)
    if not header.extended:
        # The CRC-32C is the only check of a stream without an index.
        payload = data[cursor.position : -CHECK_BYTES]
        return _Reading(header, [TileEntry(len(payload), None)], [payload], repairs, whole) if whole else None
    entries = [TileEntry(entry.length, entry.check) for entry in header.directory] + index
    return _Reading(header, index, locate(data, cursor.position, entries), repairs, whole)


def _repaired(heads: Sequence[_Head]) -> Iterator[tuple[_Reading, _Edit]]:
    """Every reading of which the CRC-32C matches, with one byte of its header changed, inserted or left out."""
    data = heads[0].data  # the others differ from it in magic, version and fingerprint alone
    end = min(HEADER_BYTES, len(data) - CHECK_BYTES)
    if end <= 0 or len(data) > REPAIRED_BYTES:
        return
    needed = _crc_states_before(data, end)
    for head in heads:
        for edit in _crc_edits(head.data, needed):
            reading = _reading(head, edit)
            if reading and reading.whole and reading.confirmed == len(reading.bodies):
                yield reading, edit


def _guessed(heads: Sequence[_Head]) -> Iterator[tuple[_Reading, _Edit]]:
    """Every reading with a whole tile and one bit flipped, or one byte left out, among the bytes `GUESSED`."""
    for head in heads:
        for place in GUESSED:
            if place >= len(head.data):
                return
            edits = [_Edit(place, 1, bytes([head.data[place] ^ 1 << bit])) for bit in range(8)]
            for edit in [*edits, _Edit(place, 1, b"")]:
                reading = _reading(head, edit)
                if reading and reading.confirmed_tiles:
                    yield reading, edit


def _crc_edits(data: bytes, needed: Sequence[int]) -> Iterator[_Edit]:
    """Every change, insertion and removal of one byte that takes the CRC-32C to a state that the rest needs.

    None of them is tried out: from the states before a byte and behind it follows the byte between them, if there is
    one. `needed` is of `_crc_states_before`.
    """
    state = 0xFFFFFFFF
    for place in range(len(needed) - 1):
        if state == needed[place + 1]:
            yield _Edit(place, 1, b"")
        for removed in (1, 0):
            byte = _byte_between(state, needed[place + removed])
            if byte is not None and not (removed and byte == data[place]):
                yield _Edit(place, removed, bytes([byte]))
        state = _TABLE[(state ^ data[place]) & 0xFF] ^ state >> 8


def _byte_between(before: int, behind: int) -> int | None:
    """The byte that takes the CRC-32C from one state to the other, if there is one."""
    change = behind ^ before >> 8
    byte = _BYTE_OF[change >> 24]
    return byte ^ before & 0xFF if _TABLE[byte] == change else None


def _crc_states_before(data: bytes, count: int) -> list[int]:
    """States of the CRC-32C that the rest of `data` needs, before each of its first `count` bytes and behind them."""
    state = int.from_bytes(data[-CHECK_BYTES:], "little") ^ 0xFFFFFFFF
    states = []
    for place in range(len(data) - CHECK_BYTES - 1, -1, -1):
        if place < count:
            states.append(state)
        index = _BYTE_OF[state >> 24]
        state = (state ^ _TABLE[index]) << 8 & 0xFFFFFFFF | index ^ data[place]
    return [state, *reversed(states)]


def _why_nothing_is_left(data: bytes) -> str:
    try:
        if not headers.parse_header(Cursor(data, 4, len(data))).extended:
            return "the picture is one tile without an index, so nothing says which of its bytes are whole"
    except SodecError:
        pass
    return "no single byte explains the damage to the header"
