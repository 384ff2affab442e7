"""The recipes of the golden streams, in integers alone; run from `tests` it writes those that do not exist yet.

python -m golden.make
"""

import json
from pathlib import Path

import numpy as np

from sodec import _native, entropy
from sodec._native import crc32c
from sodec.stream import container

HERE = Path(__file__).parent
FINGERPRINT = b"\x01\x02\x03"
QUALITIES = 199


def integers(seed, count, low, high):
    """`count` integers in low..high by a linear congruential generator: the same with every NumPy."""
    state, out = seed, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(low + (state >> 33) % (high - low + 1))
    return out


def make_model():
    """A model of 3 channels of z and 4 of y. Its y tables come from math.erfc, so it is stored, never made again."""

    def tables(made):
        cuts = [made.cumulative[a:b].tolist() for a, b in zip(made.offsets, made.offsets[1:], strict=False)]
        return {"precision": made.precision, "tables": list(zip(made.minimums.tolist(), cuts, strict=True))}

    layers = []
    for number, (inputs, outputs, k, upsample) in enumerate([(3, 5, 1, 1), (5, 8, 3, 2), (2, 8, 3, 2), (2, 4, 1, 1)]):
        weights = np.array(integers(number, outputs * k * k * inputs, -128, 127)).reshape(outputs, k, k, inputs)
        bias = integers(10 + number, outputs, -3000, 9000)
        multiplier = integers(20 + number, outputs, 1 << 18, 1 << 19)
        shift = 24 if number else 22
        layers.append({
            "weights": weights.tolist(), "bias": bias, "multiplier": multiplier, "shift": shift, "upsample": upsample,
        })  # fmt: skip
    spread = 1.3 ** np.arange(64)[:, None] * 0.05
    z = [np.exp(-np.abs(np.arange(-8, 9)) / width) * np.tanh(0.4 / width) for width in (0.5, 1.5, 4)]
    return {
        "z_tables": tables(entropy.tables_from_probabilities(z, [-8, -8, -7], precision=12)),
        "y_tables": tables(entropy.gaussian_tables(np.minimum(spread.ravel(), 8).tolist(), precision=12)),
        "layers": layers,
        "offsets": [[c * (q - 99) // 2 - 30 for c in range(1, 5)] for q in range(QUALITIES)],
    }


def native_tables(told):
    """`entropy.Tables` of a model's "z_tables" or "y_tables"."""
    minimums, rows = zip(*told["tables"], strict=True)
    offsets = np.cumsum([0, *map(len, rows)])
    parts = (np.array(part, np.int32) for part in (np.concatenate(rows), offsets, minimums))
    return entropy.Tables(*parts, told["precision"])


def native_network(model):
    names = ("bias", "multiplier")
    return _native.ScaleNetwork([
        (np.array(layer["weights"], np.int8), *(np.array(layer[n], np.int32) for n in names), layer["shift"],
         layer["upsample"]) for layer in model["layers"]
    ])  # fmt: skip


# Payloads alone: name, precision, tables as (minimum, frequencies), number of symbols, range of symbols, lanes.
FLAT = [(-8, [1000] * 16 + [49536])]
SKEWED = [(-1, [100, 65000, 100, 336]), (0, [65535, 1]), (-3, [1, 20, 400, 60000, 4000, 1000, 114, 1]), (5, [65536])]
PAYLOADS = {
    "empty": (16, SKEWED, 0, (0, 0), 1),
    "one-symbol": (16, SKEWED, 1, (-1, 1), 1),
    "one-lane": (16, SKEWED, 300, (-2, 2), 1),
    "two-lanes": (16, SKEWED, 301, (-4, 4), 2),
    "eight-lanes": (16, SKEWED, 203, (-5, 5), 8),
    "64-lanes": (16, FLAT, 999, (-8, 7), 64),
    "chosen-lanes": (16, FLAT, 2500, (-9, 8), 0),
    "escapes": (16, SKEWED, 120, (-32767, 32767), 4),
    "escapes-one-lane": (1, [(-32767, [1, 1]), (32767, [1, 1]), (0, [2])], 90, (-32767, 32767), 1),
    "precision-1": (1, [(0, [1, 1]), (-1, [2])], 64, (-1, 1), 2),
    "precision-11": (11, [(-2, [10, 200, 1500, 300, 38])], 256, (-3, 3), 4),
}


def payload_case(name):
    """Sections (symbols, indexes, tables as (precision, [(minimum, cumulative)])) and lanes: two sections of each."""
    precision, frequencies, count, (low, high), lanes = PAYLOADS[name]
    tables = {
        "precision": precision,
        "tables": [(minimum, np.cumsum([0, *row]).tolist()) for minimum, row in frequencies],
    }
    sections = []
    for part, n in enumerate((count // 3, count - count // 3)):
        indexes = integers(count + part, n, 0, len(frequencies))
        indexes = [255 if index == len(frequencies) else index for index in indexes]
        symbols = integers(1000 + count + part, n, low, high)
        sections.append(([0 if i == 255 else s for s, i in zip(symbols, indexes, strict=True)], indexes, tables))
    return sections, lanes


def make_payload(name):
    sections, lanes = payload_case(name)
    return entropy.encode_sections(
        [(np.array(s, np.int16), np.array(i, np.uint8), native_tables(t)) for s, i, t in sections], lanes=lanes
    )


# Streams: fields of container.Stream but for fingerprint and payloads.
STREAMS = {
    "1x1": {"width": 1, "height": 1, "quality": 1},
    "one-tile-grey": {"width": 200, "height": 70, "quality": 50.5, "grey": True},
    "tiles": {"width": 130, "height": 70, "quality": 100, "tile_log2": 6},
    "constant-alpha": {"width": 1030, "height": 17, "quality": 80, "alpha": np.full((17, 1030), 128, np.uint8)},
    "deflated-alpha": {
        "width": 16,
        "height": 31,
        "quality": 3,
        "alpha": np.arange(496, dtype=np.uint8).reshape(31, 16),
    },
}
# What zlib makes of the same bytes depends on its version, so this one is only read.
READ_ONLY = {"deflated-alpha"}


def tile_symbols(model, width, height, quality, seed):
    """z and y of a tile, (channel, row, column), and the indexes of y."""
    rows, columns = -(-height // 16), -(-width // 16)
    shape = (3, -(-rows // 4), -(-columns // 4))
    z = np.array(integers(seed, int(np.prod(shape)), -9, 9), np.int16).reshape(shape)
    offset = np.array(model["offsets"][round(2 * quality) - 2], np.int32)
    indexes = native_network(model).indexes(z.transpose(1, 2, 0), offset)[:rows, :columns].transpose(2, 0, 1)
    indexes = np.where(indexes == 0, 255, indexes).astype(np.uint8)
    y = np.array(integers(seed + 1, indexes.size, -3, 3), np.int16).reshape(indexes.shape)
    y[indexes == 255] = 0
    return z, y, indexes


def stream_tiles(name, model):
    """(z, y, indexes) of each tile."""
    fields = STREAMS[name]
    width, height, side = fields["width"], fields["height"], 1 << fields.get("tile_log2", 10)
    return [
        tile_symbols(model, min(side, width - x), min(side, height - y), fields["quality"], 7 * y + x)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


def make_stream(name, model):
    z_tables, y_tables = native_tables(model["z_tables"]), native_tables(model["y_tables"])
    payloads = []
    for z, y, indexes in stream_tiles(name, model):
        channels = np.broadcast_to(np.arange(3, dtype=np.uint8)[:, None, None], z.shape)
        payloads.append(entropy.encode_sections([(z, channels, z_tables), (y, indexes, y_tables)]))
    return container.write(container.Stream(**STREAMS[name], fingerprint=FINGERPRINT, payloads=tuple(payloads)))


def resealed(data):
    """`data` with its last four bytes made the right CRC-32C again."""
    return data[:-4] + crc32c(data[:-4]).to_bytes(4, "little")


def broken_streams(model):
    """By name: streams that every decoder refuses."""
    good, tiled = make_stream("one-tile-grey", model), make_stream("tiles", model)
    alpha = make_stream("constant-alpha", model)

    def patched(data, place, value):
        return resealed(data[:place] + bytes([value]) + data[place + 1 :])

    return {
        "truncated": good[:-1],
        "wrong-magic": b"\x89PNG" + good[4:],
        "altered": good[:20] + bytes([good[20] ^ 1]) + good[21:],
        "version-2": patched(good, 3, 0x22),
        "version-0": patched(good, 3, 0x02),
        "flag-3": patched(good, 3, good[3] | 8),
        "quality-201": patched(good, 7, 201),
        "no-width": resealed(good[:8] + b"\0" + good[10:]),
        "long-varint": resealed(good[:8] + b"\xc8\x81\x00" + good[10:]),
        "critical-flag": patched(tiled, 11, 1),
        "tile-size": patched(tiled, 12, 5),
        "critical-section": patched(alpha, 14, 5),
        "altered-header": patched(tiled, 15, tiled[15] ^ 1),
        "altered-tile": patched(tiled, len(tiled) - 5, tiled[-5] ^ 1),
        "payload-header": patched(good, 11, good[11] | 0x80),
        "payload-precision": patched(good, 11, good[11] ^ 0x08),
        "payload-end": patched(good, len(good) - 5, good[-5] ^ 0x40),
        "payload-short": resealed(good[:-8] + good[-6:]),
        "payload-long": resealed(good[:-4] + bytes(6)),
    }


def write_new(path, make):
    """Golden files are written once and read for ever."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make())
        print(path.relative_to(HERE))


def main():
    write_new(HERE / "model.json", lambda: json.dumps(make_model(), separators=(",", ":")).encode() + b"\n")
    model = json.loads((HERE / "model.json").read_text())
    for name in PAYLOADS:
        write_new(HERE / "payloads" / f"{name}.bin", lambda: make_payload(name))  # noqa: B023
    for name, data in broken_streams(model).items():
        write_new(HERE / "errors" / f"{name}.sodec", lambda: data)  # noqa: B023
    for name in STREAMS:
        write_new(HERE / "streams" / f"{name}.sodec", lambda: make_stream(name, model))  # noqa: B023


if __name__ == "__main__":
    main()
