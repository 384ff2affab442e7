"""Convolutions by oneDNN's operators against PyTorch's layers.

pytest tests/test_onednn.py
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sodec
from sodec.bench.roofline import count_flops
from sodec.models import LITE, SodecModel, onednn, ops
from sodec.models.blocks import Upsample, conv
from sodec.models.prepare import prepare

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if onednn.can_fuse(dtype)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 8e-3}  # 8e-3 is two units in the last place of bfloat16

pytestmark = pytest.mark.skipif(not DTYPES, reason="this torch has no oneDNN")


def frozen(layer, dtype):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return layer.to(dtype).to(memory_format=torch.channels_last).requires_grad_(False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("inputs", "outputs", "kernel", "stride"), [(16, 24, 3, 1), (24, 16, 3, 2), (4, 64, 1, 1), (40, 48, 3, 1)]
)
def test_one_pass_computes_what_several_compute(inputs, outputs, kernel, stride, residual, silu, dtype):
    layer = frozen(conv(inputs, outputs, kernel, stride), dtype)
    fused = onednn.FusedConv2d(layer)
    for batch, height, width in ((1, 9, 7), (1, 1, 1), (2, 9, 7), (1, 1, 30), (1, 9, 7)):
        x = torch.randn(batch, inputs, height, width).to(dtype)
        y = layer.double()(x.double())
        other = torch.randn(y.shape).to(dtype) if residual else None
        y = y + other.double() if residual else y
        expected = F.silu(y) if silu else y
        layer.to(dtype)
        with torch.inference_mode():
            # NCHW, channels_last, and a part of something larger
            for given in (x, ops.channels_last(x), F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1]):
                found = ops.conv(fused, given, residual=other, silu=silu)
                assert found.dtype == dtype
                assert (found - expected).norm() <= TOLERANCE[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_upsampling_in_another_order_is_a_pixel_shuffle(dtype):
    torch.manual_seed(0)
    layer = frozen(Upsample(12, 5, 3), dtype)
    noise_layer = frozen(torch.nn.Conv2d(2, 5, 1, bias=False), dtype)
    fused = copy.deepcopy(layer)
    fused[0] = onednn.FusedConv2d(fused[0], doubled=True)
    x, residual, noise = (torch.randn(2, *shape).to(dtype) for shape in ((12, 4, 3), (5, 8, 6), (2, 8, 6)))
    with torch.inference_mode():
        for options in ({}, {"silu": True}, {"residual": residual, "noise": noise, "noise_layer": noise_layer}):
            found, expected = (ops.conv(one[0], x, doubled=True, **options) for one in (fused, layer))
            assert (found - expected).norm() <= TOLERANCE[dtype] * expected.norm()
        assert (fused(x) - layer(x)).norm() <= TOLERANCE[dtype] * layer(x).norm()


def test_operations_are_counted_the_same():
    layer = frozen(conv(16, 24), torch.float32)
    fused, x = onednn.FusedConv2d(layer), torch.randn(1, 16, 5, 3)
    residual = torch.zeros(1, 24, 5, 3)
    plain, ours = (count_flops(partial(ops.conv, one, x, residual=residual)) for one in (layer, fused))
    assert ours == plain == 2 * 9 * 16 * 24 * 15


def test_without_the_operators_lite_is_plain(monkeypatch):
    monkeypatch.setattr(onednn, "_ops", object())
    assert not onednn.can_fuse(torch.float32)
    model = prepare(SodecModel(LITE), CPU, torch.float32).model
    assert not any(isinstance(module, onednn.FusedConv2d) for module in model.modules())


def test_pictures_do_not_depend_on_what_was_decoded_before():
    """Weights are reordered for each size: a stale order would give another picture."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in ((64, 80, 3), (37, 150, 3), (16, 16, 3))]
    codec = sodec.Codec(threads=1)
    streams = [codec.compress(picture, 50) for picture in pictures]
    first = [sodec.Codec(threads=1).decompress(data, output="numpy") for data in streams]
    for order in ((0, 1, 2), (2, 0, 1)):
        for number in order:
            np.testing.assert_array_equal(codec.decompress(streams[number], output="numpy"), first[number])
