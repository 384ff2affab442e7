"""What a CPU computes in one pass, against PyTorch's layers.

pytest tests/test_fused.py
"""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import sodec
from sodec import _native
from sodec.bench.roofline import count_flops
from sodec.models import LITE, SodecModel, fused, ops
from sodec.models.blocks import Upsample, conv
from sodec.models.prepare import prepare

CPU = torch.device("cpu")
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if fused.can_fuse(dtype)]
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
    one_pass = fused.FusedConv2d(layer)
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
                found = ops.conv(one_pass, given, residual=other, silu=silu)
                assert found.dtype == dtype
                assert (found - expected).norm() <= TOLERANCE[dtype] * expected.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_upsampling_in_another_order_is_a_pixel_shuffle(dtype):
    torch.manual_seed(0)
    layer = frozen(Upsample(12, 5, 3), dtype)
    noise_layer = frozen(torch.nn.Conv2d(2, 5, 1, bias=False), dtype)
    other = copy.deepcopy(layer)
    other[0] = fused.FusedConv2d(other[0], doubled=True)
    x, residual, noise = (torch.randn(2, *shape).to(dtype) for shape in ((12, 4, 3), (5, 8, 6), (2, 8, 6)))
    with torch.inference_mode():
        for options in ({}, {"silu": True}, {"residual": residual, "noise": noise, "noise_layer": noise_layer}):
            found, expected = (ops.conv(one[0], x, doubled=True, **options) for one in (other, layer))
            assert (found - expected).norm() <= TOLERANCE[dtype] * expected.norm()
        assert (other(x) - layer(x)).norm() <= TOLERANCE[dtype] * layer(x).norm()


@pytest.mark.skipif(not fused.can_fuse_norms(torch.bfloat16), reason="this processor has no AVX-512")
@pytest.mark.parametrize("channels", [1, 16, 17, 40, 80, 160, 255, 256])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (90, 100)])
def test_a_norm_with_its_silu(channels, size):
    norm = frozen(torch.nn.LayerNorm(channels), torch.bfloat16)
    torch.manual_seed(1)
    x = (3 * torch.randn(2, channels, *size) + 1).to(torch.bfloat16)
    x[..., 0, 0] = 7.0  # no variance
    x[0, 0, -1, -1] = 1e4
    expected = F.silu(norm.double()(x.double().permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    one_pass = fused.FusedNorm(norm.to(torch.bfloat16))
    with torch.inference_mode():
        found = ops.channel_norm_silu(x, one_pass)
        threads = torch.get_num_threads()
        try:
            for count in (1, 2, 5):
                torch.set_num_threads(count)
                assert torch.equal(ops.channel_norm_silu(ops.channels_last(x), one_pass), found)
        finally:
            torch.set_num_threads(threads)
    assert found.dtype == torch.bfloat16
    # Half a unit of bfloat16, and what exp and the quotient leave out.
    assert ((found - expected).abs() <= 5e-3 * expected.abs() + 1e-3).all()


def test_broken_arguments_of_the_norm_are_named():
    if not fused.can_fuse_norms(torch.bfloat16):
        pytest.skip("this processor has no AVX-512")
    x, ones = np.zeros((4, 8), np.uint16), np.ones(8, np.float32)
    for given, weight, out, message in (
        (x.astype(np.float32), ones, x.copy(), "bfloat16 as uint16"),
        (x, ones, np.zeros((4, 9), np.uint16), "x and out must be"),
        (x[:, ::2], ones[:4], x[:, :4].copy(), "contiguous"),
        (np.zeros((1, 257), np.uint16), ones, np.zeros((1, 257), np.uint16), r"1 to 256 \(got 257\)"),
        (x, ones[:7], x.copy(), "weight and bias must be"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.channel_norm_silu(given, weight, weight, 1e-5, out, 1)


def test_operations_are_counted_the_same():
    layer = frozen(conv(16, 24), torch.float32)
    one_pass, x = fused.FusedConv2d(layer), torch.randn(1, 16, 5, 3)
    residual = torch.zeros(1, 24, 5, 3)
    plain, ours = (count_flops(partial(ops.conv, one, x, residual=residual)) for one in (layer, one_pass))
    assert ours == plain == 2 * 9 * 16 * 24 * 15


def test_copies_compute_the_same():
    layer = frozen(conv(16, 24), torch.float32)
    one_pass, x = fused.FusedConv2d(layer), torch.randn(1, 16, 5, 3)
    for _ in range(2):  # before and after the weights have been packed
        other = copy.deepcopy(one_pass)
        assert torch.equal(other(x), one_pass(x))
        assert other.bias is not one_pass.bias


def test_without_the_operators_lite_is_plain(monkeypatch):
    monkeypatch.setattr(fused, "_ops", object())
    monkeypatch.setattr(_native, "has_channel_norm", lambda: False)
    assert not fused.can_fuse(torch.float32)
    model = prepare(SodecModel(LITE), CPU, torch.bfloat16).model
    assert not any(isinstance(module, (fused.FusedConv2d, fused.FusedNorm)) for module in model.modules())


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
