"""The codec, bytes in and pixels out, and every stage of decoding, beside plain PyTorch: float32, contiguous memory.

pytest benchmarks/bench_codec.py

Nothing passes or fails by time. `sodec bench` prints the same stages beside their floors, and the ratios.
"""

import numpy as np
import pytest
import torch

import sodec
from sodec.bench import stages
from sodec.bench.machine import describe
from sodec.bench.rivals import plain
from sodec.bench.scene import scene

SIZES = {"512x512": (512, 512), "768x512": (768, 512), "1237x811": (1237, 811)}
CODECS = {"sodec": lambda codec: codec, "plain PyTorch": plain}


@pytest.fixture(scope="module", params=CODECS)
def codec(request):
    return CODECS[request.param](sodec.Codec())


def note(benchmark, codec):
    benchmark.extra_info |= {"machine": str(describe(codec.device, codec.dtype))}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", ["encode", "decode", "decode, fidelity picture alone"])
def test_codec(benchmark, codec, direction, size):
    picture = scene(*SIZES[size])
    data = codec.compress(picture, 50)
    assert codec.decompress(data, output="numpy").shape == picture.shape
    benchmark.group = f"{direction}, {size}"
    if direction == "encode":
        assert benchmark(codec.compress, picture, 50) == data
    else:
        mode = "full" if direction == "decode" else "fidelity"
        benchmark(codec.decompress, data, output="numpy", mode=mode)
    note(benchmark, codec)


@pytest.mark.parametrize("size", ["512x512", "768x512"])
@pytest.mark.parametrize("name", stages.NAMES)
def test_stage(benchmark, codec, name, size):
    data = codec.compress(scene(*SIZES[size]), 50)
    stage = stages.Dissection(codec, data).stage(name)
    before = stage.call()
    benchmark.group = f"{name}, {size}"
    after = benchmark(stage.call)
    for a, b in zip(before, after, strict=True):
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b)
        else:
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    note(benchmark, codec)
