"""The codec, bytes in and pixels out, beside the same network as plain PyTorch runs it: float32, contiguous memory.

pytest benchmarks/bench_codec.py

Nothing passes or fails by time. `extra_info` has the seconds of each stage of the last call.
"""

import numpy as np
import pytest
import torch

import sodec

SIZES = {"512x512": (512, 512), "768x512": (768, 512), "1237x811": (1237, 811)}
CODECS = {"sodec": {}, "plain PyTorch": {"dtype": "float32"}}


@pytest.fixture(scope="module", params=CODECS)
def codec(request):
    made = sodec.Codec(**CODECS[request.param])
    if request.param == "plain PyTorch":
        made.model.to(memory_format=torch.contiguous_format)
    return made


def photo(width, height):
    """Blurred noise of several scales: the networks do not care, the coder gets something to code."""
    rng = np.random.default_rng(0)
    picture = np.zeros((height, width, 3))
    for cell in (4, 32, 128):
        noise = rng.normal(0, 40, (-(-height // cell), -(-width // cell), 3))
        picture += np.repeat(np.repeat(noise, cell, 0), cell, 1)[:height, :width]
    return np.clip(picture + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", ["encode", "decode", "decode, fidelity picture alone"])
def test_codec(benchmark, codec, direction, size):
    picture = photo(*SIZES[size])
    data = codec.compress(picture, 50)
    assert codec.decompress(data, output="numpy").shape == picture.shape
    benchmark.group = f"{direction}, {size}"
    if direction == "encode":
        assert benchmark(codec.compress, picture, 50) == data
    else:
        mode = "full" if direction == "decode" else "fidelity"
        benchmark(codec.decompress, data, output="numpy", mode=mode)
    benchmark.extra_info |= {"dtype": str(codec.dtype), "threads": torch.get_num_threads()}
    benchmark.extra_info |= {f"{name} ms": round(1000 * seconds, 2) for name, seconds in codec.times.items()}
