"""The container: written streams are read back, and all other bytes are refused by a typed error.

pytest tests/test_container.py
"""

import dataclasses
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sodec._native import crc32c
from sodec.errors import CorruptStreamError, NewerFormatError, PictureTooLargeError, QualityError, SodecError
from sodec.stream import container, info
from sodec.stream.container import Stream

FINGERPRINT = b"\xa1\xb2\xc3"


def one_tile(**changes):
    fields = {"width": 768, "height": 512, "quality": 50, "fingerprint": FINGERPRINT, "payloads": (b"payload",)}
    return Stream(**{**fields, **changes})


def equal(a, b):
    same = (a.alpha is None) == (b.alpha is None) and (a.alpha is None or np.array_equal(a.alpha, b.alpha))
    return same and dataclasses.replace(a, alpha=None) == dataclasses.replace(b, alpha=None)


def resealed(data):
    """`data` with a correct CRC-32C in its last four bytes."""
    return bytes(data[:-4]) + crc32c(data[:-4]).to_bytes(4, "little")


def patched(data, position, value):
    return resealed(data[:position] + bytes([value]) + data[position + 1 :])


def extended(sections=b"\x00", critical=0, tile_log2=10, width=16, height=16, index=None, bodies=b"", payload=b"p"):
    """An extended stream assembled by hand, so that tests can break one rule at a time."""
    head = container.MAGIC + bytes([0x11]) + FINGERPRINT + bytes([100, width, height, critical, tile_log2]) + sections
    head += bytes([len(payload)]) + short(payload) if index is None else index
    return resealed(head + short(head) + bodies + payload + bytes(4))


def short(data):
    return (crc32c(data) & 0xFFFF).to_bytes(2, "little")


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 30_011])
def test_crc32c_is_the_same_bit_by_bit(size):
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


def test_crc32c_of_the_published_examples():
    # RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes([255] * 32)) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_header_and_integrity_of_a_kodak_picture_take_16_bytes():
    assert len(container.write(one_tile())) - len(b"payload") == 16


@pytest.mark.parametrize(
    "stream",
    [
        one_tile(),
        one_tile(width=1, height=1, quality=1),
        one_tile(width=1024, height=1024, quality=100, grey=True),
        one_tile(width=1025, height=3, payloads=(b"left", b"r")),
        one_tile(width=65535, height=64, tile_log2=16, quality=7.5),
        one_tile(width=130, height=70, tile_log2=6, payloads=tuple(bytes([i]) * (i + 1) for i in range(6))),
        one_tile(alpha=np.full((512, 768), 255, np.uint8)),
        one_tile(width=3, height=2, alpha=np.array([[0, 1, 255], [254, 1, 0]], np.uint8), grey=True),
        one_tile(width=1030, height=2, payloads=(b"a", b"b"), alpha=np.arange(2060).astype(np.uint8).reshape(2, 1030)),
    ],
)
def test_written_streams_are_read_back(stream):
    assert equal(container.read(container.write(stream), max_tile=1 << 16), stream)


def test_constant_alpha_takes_two_bytes_and_their_directory():
    plain, opaque = container.write(one_tile()), container.write(one_tile(alpha=np.full((512, 768), 255, np.uint8)))
    assert len(opaque) - len(plain) <= 16


@pytest.mark.parametrize(
    ("changes", "error", "value"),
    [
        ({"width": 65536}, PictureTooLargeError, "65536"),
        ({"height": 0}, PictureTooLargeError, "768x0"),
        ({"quality": 0}, QualityError, "0"),
        ({"quality": 101}, QualityError, "101"),
        ({"quality": 50.25}, QualityError, "50.25"),
        ({"fingerprint": b"ab"}, ValueError, "2"),
        ({"payloads": (b"a", b"b")}, ValueError, "2 payloads for 1x1"),
        ({"payloads": (b"",)}, ValueError, "tile 0"),
        ({"tile_log2": 5}, ValueError, "5"),
        ({"alpha": np.zeros((2, 2), np.uint8)}, ValueError, r"\(2, 2\)"),
    ],
)
def test_unwritable_fields_are_named(changes, error, value):
    with pytest.raises(error, match=value):
        container.write(one_tile(**changes))


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", CorruptStreamError, "empty"),
        (b"\xff\xd8\xff\xe0 a JPEG picture", CorruptStreamError, "ff d8 ff"),
        (b"\x9es", CorruptStreamError, "2 bytes"),
        (container.write(one_tile())[:-1], CorruptStreamError, "truncated or altered"),
        (patched(container.write(one_tile()), 3, 0x20), NewerFormatError, "version 2"),
        (patched(container.write(one_tile()), 3, 0x00), CorruptStreamError, "version 0"),
        (patched(container.write(one_tile()), 3, 0x14), NewerFormatError, "flag 2"),
        (patched(container.write(one_tile()), 3, 0x18), NewerFormatError, "flag 3"),
        (patched(container.write(one_tile()), 7, 0), CorruptStreamError, "quality 0"),
        (patched(container.write(one_tile()), 7, 201), CorruptStreamError, "quality 100.5"),
        (patched(container.write(one_tile()), 9, 0x00), CorruptStreamError, "shortest form"),
        (patched(container.write(one_tile()), 9, 0x0F), CorruptStreamError, "no tile index"),  # 1920 wide
        (patched(container.write(one_tile(width=100)), 8, 0), CorruptStreamError, "0x512"),
        (resealed(container.write(one_tile(payloads=(b"p",)))[:-5] + bytes(4)), CorruptStreamError, "tile 0 is empty"),
        (extended(critical=1), NewerFormatError, "critical flag 0"),
        (extended(critical=0x80), NewerFormatError, "critical flag 7"),
        (extended(tile_log2=5), CorruptStreamError, "2^5".replace("^", r"\^")),
        (extended(tile_log2=17), CorruptStreamError, "17"),
        (extended(sections=b"\x41"), CorruptStreamError, "65 sections"),
        (extended(sections=b"\x01" + bytes([9 << 1 | 1, 1]) + short(b"x"), bodies=b"x"), NewerFormatError, "section 9"),
        (extended(sections=b"\x01" + bytes([9 << 1, 1]) + short(b"y"), bodies=b"x"), CorruptStreamError, "section 9"),
        (extended(sections=b"\x01" + bytes([9 << 1, 100]) + short(b"x"), bodies=b"x"), CorruptStreamError, "100 bytes"),
        (extended(sections=b"\x01" + bytes([9 << 1, 0]) + short(b"")), CorruptStreamError, "section 9 is empty"),
        (extended(index=b"\x01xx"), CorruptStreamError, "tile 0"),
        (extended(index=b"\x05" + short(b"p")), CorruptStreamError, "tile 0 takes 5"),
        (extended(payload=b"pp", index=b"\x01" + short(b"p")), CorruptStreamError, "1 bytes are left over"),
        (extended(index=b"\xff\xff\xff\xff\xff\x01"), CorruptStreamError, "more than five"),
        (extended(index=b"\xff\xff\xff\xff\x7f"), CorruptStreamError, "2\\^32"),
        (patched(extended(), 14, 0x55), CorruptStreamError, "extended header"),
    ],
)
def test_broken_rules_are_named(data, error, message):
    with pytest.raises(error, match=message):
        container.read(data)


@pytest.mark.parametrize("data", [b"x", b"<x/>" * 500, bytes(range(256)) * 9])
def test_metadata_is_kept_and_itemised(data):
    stream = one_tile(
        payloads=(b"\0\0",), metadata={"xmp": data, "exif": b"Exif\0\0MM"}, alpha=np.zeros((512, 768), np.uint8)
    )
    written = container.write(stream)
    assert equal(container.read(written), stream)
    told = info.described(container.parse(written))
    assert told.bytes["exif"] == 9
    assert 2 <= told.bytes["xmp"] <= len(data) + 1
    assert told.bytes["icc"] == told.bytes["other"] == 0
    assert sum(told.bytes.values()) == 2 * len(written)


def section(tag, body):
    return extended(sections=b"\x01" + bytes([tag << 1, len(body)]) + short(body), bodies=body)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (section(2, b"\0"), "exif section is empty"),
        (section(3, b"\2x"), "icc method 2"),
        (section(4, b"\1xyz"), "xmp section can't be inflated"),
        (section(4, b"\1" + zlib.compress(b"x") + b"y"), "does not end where"),
        (section(4, b"\1" + zlib.compress(b"x" * 99)[:-4]), "does not end where"),
    ],
)
def test_metadata_that_breaks_a_rule(data, message):
    with pytest.raises(CorruptStreamError, match=message):
        container.read(data)


def test_metadata_that_unpacks_to_too_much():
    body = b"\1" + zlib.compress(bytes((1 << 24) + 1), 9)
    head = b"\x01" + bytes([4 << 1]) + container._varint(len(body))
    with pytest.raises(CorruptStreamError, match="more than 16777216"):
        container.read(extended(sections=head + short(body), bodies=body))
    for metadata in ({"iptc": b"x"}, {"xmp": b""}):
        with pytest.raises(ValueError, match="metadata"):
            container.write(one_tile(metadata=metadata))


def test_two_metadata_sections_of_a_type():
    entries = (bytes([4 << 1, 2]) + short(b"\0x")) * 2
    with pytest.raises(CorruptStreamError, match="two xmp sections"):
        container.read(extended(sections=b"\x02" + entries, bodies=b"\0x\0x"))


def test_a_start_tells_size_and_alpha_without_the_rest():
    alpha = np.zeros((512, 768), np.uint8)
    for stream in (one_tile(), one_tile(grey=True, alpha=alpha), one_tile(tile_log2=6, payloads=(b"x",) * 96)):
        told = container.peek(container.write(stream)[: container.PEEK_BYTES])
        assert (told.width, told.height, told.quality, told.fingerprint) == (768, 512, 50, FINGERPRINT)
        assert told.grey == stream.grey
        assert told.alpha == (stream.alpha is not None)
    for start, error in ((b"", CorruptStreamError), (b"\x89PNG" + bytes(30), CorruptStreamError),
                         (container.MAGIC + b"\x20" + bytes(30), NewerFormatError)):  # fmt: skip
        with pytest.raises(error):
            container.peek(start)


def test_unknown_optional_section_is_skipped():
    data = extended(sections=b"\x01" + bytes([9 << 1, 3]) + short(b"new"), bodies=b"new")
    assert container.read(data) == one_tile(width=16, height=16, payloads=(b"p",))


def alpha_stream(*bodies):
    entries = b"".join(bytes([3, len(body)]) + short(body) for body in bodies)
    return extended(sections=bytes([len(bodies)]) + entries, bodies=b"".join(bodies))


@pytest.mark.parametrize(
    ("bodies", "message"),
    [
        ([b"\x00"], "2 bytes, not 1"),
        ([b"\x02a"], "method 2"),
        ([b"\x01not deflated"], "inflated"),
        ([b"\x01" + zlib.compress(bytes(255))], "16x16"),
        ([b"\x01" + zlib.compress(bytes(257))], "16x16"),
        ([b"\x01" + zlib.compress(bytes(256))[:-1]], "16x16"),
        ([b"\x01" + zlib.compress(bytes(256)) + b"more"], "16x16"),
        ([b"\x00\xff", b"\x00\xff"], "two alpha"),
    ],
)
def test_broken_alpha_is_refused(bodies, message):
    with pytest.raises(CorruptStreamError, match=message):
        container.read(alpha_stream(*bodies))


def test_inflating_alpha_stops_at_the_size_of_the_picture():
    bomb = b"\x01" + zlib.compress(bytes(100_000), 9)
    tracemalloc.start()
    with pytest.raises(CorruptStreamError):
        container.read(alpha_stream(bomb))
    assert tracemalloc.get_traced_memory()[1] < 50_000
    tracemalloc.stop()


@pytest.mark.parametrize("tiled", [False, True])
def test_absurd_size_is_refused_before_anything_is_allocated(tiled):
    size = b"\xff\xff\x03" * 2
    head = container.MAGIC + bytes([0x10 | tiled]) + FINGERPRINT + b"\x32" + size
    data = resealed(head + (b"\x00\x06\x00" if tiled else b"") + bytes(100))
    tracemalloc.start()
    with pytest.raises(PictureTooLargeError, match="65535x65535"):
        container.read(data)
    with pytest.raises(SodecError):
        container.read(data, max_pixels=1 << 32)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


VALID = [
    container.write(one_tile()),
    container.write(
        one_tile(width=130, height=70, tile_log2=6, payloads=(b"ab",) * 6, alpha=np.eye(70, 130, dtype=np.uint8))
    ),
]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), reseal=st.booleans())
def test_altered_streams_raise_only_our_errors(data, reseal):
    original = data.draw(st.sampled_from(VALID))
    altered = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(original) - 1))] ^= data.draw(st.integers(1, 255))
    if reseal:
        altered = resealed(altered)
    try:
        container.read(bytes(altered))
    except SodecError:
        return
    assert reseal or altered == original, "a stream of another CRC was accepted"


@settings(max_examples=100, deadline=None)
@given(data=st.data(), reseal=st.booleans())
def test_truncated_streams_raise_only_our_errors(data, reseal):
    stream = data.draw(st.sampled_from(VALID))
    stream = stream[: data.draw(st.integers(0, len(stream) - 1))]
    if reseal and len(stream) >= 4:
        stream = resealed(stream)
    try:
        container.read(stream)
    except SodecError:
        return
    assert reseal, "a stream of another CRC was accepted"
    assert stream[3] & 1 == 0, "a stream with a tile index was accepted without its last tile"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_raise_only_our_errors(tail):
    with pytest.raises(SodecError):
        container.read(tail)
    with pytest.raises(SodecError):
        container.read(container.MAGIC + b"\x11" + tail)
