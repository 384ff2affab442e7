"""Streams to attack the decoder with: valid ones of random symbols, and alterations whose checks are right again.

A byte changed at random ends at the CRC-32C, or at the short check of its tile. `resealed` computes every check that
the altered bytes ask for, so that what lies behind the checks is reached: sizes, directories, indexes, inflating, the
coder, and the networks.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sodec._native import crc32c
from sodec.stream import container, header, sections, symbols
from sodec.weights import Coding

NUMBERS = (0, 1, 2, 127, 128, 255, 256, 16383, 16384, 65535, 65536, 2**24, 2**31, 2**32 - 1)
SIDES = (1, 15, 16, 17, 63, 64, 65, 100, 128, 129)


# -- checks


def resealed(data: bytes) -> bytes:
    """`data` with its short checks, where its header leads to any, and its CRC-32C computed anew."""
    out = bytearray(data)
    try:
        checks = list(_short_checks(out))
    except IndexError:
        checks = []
    for place, start, stop in checks:
        out[place : place + 2] = _short(out[start:stop])
    if len(out) >= container.CHECK_BYTES:
        out[-4:] = crc32c(bytes(out[:-4])).to_bytes(4, "little")
    return bytes(out)


def _short(data: bytes | bytearray) -> bytes:
    return (crc32c(bytes(data)) & 0xFFFF).to_bytes(2, "little")


def _short_checks(data: bytearray) -> Iterator[tuple[int, int, int]]:
    """(place of a check, start and end of what it covers), the check of the header last."""
    if not data[3] & container.FLAG_EXTENDED:
        return
    width, place = _varint(data, 8)
    height, place = _varint(data, place)
    tile_log2, count, place = data[place + 1], data[place + 2], place + 3
    columns, rows = container.tile_grid(width, height, min(tile_log2, 32))
    entries = []
    for number in range(count + min(columns * rows, len(data))):
        if number < count:
            _, place = _varint(data, place)
        length, place = _varint(data, place)
        entries.append((place, length))
        place += 2
    header_end = place
    start = header_end + 2
    for check, length in entries:
        if start + length <= len(data) - 4:
            yield check, start, start + length
        start += length
    yield header_end, 0, header_end


def _varint(data: bytearray, place: int) -> tuple[int, int]:
    value = 0
    for number in range(5):
        byte = data[place + number]
        value |= (byte & 127) << 7 * number
        if byte < 128:
            return value, place + number + 1
    return value, place + 5


# -- valid streams


@dataclass(frozen=True)
class Maker:
    """Valid streams of random symbols for a coding, which pass every check and reach the networks.

    Attributes
    ----------
    fingerprint
        Of the weights, 3 bytes.
    """

    coding: Coding
    fingerprint: bytes

    def stream(self, draw: random.Random) -> container.Stream:
        """A stream of random sizes, with alpha and metadata where the draw says so."""
        width, height = draw.choice(SIDES), draw.choice(SIDES)
        quality = draw.randint(2, 200) / 2
        tile_log2 = draw.choice((6, 6, 7, container.TILE_LOG2))
        alpha = None
        if draw.random() < 0.3:
            alpha = np.full((height, width), draw.randrange(256), np.uint8)
            if draw.random() < 0.5:
                alpha = np.frombuffer(draw.randbytes(width * height), np.uint8).reshape(height, width)
        names = [name for name in sections.METADATA if draw.random() < 0.2]
        metadata = {name: draw.randbytes(draw.randint(1, 60)) * draw.choice((1, 50)) for name in names}
        side, payloads = 1 << tile_log2, []
        for top in range(0, height, side):
            for left in range(0, width, side):
                cells = (-(-min(side, height - top) // 16), -(-min(side, width - left) // 16))
                payloads.append(self.payload(draw, quality, *cells))
        return container.Stream(width, height, quality, self.fingerprint, tuple(payloads), draw.random() < 0.2,
                                tile_log2, alpha, metadata)  # fmt: skip

    def payload(self, draw: random.Random, quality: float, height: int, width: int) -> bytes:
        """A tile of `height` x `width` cells whose symbols are small, or as large as can be."""
        numpy = np.random.default_rng(draw.randrange(2**32))
        most = draw.choice((0, 1, 4, 30, 32767))
        channels = sum(tables.count for tables in self.coding.z_tables)
        z = numpy.integers(-most, most + 1, (channels, -(-height // 4), -(-width // 4))).astype(np.int16)
        indexes = symbols.scale_indexes(self.coding, z, quality, height, width)
        most = draw.choice((0, 1, 4, 32767))
        y = numpy.integers(-most, most + 1, indexes.shape).astype(np.int16)
        y[indexes == symbols.SKIP] = 0
        return symbols.encode(self.coding, z, y, indexes)


# -- alterations


def altered(draw: random.Random, stream: container.Stream, other: container.Stream) -> bytes:
    """The bytes of a stream of which something is not as it should be; most with checks that match all the same."""
    if draw.random() < 0.6:
        stream = _altered_fields(draw, stream, other)
    packed = sections.pack(stream.alpha, stream.metadata)
    for _ in range(draw.choice((0, 0, 1, 2))):
        _alter_sections(draw, packed)
    data = bytearray(_assembled(stream, packed))
    for _ in range(draw.choice((0, 0, 1, 1, 2, 5))):
        _alter_bytes(draw, data)
    return bytes(data) if draw.random() < 0.1 else resealed(bytes(data))


def _altered_fields(draw: random.Random, stream: container.Stream, other: container.Stream) -> container.Stream:
    payloads = list(stream.payloads)
    place = draw.randrange(len(payloads))
    kind = draw.randrange(7)
    if kind == 0:
        return replace(stream, width=draw.choice((*SIDES, 1000, 65535)), height=draw.choice((*SIDES, 1000, 65535)))
    if kind == 1:
        return replace(stream, tile_log2=draw.randint(6, 16))
    if kind == 2:
        return replace(stream, quality=draw.randint(2, 200) / 2, grey=not stream.grey)
    if kind == 3:
        payloads[place] = draw.choice(other.payloads)
    elif kind == 4:
        payloads[place] = draw.randbytes(draw.randint(1, 200))
    elif kind == 5:
        body = bytearray(payloads[place])
        for _ in range(draw.randint(1, 3)):
            _alter_bytes(draw, body)
        payloads[place] = bytes(body) or b"\0"
    elif draw.random() < 0.5:
        payloads.insert(place, draw.choice(payloads))
    elif len(payloads) > 1:
        payloads.pop(place)
    return replace(stream, payloads=tuple(payloads))


def _alter_sections(draw: random.Random, packed: sections.Packed) -> None:
    """Bodies that inflate to too little, too much or nothing, sections twice, of unknown types, or critical ones."""
    kind = draw.randrange(4)
    key = draw.choice((2, 3, 4, 5, 6, 8, 9, 10, 126, 2**32 - 2))
    if kind == 0:
        packed.append((key, draw.randbytes(draw.randint(1, 40))))
    elif kind == 1:
        size = draw.choice((0, 1, 100, 10_000, 1_000_000, 20_000_000 if draw.random() < 0.05 else 5))
        packed.append((key, b"\1" + zlib.compress(bytes(size)) + draw.choice((b"", b"more"))))
    elif packed:
        place = draw.randrange(len(packed))
        old, body = packed[place]
        if kind == 2:
            packed.append((draw.choice((key, old)), body))
        else:
            altered_body = bytearray(body)
            _alter_bytes(draw, altered_body)
            packed[place] = (old, bytes(altered_body) or b"\0")


def _assembled(stream: container.Stream, packed: sections.Packed) -> bytes:
    """As `container.assemble`, which refuses a stream whose fields disagree."""
    extended = len(stream.payloads) > 1 or bool(packed) or stream.tile_log2 != container.TILE_LOG2
    out = bytearray(container.MAGIC)
    out.append(container.VERSION << 4 | container.FLAG_EXTENDED * extended | container.FLAG_GREY * stream.grey)
    out += stream.fingerprint
    out.append(round(stream.quality * container.QUALITY_STEPS))
    out += _written(stream.width) + _written(stream.height)
    if extended:
        out += bytes([0, stream.tile_log2, len(packed)])
        for key, body in packed:
            out += _written(key) + _written(len(body)) + bytes(header.SHORT_CHECK_BYTES)
        for payload in stream.payloads:
            out += _written(len(payload)) + bytes(header.SHORT_CHECK_BYTES)
        out += bytes(header.SHORT_CHECK_BYTES)
    bodies = [body for _, body in packed]
    return resealed(b"".join([out, *bodies, *stream.payloads, bytes(container.CHECK_BYTES)]))


def _written(value: int) -> bytes:
    """A varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _alter_bytes(draw: random.Random, data: bytearray) -> None:
    """Bits, bytes, numbers, pieces taken out, doubled or put in; the header as often as all the rest."""
    if not data:
        return
    place = draw.randrange(min(len(data), 40) if draw.random() < 0.5 else len(data))
    kind = draw.randrange(7)
    if kind == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif kind == 1:
        data[place] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    elif kind == 2:
        data[place : place + draw.choice((1, 2, 3))] = _written(draw.choice(NUMBERS))
    elif kind == 3:
        del data[place : place + draw.choice((1, 2, 4, 100))]
    elif kind == 4:
        data[place:place] = draw.randbytes(draw.choice((1, 2, 4, 100)))
    elif kind == 5:
        data[place:place] = data[place : place + draw.choice((1, 3, 30))]
    else:
        del data[place:]
