"""Limits on pixels and tiles in every function that reads streams; `inspect` takes time in proportion to the bytes.

pytest tests/test_limits.py
"""

import io
import sys
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from tiny import codec, photo

import sodec
from sodec.errors import PictureTooLargeError, UnknownModelError
from sodec.stream import container
from sodec.weights import find

# One lane, 15 bits of precision as in the bundled tables, and a state that yields symbols without end.
ENDLESS = bytes([14 << 3, 0xF8, 0, 0, 0, 0])


def claiming(width, height, tile_log2, **fields):
    """A stream of the bundled model's fingerprint with payloads that `inspect` can follow."""
    columns, rows = container.tile_grid(width, height, tile_log2)
    payloads = (ENDLESS,) * (columns * rows)
    return container.write(
        container.Stream(width, height, 50, find("lite").fingerprint, payloads, tile_log2=tile_log2, **fields)
    )


def through_pillow(data, max_pixels=container.MAX_PIXELS, max_tile=container.MAX_TILE):
    from sodec.integrations.pillow_file import SodecImageFile

    before = SodecImageFile.max_pixels, SodecImageFile.max_tile
    SodecImageFile.max_pixels, SodecImageFile.max_tile = max_pixels, max_tile
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    finally:
        SodecImageFile.max_pixels, SodecImageFile.max_tile = before


def through_numcodecs(data, **limits):
    pytest.importorskip("numcodecs")
    from sodec.integrations.numcodecs import Sodec

    type("Limited", (Sodec,), limits)().decode(data)


DOORS = {
    "inspect": sodec.inspect,
    "decompress": sodec.decompress,
    "codec": lambda data, **limits: codec().decompress([data], **limits),
    "region": lambda data, **limits: sodec.decompress(data, region=(0, 0, 1, 1), **limits),
    "pillow": through_pillow,
    "numcodecs": through_numcodecs,
}


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.parametrize("door", DOORS)
def test_limits_hold_at_every_door(door):
    data = codec().compress(photo(70, 50))
    DOORS[door](data, max_pixels=3500, max_tile=70)
    with pytest.raises(PictureTooLargeError, match=r"70x50 pixels, 3500 in all; the limit is 3499.*--max-pixels"):
        DOORS[door](data, max_pixels=3499)
    with pytest.raises(PictureTooLargeError, match=r"tiles of 70 pixels a side; the limit is 69.*--max-tile"):
        DOORS[door](data, max_tile=69)


@pytest.mark.parametrize(("width", "height"), [(1025, 1), (1, 65535), (16384, 16384)])
def test_tiles_above_1024_are_refused_by_default(width, height):
    data = claiming(width, height, 16)
    for door in ("inspect", "decompress", "pillow", "numcodecs"):
        with pytest.raises(PictureTooLargeError, match=f"tiles of {max(width, height)} pixels"):
            DOORS[door](data)
    assert sodec.inspect(data, max_tile=65536).width == width


def test_a_large_tile_of_a_small_picture_is_a_small_tile():
    assert sodec.inspect(claiming(1024, 3, 16)).tiles == (1, 1)


def test_an_unknown_coding_is_named_whatever_the_size():
    stream = container.Stream(65535, 65535, 50, b"\0\0\0", (ENDLESS,), tile_log2=16)
    with pytest.raises(UnknownModelError, match="000000"):
        sodec.decompress(container.write(stream))


@pytest.mark.usefixtures("tiny_as_lite")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limit", [1, 3000])  # an error of Pillow's, and a warning
def test_pillows_own_limit_is_not_a_second_one(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    data = codec().compress(photo(70, 50))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (70, 50)
        assert (image.width, image.height) == (70, 50)
        assert np.asarray(image).shape == (50, 70, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


def calls_of(function):
    """The number of calls of Python functions, including steps of generators."""
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_inspect_takes_time_in_proportion_to_the_bytes():
    small, large = claiming(64 * 8, 64 * 8, 6), claiming(64 * 32, 64 * 32, 6)
    sodec.inspect(small)  # loads the weights
    assert calls_of(lambda: sodec.inspect(large)) < 16 * calls_of(lambda: sodec.inspect(small))


def stripes(width, height):
    return np.broadcast_to(np.arange(width).astype(np.uint8), (height, width))


@pytest.mark.parametrize(
    "fields", [{"alpha": stripes(4096, 4096)}, {"metadata": {"xmp": bytes(1 << 24), "exif": bytes(1 << 24)}}]
)
def test_inspect_inflates_nothing(fields):
    data = claiming(4096, 4096, 10, **fields)
    assert len(data) < 100_000
    sodec.inspect(data)  # loads the weights
    tracemalloc.start()
    found = sodec.inspect(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert sum(found.bytes[name] for name in ("alpha", "xmp", "exif")) > len(data) / 2
