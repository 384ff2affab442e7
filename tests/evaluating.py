"""Shared by the tests of evaluation: small pictures, a codec to measure, and curves of known shape."""

import io

import numpy as np
from PIL import Image

from sodec.evaluate import run


def picture(seed=0, height=64, width=80):
    """A smooth random picture: noise of several scales, so that codecs keep some of it and lose some."""
    noise = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for size in (4, 8, 16):
        small = noise.integers(0, 256, (size, size, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.uint8(total / 3)


def noisy(original, amount, seed=1):
    noise = np.random.default_rng(seed).normal(0, amount, original.shape)
    return np.uint8(np.clip(original + noise, 0, 255))


class Keeper:
    """A codec that writes more bytes and loses less for a larger setting: it rounds to multiples of 32 / setting."""

    name = "keeper"
    settings = (1, 2, 4, 8)

    def encode(self, picture, setting):
        buffer = io.BytesIO()
        step = 32 // int(setting)
        np.save(buffer, picture // step * step)
        return buffer.getvalue() + bytes(100 * int(setting))

    def decode(self, data):
        return np.load(io.BytesIO(data))


def mean(codec, bpp, **values):
    return run.Mean(codec, 0, 1, 0, bpp, 0, 0, values)


def curve(codec, factor, start=0, stop=6):
    """PSNR 30 + 3 per doubling of the rate, and a distance that falls; `factor` times the bytes for the same."""
    return [mean(codec, factor * 0.1 * 2**n, psnr=30 + 3.0 * n, st_lpips=0.5 - 0.05 * n) for n in range(start, stop)]
