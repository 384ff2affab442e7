"""The entropy coder on every instruction set beside CompressAI's and constriction's, at three rates, warm and cold.

pytest benchmarks/bench_rans.py

Nothing passes or fails by time. The summary has millions of symbols a second (skipped ones count, as the caller has
them), how many times faster the first line of each group is, and the size over the entropy. On a machine that does
other work too, `--benchmark-timer=time.thread_time` leaves out the time that others had.

- CompressAI "as called": from tensors to strings and back as its models do, lists made on the way. "prepared": its
  coder alone, given lists. It has no SKIP and codes those symbols with its narrowest table.
- constriction: its ANS coder with Gaussians computed as it goes, which is how its users code latents.
- cold: 96 MB of other data are touched before each round.
"""

import functools
import math

import numpy as np
import pytest

from sodec import _native, entropy

SCALES = [0.12 * (64 / 0.12) ** (i / 63) for i in range(64)]
TABLES = entropy.gaussian_tables(SCALES)

# (symbols, lowest scale index, highest + 1, share that is skipped)
CASES = {
    "0.035 bit": (1_300_003, 0, 6, 0.0),
    "0.25 bit": (1_300_003, 0, 12, 0.0),
    "0.9 bit": (1_300_003, 0, 24, 0.0),
    "a picture, most of it skipped": (128 * 32 * 48, 4, 30, 0.975),  # y of 768x512
}
VARIANTS = _native.cpu()["supported"][::-1]
OTHER_DATA = np.zeros(96 << 20, np.uint8)


@functools.cache
def section(case):
    n, low, high, skipped = CASES[case]
    rng = np.random.default_rng(0)
    indexes = rng.integers(low, high, n).astype(np.uint8)
    symbols = np.rint(rng.normal(size=n) * np.array(SCALES)[indexes]).astype(np.int16)
    gone = rng.random(n) < skipped
    indexes[gone], symbols[gone] = entropy.SKIP, 0
    return symbols, indexes


@functools.cache
def entropy_of(case):
    """Bytes at the exact probabilities of the rounded Gaussians."""
    symbols, indexes = section(case)
    coded = indexes != entropy.SKIP
    values, counts = np.unique(np.stack([np.abs(symbols[coded]), indexes[coded]]), axis=1, return_counts=True)
    bits = 0.0
    for value, index, count in zip(*values, counts, strict=True):
        unit = SCALES[index] * math.sqrt(2)
        bits -= count * math.log2((math.erfc((value - 0.5) / unit) - math.erfc((value + 0.5) / unit)) / 2)
    return bits / 8


class Ours:
    def __init__(self, symbols, indexes, monkeypatch, variant):
        monkeypatch.setenv("SODEC_CPU", variant)
        self.symbols, self.indexes = symbols, indexes

    def encode(self):
        return entropy.encode(self.symbols, self.indexes, TABLES)

    def decode(self, data):
        return entropy.decode(data, self.indexes, TABLES)


class CompressAI:
    def __init__(self, symbols, indexes, monkeypatch, variant):
        models = pytest.importorskip("compressai.entropy_models", reason="CompressAI is not installed (extra: train)")
        import torch

        self.model = models.GaussianConditional(SCALES)
        self.model.update()
        self.symbols = torch.from_numpy(symbols.astype(np.float32)).reshape(1, -1)
        self.indexes = torch.from_numpy(np.where(indexes == entropy.SKIP, 0, indexes).astype(np.int32)).reshape(1, -1)

    def encode(self):
        return self.model.compress(self.symbols, self.indexes)[0]

    def decode(self, data):
        return self.model.decompress([data], self.indexes)[0].numpy().astype(np.int16)


class CompressAIPrepared(CompressAI):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lists = [x[0].int().tolist() for x in (self.symbols, self.indexes)]
        self.tables = [
            x.tolist() for x in (self.model._quantized_cdf, self.model._cdf_length.int(), self.model._offset.int())
        ]

    def encode(self):
        return self.model.entropy_coder.encode_with_indexes(*self.lists, *self.tables)

    def decode(self, data):
        return self.model.entropy_coder.decode_with_indexes(data, self.lists[1], *self.tables)


class Constriction:
    def __init__(self, symbols, indexes, monkeypatch, variant):
        self.module = pytest.importorskip("constriction", reason="constriction is not installed")
        self.model = self.module.stream.model.QuantizedGaussian(-1000, 1000)
        self.coded, self.n = indexes != entropy.SKIP, len(symbols)
        self.symbols = symbols[self.coded].astype(np.int32)
        self.scales = np.array(SCALES)[indexes[self.coded]]
        self.means = np.zeros(len(self.scales))

    def encode(self):
        coder = self.module.stream.stack.AnsCoder()
        coder.encode_reverse(self.symbols, self.model, self.means, self.scales)
        return coder.get_compressed().tobytes()

    def decode(self, data):
        coder = self.module.stream.stack.AnsCoder(np.frombuffer(data, np.uint32))
        values = np.zeros(self.n, np.int16)
        values[self.coded] = coder.decode(self.model, self.means, self.scales)
        return values


CODERS = {
    **{f"sodec {variant}": (Ours, variant) for variant in VARIANTS},
    "CompressAI, prepared": (CompressAIPrepared, None),
    "CompressAI, as called": (CompressAI, None),
    "constriction": (Constriction, None),
}


def flush():
    OTHER_DATA[::64] += 1


@pytest.mark.filterwarnings("ignore")  # of CompressAI's and PyTorch's own
@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize("direction", ["decode", "encode"])
@pytest.mark.parametrize("case", CASES)
def test_coder(benchmark, note_speed, monkeypatch, case, direction, cache, coder):
    symbols, indexes = section(case)
    kind, variant = CODERS[coder]
    made = kind(symbols, indexes, monkeypatch, variant)
    data = made.encode()
    np.testing.assert_array_equal(made.decode(data), symbols)
    benchmark.group = f"{case}, {direction}, {cache}"
    work, given = (made.encode, ()) if direction == "encode" else (made.decode, (data,))
    # Cold, pytest-benchmark must be given the arguments by the setup, which it runs before every round.
    setup = (lambda: flush() or (given, {})) if cache == "cold" else None
    rounds = 12 if kind is Ours else 3
    result = benchmark.pedantic(work, args=() if setup else given, setup=setup, rounds=rounds, warmup_rounds=not setup)
    if direction == "encode":
        assert result == data
    else:
        np.testing.assert_array_equal(result, symbols)
    benchmark.extra_info |= {"bytes": len(data), "symbols": len(symbols)}
    if benchmark.stats is not None:
        speed = len(symbols) / benchmark.stats.stats.min / 1e6
        over = len(data) / entropy_of(case) - 1
        benchmark.extra_info["Msymbols/s"] = round(speed, 1)
        note_speed(benchmark.group, coder, speed, f"{len(data)} bytes, {100 * over:+.2f} % to the entropy")
