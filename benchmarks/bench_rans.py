"""The entropy coder beside CompressAI's, as its models call it: lists made from tensors, one string per picture.

pytest benchmarks/bench_rans.py

Nothing passes or fails by time. `extra_info` has symbols per second (skipped ones count, as the caller has them) and
the size; CompressAI has no SKIP, so it codes those symbols with its narrowest table.
"""

import numpy as np
import pytest

from sodec import entropy

SCALES = [0.12 * (64 / 0.12) ** (i / 63) for i in range(64)]
TABLES = entropy.gaussian_tables(SCALES)

# (symbols, lowest scale index, highest + 1, share that is skipped)
CASES = {
    "picture of 1.6 KB": (128 * 32 * 48, 4, 30, 0.958),  # y of 768x512: most of it is skipped
    "high rate": (128 * 32 * 48, 1, 40, 0.3),
    "all coded": (1_000_003, 0, 64, 0.0),
}


def section(case):
    n, low, high, skipped = CASES[case]
    rng = np.random.default_rng(0)
    indexes = rng.integers(low, high, n).astype(np.uint8)
    symbols = np.rint(rng.normal(size=n) * np.array(SCALES)[indexes]).astype(np.int16)
    gone = rng.random(n) < skipped
    indexes[gone], symbols[gone] = entropy.SKIP, 0
    return symbols, indexes


class Ours:
    def __init__(self, symbols, indexes, lanes=0):
        self.symbols, self.indexes, self.lanes = symbols, indexes, lanes

    def encode(self):
        return entropy.encode(self.symbols, self.indexes, TABLES, lanes=self.lanes)

    def decode(self, data):
        return entropy.decode(data, self.indexes, TABLES)


class CompressAI:
    def __init__(self, symbols, indexes):
        reason = "CompressAI is not installed (extra: train)"
        models = pytest.importorskip("compressai.entropy_models", reason=reason)
        import torch

        self.model = models.GaussianConditional(SCALES)
        self.model.update()
        self.symbols = torch.from_numpy(symbols.astype(np.float32)).reshape(1, -1)
        self.indexes = torch.from_numpy(np.where(indexes == entropy.SKIP, 0, indexes).astype(np.int32)).reshape(1, -1)

    def encode(self):
        return self.model.compress(self.symbols, self.indexes)[0]

    def decode(self, data):
        return self.model.decompress([data], self.indexes)[0].numpy().astype(np.int16)


CODERS = {
    "sodec": Ours,
    "sodec, 1 lane": lambda *arrays: Ours(*arrays, lanes=1),
    "sodec, 64 lanes": lambda *arrays: Ours(*arrays, lanes=64),
    "CompressAI": CompressAI,
}


@pytest.mark.filterwarnings("ignore")  # of CompressAI's and PyTorch's own
@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_coder(benchmark, case, coder, direction):
    symbols, indexes = section(case)
    made = CODERS[coder](symbols, indexes)
    data = made.encode()
    np.testing.assert_array_equal(made.decode(data), symbols)
    benchmark.group = f"{direction}, {case}"
    if direction == "encode":
        assert benchmark(made.encode) == data
    else:
        np.testing.assert_array_equal(benchmark(made.decode, data), symbols)
    benchmark.extra_info |= {"bytes": len(data), "symbols": len(symbols)}
    if benchmark.stats is not None:
        benchmark.extra_info["Msymbols/s"] = round(len(symbols) / benchmark.stats.stats.min / 1e6, 1)
