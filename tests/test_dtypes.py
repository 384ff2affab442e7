"""The guarantee between dtypes: the same symbols from a stream, and pixels within a stated distance.

pytest tests/test_dtypes.py
"""

import functools

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tiny import folder, photo

import sodec
from sodec.pipeline.source import TileSource

# docs/limits.md promises these of the bundled model, against float32: the largest difference of a pixel, and the mean.
PROMISED = {"float32": (1, 0.01), "float16": (2, 0.2), "bfloat16": (8, 1.0)}


def text(width, height):
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for line in range(0, height, 12):
        draw.text((3, line), "The quick brown fox jumps over the lazy dog. " * 2, fill="black" if line % 24 else "red")
    return np.array(image)


def squares(width, height):
    y, x = np.mgrid[:height, :width] // 8
    return np.repeat(((x + y) % 2 * 255).astype(np.uint8)[..., None], 3, -1)


def noise(width, height):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


PICTURES = {"photo": photo, "text": text, "squares": squares, "noise": noise}


@functools.cache
def lite(dtype):
    return sodec.Codec(dtype=dtype)


@functools.cache
def stream(name, quality, dtype="float32"):
    return lite(dtype).compress(PICTURES[name](256, 192), quality)


@pytest.mark.parametrize("dtype", PROMISED)
@pytest.mark.parametrize("quality", [5, 90])
@pytest.mark.parametrize("name", PICTURES)
def test_pixels_of_dtypes_are_as_near_as_promised(name, quality, dtype):
    largest, mean = PROMISED[dtype]
    data = stream(name, quality)
    for view in ({}, {"mode": "fidelity"}, {"region": (30, 20, 60, 50)}):
        expected = lite("float32").decompress(data, output="numpy", **view).astype(int)
        difference = np.abs(lite(dtype).decompress(data, output="numpy", **view) - expected)
        assert difference.max() <= largest
        assert difference.mean() <= mean


def symbols_of(codec, data):
    return [array.tolist() for array in TileSource(codec.engine, codec._read(data), content=False).symbols(0)]


@pytest.mark.parametrize("encoder", PROMISED)
def test_symbols_are_the_same_whatever_the_dtype(encoder):
    codecs = {dtype: sodec.Codec(weights=folder(), dtype=dtype) for dtype in PROMISED}
    for seed in range(3):
        data = codecs[encoder].compress(photo(90, 70, seed), 80)
        expected = symbols_of(codecs[encoder], data)
        assert np.any(expected[1])
        assert all(symbols_of(codec, data) == expected for codec in codecs.values())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_streams_of_dtypes_differ_by_little(dtype):
    """Encoding uses floats: another dtype may write different bytes, of nearly the same number."""
    for name in PICTURES:
        for quality in (5, 90):
            expected = len(stream(name, quality))
            assert abs(len(stream(name, quality, dtype)) - expected) <= 0.02 * expected + 8
