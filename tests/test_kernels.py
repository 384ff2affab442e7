"""Each Triton kernel against float64: its error must not be far above PyTorch's in the same dtype.

Run: pytest tests/test_kernels.py. With a GPU the kernels run compiled; without, under Triton's interpreter
(conftest.py switches it on), so shapes have well under 100 programs per launch.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_inputs import DEVICE, DTYPES, OVERWRITING, draw, image, joined, needs_triton, poisoned, rounding
from torch import nn

from sodec.kernels import dispatch, launch, legality, reference
from sodec.models import SD21_TINY, TINY, SodecModel, ops
from sodec.models.prepare import prepare

__all__ = ["poisoned", "rounding"]  # fixtures that every test here uses


def check(name, exact, *args):
    """The kernel's largest error is at most twice that of PyTorch in the same dtype (and an ulp of float32)."""
    plain = joined(getattr(dispatch, name)(*args, choice="torch"))
    out = getattr(dispatch, name)(
        *(a.clone() if name in OVERWRITING and a is args[0] else a for a in args), choice="triton"
    )
    out = joined(out)
    wanted = joined(exact(*(a.double() if isinstance(a, torch.Tensor) else a for a in args)))
    assert out.shape == plain.shape
    assert out.dtype == plain.dtype
    assert out.isfinite().all()
    error, allowed = ((t.double() - wanted).abs().max().item() for t in (out, plain))
    assert error <= 2 * allowed + 1e-6 * wanted.abs().max().item() + 1e-7


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width"), [((1,), 1), ((63,), 40), ((7, 11), 130), ((1000,), 64)])
def test_geglu(rows, width, dtype):
    check("geglu", reference.geglu, draw(*rows, 2 * width, dtype=dtype))


@needs_triton
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups"), [((1, 64, 1, 1), 32), ((2, 40, 9, 7), 4), ((1, 48, 25, 40), 3), ((1, 33, 11, 7), 33)]
)
def test_group_norm_silu(shape, groups, dtype, silu):
    x = draw(*shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = draw(shape[1], dtype=torch.float32, mean=1.0), draw(shape[1], dtype=torch.float32, mean=0.5)
    before = draw(shape[1], dtype=dtype, mean=7.0)
    check("group_norm_silu", reference.group_norm_silu, x, groups, weight, bias, 1e-5, silu, before if silu else None)


@needs_triton
def test_group_norm_silu_far_from_zero():
    x = draw(1, 32, 20, 20, dtype=torch.float32, mean=1000.0).contiguous(memory_format=torch.channels_last)
    one, zero = torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE)
    check("group_norm_silu", reference.group_norm_silu, x, 8, one, zero, 1e-5, True)


@needs_triton
@pytest.mark.parametrize("rows", [1, 96])  # values of a group that one program takes: all three launches, and one
def test_group_norm_silu_of_groups_at_the_limit(rows, monkeypatch):
    config = launch.config
    monkeypatch.setattr(launch, "config", lambda *args: {**config(*args), "WHOLE": 3 * rows, "PROGRAMS": 5})
    x = image(2, 9, 8, 12, dtype=torch.float32, mean=100.0)
    weight, bias, before = (draw(9, dtype=torch.float32, mean=mean) for mean in (1.0, 0.5, -50.0))
    check("group_norm_silu", reference.group_norm_silu, x, 3, weight, bias, 1e-5, True, before)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize(
    ("shape", "given"),
    [((1, 4, 1, 1), ""), ((2, 24, 7, 3), "everywhere residual"),
     ((2, 12, 5, 3), "silu residual"), ((1, 160, 7, 6), "silu"), ((1, 64, 6, 10), "residual noise"),
     ((2, 36, 3, 9), "noise silu")],
)  # fmt: skip
def test_bias_act(shape, given, doubled, dtype):
    batch, channels, height, width = shape
    times = 2 if doubled else 1
    size = (times * height, times * width)
    x, bias = image(*shape, dtype=dtype), draw(channels, dtype=dtype)
    channels //= times**2
    places = (1, 1) if "everywhere" in given else size
    residual = image(batch, channels, *places, dtype=dtype, mean=1.0) if "residual" in given else None
    noise = image(batch, 3, *size, dtype=dtype, mean=0.0) if "noise" in given else None
    weight = draw(channels, 3, dtype=dtype, mean=0.0) if "noise" in given else None
    check("bias_act", reference.bias_act, x, bias, residual, noise, weight, "silu" in given, doubled)


@needs_triton
def test_bias_act_overwrites_what_the_convolution_gave():
    x, bias = image(1, 8, 3, 5, dtype=torch.float32), draw(8, dtype=torch.float32)
    assert dispatch.bias_act(x, bias, choice="triton").data_ptr() == x.data_ptr()
    assert dispatch.bias_act(x, bias, doubled=False, choice="torch").data_ptr() != x.data_ptr()
    doubled = dispatch.bias_act(x, bias, doubled=True, choice="triton")
    assert doubled.shape == (1, 2, 6, 10)
    assert doubled.is_contiguous(memory_format=torch.channels_last)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ["", "silu", "relu"])
@pytest.mark.parametrize(
    ("shape", "pad", "given"),
    [((1, 1, 1, 1), 1, ""), ((2, 40, 5, 3), 0, "before"), ((1, 70, 6, 9), 1, "before residual"),
     ((1, 300, 4, 3), 3, "residual")],
)  # fmt: skip
def test_channel_norm_act(shape, pad, given, act, dtype):
    x = image(*shape, dtype=dtype)
    weight, bias = draw(shape[1], dtype=dtype, mean=1.0), draw(shape[1], dtype=dtype, mean=0.5)
    before = draw(shape[1], dtype=dtype, mean=3.0) if "before" in given else None
    residual = None
    if "residual" in given:  # the middle of a padded one, as D_a of sd21 has it
        residual = image(*shape[:2], shape[2] + 2, shape[3] + 2, dtype=dtype)[:, :, 1:-1, 1:-1]
    check("channel_norm_act", reference.channel_norm_act, x, weight, bias, 1e-3, act, before, residual, pad)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "width", "act", "bias"),
    [((1,), 1, "silu", False), ((2, 77), 40, "", True), ((3, 5, 7), 130, "relu", True), ((9,), 320, "", False)],
)
def test_skip_norm_act(rows, width, act, bias, dtype):
    x, skip = draw(*rows, width, dtype=dtype), draw(*rows, width, dtype=dtype, mean=1.0).flip(0)
    weight, shift = draw(width, dtype=dtype, mean=1.0), draw(width, dtype=dtype, mean=0.5)
    before = draw(width, dtype=dtype, mean=3.0) if bias else None
    check("skip_norm_act", reference.skip_norm_act, x, skip, weight, shift, 1e-5, act, before)


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize(
    ("b", "n", "t", "h", "d"),
    [(1, 1, 1, 1, 32), (2, 63, 7, 2, 40), (1, 77, 77, 3, 64), (1, 1000, 77, 2, 32), (1, 63, 128, 1, 128),
     (1, 130, 17, 1, 24)],
)  # fmt: skip
def test_guided_attention(b, n, t, h, d, dtype):
    q = draw(b, n, h, d, dtype=dtype)
    k, v = draw(b, t, 2, h, d, dtype=dtype).unbind(2)  # slices of a packed product
    check("guided_attention", reference.softmax_attention, q, k, v)


@needs_triton
@pytest.mark.parametrize("config", [TINY, SD21_TINY], ids=lambda config: config.name)
def test_networks_give_the_same_with_all_kernels(config, monkeypatch):
    """Every kernel is used by a network, and a picture is that of PyTorch but for rounding."""
    torch.manual_seed(0)
    model = prepare(SodecModel(config), torch.device(DEVICE), torch.float32).model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # biases and norms start as zeros and ones
                parameter.add_(0.1 * torch.randn_like(parameter))
    sizes = [(1, config.y_channels, 5, 3), (1, config.z_channels, 2, 1)]
    y_hat, z_hat = (torch.randn(size, device=DEVICE) for size in sizes)
    noise = torch.randn(1, config.noise, 20, 12, device=DEVICE) if config.noise else None
    launched = set()
    launch_config = launch.config
    monkeypatch.setattr(launch, "config", lambda name, x: launched.add(name) or launch_config(name, x))

    def decoded(mode):
        monkeypatch.setenv("SODEC_KERNELS", mode)
        with torch.inference_mode():
            return model.decode(y_hat, z_hat, torch.tensor([40.0], device=DEVICE), noise)

    plain = decoded("torch")
    assert not launched
    assert (decoded("triton,guided_attention=torch") - plain).abs().max() < 1e-4  # that one serves no float32
    of_both = {"bias_act", "channel_norm_act"}
    assert launched == (of_both if config.sizes is None else set(dispatch.KERNELS) - {"guided_attention"})


class Adapted(nn.Module):
    """A convolution as LoRA wraps it: it has the weights of the inner one, and gives something else."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.weight, self.bias = inner, inner.weight, inner.bias

    def forward(self, x):
        return 2 * self.inner(x)


@needs_triton
def test_a_layer_that_training_has_wrapped_is_called(monkeypatch):
    monkeypatch.setenv("SODEC_KERNELS", "triton")
    layer = Adapted(nn.Conv2d(4, 4, 3, padding=1).to(DEVICE))
    x, norm = image(1, 4, 5, 6, dtype=torch.float32), nn.GroupNorm(2, 4).to(DEVICE)
    with torch.inference_mode():
        plain = layer(x)
        assert torch.equal(ops.conv(layer, x, residual=x), x + plain)
        wanted = reference.group_norm_silu(plain, 2, norm.weight, norm.bias, norm.eps, True)
        assert torch.allclose(ops.conv_group_norm(layer, x, norm), wanted, atol=1e-6)


@pytest.mark.skipif(not legality.has_triton(), reason="triton is not installed")
def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path):
    """The interpreter takes Python that the compiler refuses, and does not mind how long it would compile."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(Path(__file__).with_name("compiling.py"))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 30
