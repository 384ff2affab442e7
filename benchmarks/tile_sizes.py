"""What a tile's size and halo cost: bytes, likeness to the picture coded as one tile, steps at borders, seconds.

python benchmarks/tile_sizes.py kodak/*.png

The pictures are laid side by side into one of 3072x2048 (or as much of it as they fill).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from unittest import mock

import numpy as np
from PIL import Image

import sodec
from sodec.pipeline import decoder, tiles
from sodec.pipeline.view import checked_view
from sodec.stream import container

COLUMNS, ROWS, WIDTH, HEIGHT = 4, 4, 768, 512
QUALITY = 13  # near 0.05 bpp
CHOICES = [(256, 64), (512, 64), (1024, 64), (2048, 64), (512, 128), (1024, 128), (1024, 192)]


def mosaic(paths: Sequence[str]) -> np.ndarray:
    """uint8 (H, W, 3) of the landscape pictures among `paths`, row by row."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    fitting = [np.asarray(p) for p in pictures if p.size == (WIDTH, HEIGHT)][: COLUMNS * ROWS]
    rows = [np.concatenate(fitting[i : i + COLUMNS], 1) for i in range(0, len(fitting) - COLUMNS + 1, COLUMNS)]
    return np.concatenate(rows)


def coded(codec: sodec.Codec, rgb: np.ndarray, tile: int, halo: int) -> tuple[int, np.ndarray, float, float]:
    """Bytes, the decoded picture, and seconds of encoding and decoding."""
    height, width = rgb.shape[:2]
    with mock.patch.object(tiles, "HALO", halo):
        start = time.perf_counter()
        payloads = tuple(
            codec.engine.encode(codec.engine.analyse(rgb, box), QUALITY) for box in tiles.grid(width, height, tile)
        )
        encoded = time.perf_counter()
        stream = container.Stream(
            width, height, QUALITY, codec.bundle.fingerprint, payloads, tile_log2=tile.bit_length() - 1
        )
        size = len(container.assemble(stream, []))
        codec.engine.tile = tile  # also of synthesis
        decoded = decoder.decode(codec.engine, stream, checked_view("full", None, None, 1)).picture.rgb
        return size, decoded, encoded - start, time.perf_counter() - encoded


def steps(decoded: np.ndarray, whole: np.ndarray, tile: int) -> float:
    """Mean step across tile borders over that of the picture decoded as one tile in the same places: 1 is no seam."""
    shares = []
    for axis in (0, 1):
        jumps, expected = (np.abs(np.diff(x.astype(float), axis=axis)).mean((1 - axis, 2)) for x in (decoded, whole))
        borders = np.arange(tile, len(jumps) + 1, tile) - 1
        if len(borders):
            shares.append(jumps[borders].mean() / expected[borders].mean())
    return float(np.mean(shares)) if shares else float("nan")


def main(paths: Sequence[str]) -> None:
    """Prints a line for each choice."""
    codec = sodec.Codec()
    rgb = mosaic(paths)
    one = 1 << (max(rgb.shape) - 1).bit_length()
    size, whole, encoding, decoding_time = coded(codec, rgb, one, 64)
    print(f"{rgb.shape[1]}x{rgb.shape[0]}, quality {QUALITY}; as one tile {size * 8 / rgb[..., 0].size:.4f} bpp,")
    print(f"encoding {encoding:.2f} s, decoding {decoding_time:.2f} s")
    error = _error(whole, rgb)
    print("tile  halo  bytes    PSNR     step at borders  encoding  decoding, s")
    for tile, halo in CHOICES:
        bytes_, decoded, encoding, decoding_time = coded(codec, rgb, tile, halo)
        loss = 10 * np.log10(error / _error(decoded, rgb))
        print(
            f"{tile:4}  {halo:4}  {bytes_ / size - 1:+.2%}  {loss:+.3f} dB  {steps(decoded, whole, tile):15.3f}"
            f"  {encoding:8.2f}  {decoding_time:8.2f}"
        )


def _error(decoded: np.ndarray, rgb: np.ndarray) -> float:
    return float(np.square(decoded.astype(float) - rgb).mean())


if __name__ == "__main__":
    main(sys.argv[1:])
