"""A second decoder of the .sodec format, written from FORMAT.md alone: plain Python, slow, no dependency.

It reads a stream down to the integers z and y of each tile; what the networks make of these is not the format's.

A model is a dict of integers: "z_tables" and "y_tables" (dicts of "precision" and "tables", a list of
(minimum, cumulative frequencies)), "layers" (dicts of "weights" [o][ky][kx][i], "bias", "multiplier", "shift",
"upsample") and "offsets" (199 rows). Sections in comments are those of FORMAT.md.
"""

import itertools
import zlib


class Corrupt(Exception): ...


class Newer(Exception): ...


def require(condition, what, error=Corrupt):
    if not condition:
        raise error(what)


def crc32c(data):
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


class Bytes:  # reads forward, up to `end`
    def __init__(self, data, start, end):
        self.data, self.at, self.end = data, start, end

    def take(self, count):
        require(count <= self.end - self.at, "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "little")

    def varint(self):
        value = 0
        for group in range(5):
            byte = self.number(1)
            value |= (byte & 127) << 7 * group
            if byte < 128:
                require((byte > 0 or group == 0) and value < 1 << 32, "varint")
                return value
        raise Corrupt("varint")


class Payload:  # section 4: read() once per section of symbols, then finish()
    def __init__(self, data):
        require(data, "empty payload")
        self.lanes, self.precision = 1 << (data[0] & 7), (data[0] >> 3 & 15) + 1
        require(data[0] < 128 and self.lanes <= 64, "payload header")
        bits, at, self.states = "".join(f"{byte:08b}" for byte in data[1 : 1 + 64 * 5]), 0, []
        width, base = (5, 0) if self.lanes == 1 else (4, 16)
        for _ in range(self.lanes):
            e = int(bits[at : at + width].ljust(width, "0"), 2) + base
            at += width + e
            require(at <= len(bits), "truncated states")
            self.states.append(int("1" + bits[at - e : at], 2))
        end = -(-at // 8)
        require("1" not in bits[at : 8 * end], "bits after the states")
        words = data[1 + end :]
        require(len(words) % 2 == 0, "half a word")
        self.words = [words[i] | words[i + 1] << 8 for i in range(0, len(words), 2)][::-1]  # the next one last

    def renormalised(self, x):
        require(x >= 1 << 16 or self.words or self.lanes == 1, "words used up")
        return x << 16 | self.words.pop() if x < 1 << 16 and self.words else x

    def step(self, lane, bits):
        x = self.states[lane]
        self.states[lane] = self.renormalised(x >> bits)
        return x & (1 << bits) - 1

    def read(self, indexes, tables):
        require(tables["precision"] == self.precision, "precision")
        lane = itertools.cycle(range(self.lanes))
        return [0 if index == 255 else self.symbol(next(lane), *tables["tables"][index]) for index in indexes]

    def symbol(self, lane, minimum, c):
        x = self.states[lane]
        slot = x & (1 << self.precision) - 1
        s = max(i for i in range(len(c) - 1) if c[i] <= slot)
        self.states[lane] = self.renormalised((c[s + 1] - c[s]) * (x >> self.precision) + slot - c[s])
        if s < len(c) - 2:
            return minimum + s
        k = 0
        while k < 16 and self.step(lane, 1):
            k += 1
        u = (1 << k) + (self.step(lane, k) if k else 0) - 1
        value = minimum - 1 - u // 2 if u % 2 else minimum + len(c) - 2 + u // 2
        require(abs(value) <= 32767, "escaped value")
        return value

    def finish(self):
        require(not self.words, "words left over")
        require(set(self.states) == {1 if self.lanes == 1 else 1 << 16}, "end states")


def scale_indexes(z, layers, offset):
    """Section 6: z [row][column][channel] to indexes [row][column][channel]."""
    image = [[[min(max(v + 128, 0), 255) for v in pixel] for pixel in row] for row in z]
    for number, layer in enumerate(layers):
        last, up, half = number == len(layers) - 1, layer["upsample"], len(layer["weights"][0]) // 2
        height, width, inputs, outputs = len(image), len(image[0]), len(image[0][0]), len(layer["weights"])
        result = [[[0] * (outputs // up**2) for _ in range(width * up)] for _ in range(height * up)]
        outside = [[0] * inputs]
        image = [outside * (width + 2), *(outside + row + outside for row in image), outside * (width + 2)]
        for row in range(height):
            for column in range(width):
                for o, kernel in enumerate(layer["weights"]):
                    total = layer["bias"][o]
                    for dy, taps in enumerate(kernel, 1 - half):
                        for dx, weights in enumerate(taps, 1 - half):
                            total += sum(map(int.__mul__, weights, image[row + dy][column + dx]))
                    r = (total * layer["multiplier"][o] + (1 << layer["shift"] - 1)) >> layer["shift"]
                    if last:
                        r = (min(max(r, -(1 << 31)), (1 << 31) - 1) + offset[o] + 8) >> 4
                    dy, dx = divmod(o % up**2, up)
                    result[row * up + dy][column * up + dx][o // up**2] = min(max(r, 0), 63 if last else 255)
        image = result
    return image


def tile(payload, width, height, quality_byte, model):
    """Section 3: z and y of one tile, flat, in (channel, row, column) order."""
    columns, rows, z_columns, z_rows = -(-width // 16), -(-height // 16), -(-width // 64), -(-height // 64)
    reader, area = Payload(payload), z_columns * z_rows
    z, tables = [], model["z_tables"]["tables"]
    for first in range(0, len(tables), 255):
        group = {**model["z_tables"], "tables": tables[first : first + 255]}
        z += reader.read([c for c in range(len(group["tables"])) for _ in range(area)], group)
    pixels = [[z[i * z_columns + j :: area] for j in range(z_columns)] for i in range(z_rows)]
    offset = model["offsets"][quality_byte - 2]
    found = scale_indexes(pixels, model["layers"], offset)
    indexes = [found[i][j][c] or 255 for c in range(len(offset)) for i in range(rows) for j in range(columns)]
    y = reader.read(indexes, model["y_tables"])
    reader.finish()
    return z, y


def unpacked_alpha(body, width, height):
    """Section 2.2."""
    if body[0] == 0:
        require(len(body) == 2, "constant alpha")
        return [body[1]] * (width * height)
    require(body[0] == 1, "alpha method")
    inflater = zlib.decompressobj()
    values = list(inflater.decompress(body[1:], width * height + 1))  # zlib.error where it is no zlib stream
    require(len(values) == width * height and inflater.eof and not inflater.unused_data, "alpha size")
    for i in range(width, len(values)):
        values[i] = (values[i] + values[i - width]) % 256
    return values


def decode(data, model):
    """Section 2: fingerprint, width, height, quality, grey, alpha (flat, or None) and (z, y) of each tile."""
    require(data[:3] == b"\x9esd" and len(data) >= 15, "magic")
    require(data[3] >> 4 <= 1, f"version {data[3] >> 4}", Newer)
    require(data[3] >> 4 == 1 and crc32c(data[:-4]) == int.from_bytes(data[-4:], "little"), "version or CRC")
    require(data[3] & 12 == 0, "flag", Newer)
    reader = Bytes(data, 4, len(data) - 4)
    fingerprint, quality, width, height = reader.take(3), reader.number(1), reader.varint(), reader.varint()
    require(2 <= quality <= 200 and 1 <= width <= 65535 and 1 <= height <= 65535, "quality or size")
    t, directory, extended, alpha = 10, [], data[3] & 1, None
    if extended:
        require(reader.number(1) == 0, "critical flag", Newer)
        t, count = reader.number(1), reader.number(1)
        require(6 <= t <= 16 and count <= 64, "tile size or section count")
        for _ in range(count):
            key = reader.varint()
            require(key % 2 == 0 or key == 3, f"section {key >> 1}", Newer)
            directory.append((key >> 1, reader.varint(), reader.number(2)))
    side = 1 << t
    corners = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
    require(extended or len(corners) == 1, "no tile index")
    index = [(reader.end - reader.at, None)]
    if extended:
        index = [(reader.varint(), reader.number(2)) for _ in corners]
        require(crc32c(data[: reader.at]) & 0xFFFF == reader.number(2), "header check")
        for kind, length, check in directory:
            body = reader.take(length)
            require(body and crc32c(body) & 0xFFFF == check, "section check")
            if kind == 1:
                require(alpha is None, "two alpha sections")
                alpha = unpacked_alpha(body, width, height)
    tiles = []
    for (x, y), (length, check) in zip(corners, index, strict=True):
        payload = reader.take(length)
        require(payload and check in (None, crc32c(payload) & 0xFFFF), "tile check")
        tiles.append(tile(payload, min(side, width - x), min(side, height - y), quality, model))
    require(reader.at == reader.end, "bytes left over")
    return fingerprint, width, height, quality / 2, bool(data[3] & 2), alpha, tiles
