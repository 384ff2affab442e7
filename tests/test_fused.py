"""What a CPU computes in one pass, against PyTorch's layers.

pytest tests/test_fused.py
"""

import copy
from concurrent.futures import ThreadPoolExecutor
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
@pytest.mark.parametrize("one_pass", [fused.FusedConv2d, fused.WinogradConv2d])
def test_upsampling_in_another_order_is_a_pixel_shuffle(one_pass, dtype):
    if one_pass is fused.WinogradConv2d and not (dtype == torch.bfloat16 and _native.has_winograd()):
        pytest.skip("it computes in bfloat16, by AVX512-BF16")
    layer = frozen(Upsample(12, 20, 3), dtype)
    noise_layer = frozen(torch.nn.Conv2d(2, 20, 1, bias=False), dtype)
    other = copy.deepcopy(layer)
    other[0] = one_pass(other[0], doubled=True)
    torch.manual_seed(0)
    x, residual, noise = (torch.randn(2, *shape).to(dtype) for shape in ((12, 4, 3), (20, 8, 6), (2, 8, 6)))
    with torch.inference_mode():
        for options in ({}, {"silu": True}, {"residual": residual, "noise": noise, "noise_layer": noise_layer}):
            found, expected = (ops.conv(one[0], x, doubled=True, **options) for one in (other, layer))
            assert (found - expected).norm() <= TOLERANCE[dtype] * expected.norm()
        assert (other(x) - layer(x)).norm() <= TOLERANCE[dtype] * layer(x).norm()


needs_winograd = pytest.mark.skipif(not _native.has_winograd(), reason="this processor has no AVX512-BF16, or has AMX")


@needs_winograd
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 32), (40, 48), (64, 64), (6, 20), (54, 80), (160, 160), (32, 256)])
def test_winograd_convolutions(inputs, outputs, residual, silu):
    layer = frozen(conv(inputs, outputs), torch.float32)
    one_pass = fused.WinogradConv2d(layer)
    # One tile and a part of one, several blocks of 30 of them, pictures of a batch in one block
    for batch, height, width in ((1, 1, 1), (1, 2, 2), (1, 1, 130), (3, 5, 3), (2, 19, 24)):
        torch.manual_seed(height)
        x = torch.randn(batch, inputs, height, width).to(torch.bfloat16)
        other = torch.randn(batch, outputs, height, width).to(torch.bfloat16) if residual else None
        y = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
        y = y + other.double() if residual else y
        expected = F.silu(y) if silu else y
        with torch.inference_mode():
            for given in (x, ops.channels_last(x), F.pad(x, (1, 1, 1, 1))[..., 1:-1, 1:-1]):
                found = ops.conv(one_pass, given, residual=other, silu=silu)
                assert found.dtype == torch.bfloat16
                assert (found - expected).norm() <= TOLERANCE[torch.bfloat16] * expected.norm()


@needs_winograd
@pytest.mark.parametrize("openmp", [True, False])
def test_winograd_convolutions_are_the_same_of_every_number_of_threads(openmp):
    one_pass = fused.WinogradConv2d(frozen(conv(64, 80), torch.float32))
    x = torch.randn(2, 64, 37, 41, generator=torch.manual_seed(0)).to(torch.bfloat16)
    threads = torch.get_num_threads()
    if not openmp:
        _native.use_openmp(0)
    try:
        torch.set_num_threads(1)
        expected = one_pass(x, None, True)
        for count in (2, 3, 16):
            torch.set_num_threads(count)
            assert torch.equal(one_pass(x, None, True), expected)
            with ThreadPoolExecutor(3) as pool:
                assert all(
                    torch.equal(found, expected) for found in pool.map(lambda _: one_pass(x, None, True), range(9))
                )
    finally:
        torch.set_num_threads(threads)
        fused.share_threads()


def test_which_convolutions_winograd_takes(monkeypatch):
    monkeypatch.setattr(_native, "has_winograd", lambda: True)
    bfloat16 = torch.bfloat16
    assert fused.can_transform(conv(40, 48), bfloat16)
    assert not fused.can_transform(conv(40, 48), torch.float32)
    for layer in (
        conv(40, 48, 1), conv(40, 48, 3, 2), conv(41, 48), conv(4, 64), conv(64, 3), conv(64, 112),
        torch.nn.Conv2d(64, 64, 3), torch.nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        torch.nn.Conv2d(64, 64, 3, padding=1, groups=2),
    ):  # fmt: skip
        assert not fused.can_transform(layer, bfloat16)
    monkeypatch.setattr(_native, "has_winograd", lambda: False)
    assert not fused.can_transform(conv(40, 48), bfloat16)


def test_transformed_weights_are_exact_where_bfloat16_is():
    weight = torch.randint(-8, 8, (48, 4, 3, 3), generator=torch.manual_seed(0)).float() * 4
    found = fused.transformed(weight)
    assert found.shape == (1, 16, 2, 48, 2)
    g = torch.tensor([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2.0]]) / 2
    for output, given in ((0, 0), (17, 3), (47, 2)):
        assert torch.equal(
            found[0, :, given // 2, output, given % 2].float().view(4, 4), g @ weight[output, given] @ g.T
        )


@needs_winograd
def test_broken_arguments_of_winograd_are_named():
    x, out = np.zeros((1, 4, 5, 8), np.uint16), np.zeros((1, 4, 5, 32), np.uint16)
    weights, bias = np.zeros((1, 16, 4, 32, 2), np.uint16), np.zeros(32, np.float32)
    good = {"x": x, "weights": weights, "bias": bias, "residual": None, "silu": False, "out": out, "threads": 1}
    for threads in (0, 1):
        written = np.full_like(out, 1)
        _native.winograd(**{**good, "out": written, "threads": threads})
        assert not written.any()
    for name, given, message in (
        ("x", x.astype(np.float32), "x must be bfloat16 as uint16"),
        ("x", x[..., ::2], "x must be bfloat16 as uint16, contiguous"),
        ("x", x[0], "x must be"),
        ("x", x[..., :0].copy(), "x must be"),
        ("x", np.zeros((1, 4, 5, 6), np.uint16), "weights must be"),
        ("weights", weights[:, :15].copy(), "weights must be"),
        ("weights", np.zeros((1, 16, 4, 96, 2), np.uint16), "group must be 2 to 5"),
        ("weights", np.zeros((1, 16, 4, 40, 2), np.uint16), "group must be 2 to 5"),
        ("weights", np.zeros((2, 16, 4, 32, 2), np.uint16), "outputs must be those of the weights"),
        ("out", np.zeros((1, 4, 5, 33), np.uint16), "outputs must be those of the weights"),
        ("out", np.zeros((1, 4, 4, 32), np.uint16), "out must be"),
        ("bias", bias[:31].copy(), "bias must be float32"),
        ("bias", bias.astype(np.float64), "bias must be float32"),
        ("residual", np.zeros((1, 4, 5, 31), np.uint16), "residual must have the shape of out"),
        ("residual", out.astype(np.int16), "residual must be bfloat16 as uint16"),
    ):
        with pytest.raises(ValueError, match=message):
            _native.winograd(**{**good, name: given})
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        _native.winograd(**good)


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
    if _native.has_winograd():
        one_pass = fused.WinogradConv2d(layer)
        assert count_flops(partial(ops.conv, one_pass, x.bfloat16(), residual=residual.bfloat16())) == plain


def test_copies_compute_the_same():
    layer = frozen(conv(16, 24), torch.float32)
    one_pass, x = fused.FusedConv2d(layer), torch.randn(1, 16, 5, 3)
    for _ in range(2):  # before and after the weights have been packed
        other = copy.deepcopy(one_pass)
        assert torch.equal(other(x), one_pass(x))
        assert other.bias is not one_pass.bias
    if _native.has_winograd():
        one_pass = fused.WinogradConv2d(layer)
        assert torch.equal(copy.deepcopy(one_pass)(x.bfloat16()), one_pass(x.bfloat16()))


def test_without_the_operators_lite_is_plain(monkeypatch):
    monkeypatch.setattr(fused, "_ops", object())
    monkeypatch.setattr(_native, "has_channel_norm", lambda: False)
    assert not fused.can_fuse(torch.float32)
    model = prepare(SodecModel(LITE), CPU, torch.bfloat16).model
    assert not any(isinstance(module, (fused.OnePassConv2d, fused.FusedNorm)) for module in model.modules())


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
