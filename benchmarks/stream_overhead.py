"""How far the bytes of files are above what the model's own probabilities require.

python benchmarks/stream_overhead.py PICTURES... [--weights FOLDER]

The estimate is -log2 of the probabilities. For y these are the masses of integers under the Laplace distribution of
their scale index, in double precision; skipped elements, which can only be 0, cost nothing. For z they are the
frequencies of the factorised prior.
"""

import argparse
import math
from pathlib import Path

import numpy as np

import sodec
from sodec.entropy import SKIP
from sodec.evaluate.run import find_pictures, read_picture
from sodec.models.config import ModelConfig
from sodec.pipeline import tiles
from sodec.stream import container, symbols

QUALITIES = (1, 25, 50, 75, 100)


def mass(x, scale):
    """Probability of each integer under a Laplace distribution of mean 0 and this standard deviation."""
    rate = np.sqrt(2) / scale
    return np.where(x == 0, -np.expm1(-rate / 2), np.exp(-rate * np.abs(x)) * np.sinh(np.minimum(rate / 2, 300)))


def estimate(codec, data):
    """Bits that z and y of a stream require."""
    stream = container.read(data)
    config = ModelConfig.from_dict(dict(codec.bundle.config))
    bits_z = bits_y = 0.0
    boxes = tiles.grid(stream.width, stream.height, 1 << stream.tile_log2)
    for payload, box in zip(stream.payloads, boxes, strict=True):
        rows, columns = box.cells().height, box.cells().width
        z, y = symbols.decode(codec.bundle.coding, payload, stream.quality, rows, columns)
        bits_z += z_bits(codec.bundle.coding.z_tables[0], z)
        indexes = symbols.scale_indexes(codec.bundle.coding, z, stream.quality, rows, columns)
        coded = indexes != SKIP
        scales = np.array(config.scales)[indexes[coded]]
        bits_y += -np.log2(np.maximum(mass(y[coded].astype(float), scales), 1e-30)).sum()
    return bits_z, bits_y


def z_bits(tables, z):
    """Bits of z; values that a table does not hold cost the escape and its code, as in the format."""
    total = 0.0
    for channel, plane in enumerate(z):
        c = tables.cumulative[tables.offsets[channel] : tables.offsets[channel + 1]]
        cost = tables.precision - np.log2(np.diff(c))
        symbol = plane.astype(int).ravel() - tables.minimums[channel]
        inside = (symbol >= 0) & (symbol < len(cost) - 1)
        total += cost[symbol[inside]].sum()
        for outside in symbol[~inside]:
            u = 2 * (-1 - outside) + 1 if outside < 0 else 2 * (outside - (len(cost) - 1))
            total += cost[-1] + 2 * int(math.log2(u + 1)) + 1
    return total


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    codec = sodec.Codec(weights=options.weights)
    print("quality    bytes  estimate  header  above estimate + header (total; worst picture)")
    for quality in QUALITIES:
        rows = []
        for path in find_pictures(options.pictures):
            data = codec.compress(read_picture(path), quality)
            info = sodec.inspect(data)
            header = info.bytes["header"] + info.bytes["integrity"]
            rows.append((len(data), sum(estimate(codec, data)) / 8, header))
        total, ideal, header = np.array(rows).sum(0)
        worst = max(size / (best + head) - 1 for size, best, head in rows)
        share = total / (ideal + header) - 1
        print(f"{quality:7} {total:8.0f} {ideal:9.0f} {header:7.0f}  {100 * share:+.2f} %; {100 * worst:+.2f} %")


if __name__ == "__main__":
    main()
