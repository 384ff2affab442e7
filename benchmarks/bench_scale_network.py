"""The integer scale network on every instruction set here, beside the same network in PyTorch's float32.

pytest benchmarks/bench_scale_network.py

The native ones write planes, as the coder reads them. Nothing passes or fails by time. PyTorch runs on one thread, as
the native network does; it is no replacement, since its sums depend on the machine.
"""

import numpy as np
import pytest

from sodec import _native

SIZES = {"768x512": (8, 12), "a tile of 1024x1024": (16, 16), "odd": (13, 7)}
LAYERS = [(64, 96, 1, 1), (96, 256, 3, 2), (64, 256, 3, 2), (64, 128, 1, 1)]  # of the shipped model
MACS_PER_Z = 64 * 96 + 96 * 256 * 9 + 4 * 64 * 256 * 9 + 16 * 64 * 128
SHIFT = 24


def layers():
    rng = np.random.default_rng(0)
    made = []
    for number, (inputs, outputs, k, upsample) in enumerate(LAYERS):
        spread = 40 * 80 * (inputs * k * k) ** 0.5
        unit = (400 if number == len(LAYERS) - 1 else 100) / spread
        made.append((
            rng.integers(-128, 128, (outputs, k, k, inputs)).astype(np.int8),
            (rng.normal(size=outputs) * spread).astype(np.int32),
            np.full(outputs, round(unit * 2**SHIFT), np.int32), SHIFT, upsample,
        ))  # fmt: skip
    return made


class Torch:
    def __init__(self, made):
        self.torch = pytest.importorskip("torch")
        self.layers = [
            (*(self.torch.from_numpy(array) for array in (
                weights.transpose(0, 3, 1, 2).astype(np.float32), bias.astype(np.float32),
                (multiplier / 2**shift).astype(np.float32)[:, None, None])), upsample)
            for weights, bias, multiplier, shift, upsample in made
        ]  # fmt: skip

    def indexes(self, z, offset):
        F = self.torch.nn.functional
        x = self.torch.from_numpy(z.transpose(2, 0, 1).astype(np.float32))[None].add(128).clamp(0, 255)
        for number, (weights, bias, factor, upsample) in enumerate(self.layers):
            x = (F.conv2d(x, weights, bias, padding="same") * factor + 0.5).floor()
            if number == len(self.layers) - 1:
                x = ((x[0] + self.torch.from_numpy(offset)[:, None, None] + 8) / 16).floor().clamp(0, 63)
                return x.to(self.torch.uint8).permute(1, 2, 0).contiguous().numpy()
            x = x.clamp(0, 255)
            if upsample == 2:
                x = F.pixel_shuffle(x, 2)
        raise AssertionError("no layers")


@pytest.mark.parametrize("kind", [*_native.cpu()["supported"], "PyTorch float32"])
@pytest.mark.parametrize("size", SIZES)
def test_scale_network(benchmark, monkeypatch, size, kind):
    rng = np.random.default_rng(1)
    z = rng.integers(-20, 21, (*SIZES[size], 64)).astype(np.int16)
    offset = rng.integers(-200, 201, 128).astype(np.int32)
    monkeypatch.setenv("SODEC_CPU", "portable")
    right = _native.ScaleNetwork(layers()).indexes(z, offset)
    benchmark.group = f"scale network, {size}"
    if kind == "PyTorch float32":
        made = Torch(layers())
        threads = made.torch.get_num_threads()
        made.torch.set_num_threads(1)
        try:
            found = benchmark(made.indexes, z, offset)
        finally:
            made.torch.set_num_threads(threads)
        assert np.abs(found.astype(int) - right).max() <= 1  # float sums beyond 2^24 are rounded
    else:
        monkeypatch.setenv("SODEC_CPU", kind)
        made = _native.ScaleNetwork(layers())
        np.testing.assert_array_equal(made.indexes(z, offset), right)
        planes = np.where(right == 0, 255, right).transpose(2, 0, 1)
        found = benchmark(made.planes, z.transpose(2, 0, 1).copy(), offset, *right.shape[:2], 255)
        np.testing.assert_array_equal(found, planes)
    if benchmark.stats is not None:
        macs = MACS_PER_Z * SIZES[size][0] * SIZES[size][1]
        benchmark.extra_info["GMAC/s"] = round(macs / benchmark.stats.stats.min / 1e9, 1)
