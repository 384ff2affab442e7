"""Each Triton kernel against float64: its error must not be far above PyTorch's in the same dtype.

Run: pytest tests/test_kernels.py. With a GPU the kernels run compiled; without, under Triton's interpreter
(conftest.py switches it on), so shapes have well under 100 programs per launch.
"""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sodec.errors import DeviceError
from sodec.kernels import dispatch, launch, legality, reference
from sodec.models import SD21_TINY, TINY, SodecModel, ops
from sodec.models.prepare import prepare

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CAN_RUN = legality.has_triton() and (DEVICE == "cuda" or legality.interpreted())
needs_triton = pytest.mark.skipif(not CAN_RUN, reason="triton is not installed, or not interpreted without a GPU")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """Every buffer that a launcher asks for starts as NaN, so an element left unwritten shows."""
    monkeypatch.delenv("SODEC_KERNELS", raising=False)
    with torch.device("cpu"):
        torch.empty(0)  # the first such context notes for good which functions it is for, and must not note ours
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, _plain=plain, **more: _plain(*args, **more).fill_(math.nan))


@pytest.fixture(autouse=True)
def _rounding(monkeypatch):
    """The interpreter truncates float32 to bfloat16 where a GPU rounds to nearest, which alone would double the
    error. So these conversions are PyTorch's here; all others stay the interpreter's."""
    if not (CAN_RUN and legality.interpreted()):
        return
    import triton.language as tl
    from triton.runtime import interpreter

    theirs = interpreter._convert_float

    def convert(data, source, target, mode):
        if (source, target) == (tl.float32, tl.bfloat16):
            return torch.tensor(np.asarray(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)
        if (source, target) == (tl.bfloat16, tl.float32):
            return (np.asarray(data).astype(np.uint32) << 16).view(np.float32)
        return theirs(data, source, target, mode)

    monkeypatch.setattr(interpreter, "_convert_float", convert)


def draw(*shape, dtype, mean=-2.3):
    """Random values far from zero mean, where careless sums of squares cancel."""
    generator = torch.Generator().manual_seed(math.prod(shape))
    return (torch.randn(shape, generator=generator) + mean).to(DEVICE, dtype)


OVERWRITING = ("bias_act", "skip_norm_act")  # their first argument


def joined(result):
    return result if isinstance(result, torch.Tensor) else torch.stack(result)


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


def image(*shape, dtype, mean=-2.3):
    return draw(*shape, dtype=dtype, mean=mean).contiguous(memory_format=torch.channels_last)


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


def samples():
    """One input for every kernel."""
    x = draw(1, 8, 5, 3, dtype=torch.float16).contiguous(memory_format=torch.channels_last)
    ones = torch.ones(8, device=DEVICE, dtype=torch.float16)
    q = draw(1, 5, 2, 16, dtype=torch.float16)
    of_group, of_channels = (x, 2, ones, ones, 1e-5, True, ones), (x, ones, ones, 1e-5, "silu", ones, x, 1)
    return {
        "bias_act": (x.clone(), ones, x, None, None, True, False),
        "channel_norm_act": of_channels,
        "geglu": (draw(3, 10, dtype=torch.float16),),
        "group_norm_silu": of_group,
        "skip_norm_act": (
            draw(5, 8, dtype=torch.float16),
            draw(5, 8, dtype=torch.float16, mean=1.0),
            *of_channels[1:6],
        ),
        "guided_attention": (q, q[:, :3], q[:, :3]),
    }


@needs_triton
@pytest.mark.parametrize("name", [*dispatch.KERNELS[1:-1], "skip_norm_act_", "bias_act_", "bias_act_doubled"])
def test_operator_is_registered_with_its_fake(name, monkeypatch):
    monkeypatch.undo()  # opcheck compares buffers of its own
    given = samples()
    x, bias = given["bias_act"][:2]
    given |= {
        "bias_act_": (x, bias, None, x + 1, bias[:, None].repeat(1, 8), True),
        "bias_act_doubled": (x, bias, *[None] * 3, True),
    }
    given["skip_norm_act_"] = given["skip_norm_act"]
    importlib.import_module(f"sodec.kernels.{'bias_act' if name.startswith('bias') else name.rstrip('_')}")
    torch.library.opcheck(getattr(torch.ops.sodec, name).default, given[name])


@pytest.mark.parametrize("name", dispatch.KERNELS)
def test_automatic_is_pytorch_unless_a_kernel_has_won(name, monkeypatch):
    args = samples()[name]
    plain = joined(getattr(reference, name)(*args))
    monkeypatch.setattr(launch, "config", lambda *_: pytest.fail("a kernel was launched"))
    assert torch.equal(joined(getattr(dispatch, name)(*args)), plain)


@needs_triton
@pytest.mark.parametrize("name", dispatch.KERNELS)
def test_a_winner_is_used_and_one_setting_switches_it_off(name, monkeypatch):
    launched = []
    config = launch.config
    monkeypatch.setattr(launch, "won", lambda *_: True)
    monkeypatch.setattr(launch, "config", lambda name, x: launched.append(name) or config(name, x))
    args = samples()[name]
    getattr(dispatch, name)(*args)
    assert launched == [name]
    monkeypatch.setenv("SODEC_KERNELS", f"{name}=torch")
    getattr(dispatch, name)(*args)
    assert launched == [name]
    # An input that the kernel does not serve goes to PyTorch, since nobody asked for the kernel by name.
    monkeypatch.delenv("SODEC_KERNELS")
    getattr(dispatch, name)(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))
    assert launched == [name]


def refused(name, **changed):
    """Arguments of a kernel, some of them others."""
    order = {
        E: ("x", "bias", "residual", "noise", "weight", "silu", "doubled"),
        C: ("x", "weight", "bias", "eps", "act", "before", "residual", "pad"),
        G: ("x", "groups", "weight", "bias", "eps", "silu", "before"),
    }[name]
    return lambda s: [changed.get(key, value) for key, value in zip(order, s[name], strict=True)]


E, C, G, A, S = "bias_act", "channel_norm_act", "group_norm_silu", "guided_attention", "skip_norm_act"
FOUR = torch.ones(4, device=DEVICE)
REFUSED = {
    "dtype torch.float64": ("geglu", lambda s: [s["geglu"][0].double()]),
    "is not even": ("geglu", lambda s: [s["geglu"][0][:, :9]]),
    "not contiguous": ("geglu", lambda s: [s["geglu"][0][:, :8]]),
    "no elements": ("geglu", lambda s: [s["geglu"][0][:0]]),
    "requires a gradient": ("geglu", lambda s: [s["geglu"][0].clone().requires_grad_()]),
    "3 groups do not divide 8 channels": (G, refused(G, groups=3)),
    "channels_last": (G, lambda s: [s[G][0].contiguous(), *s[G][1:]]),
    r"weight \(4,\) is not \(8,\)": (G, refused(G, weight=FOUR)),
    r"before \(4,\) is not \(8,\)": (G, refused(G, before=FOUR)),
    r"bias \(4,\) is not \(8,\)": (E, refused(E, bias=FOUR)),
    r"residual \(1, 8, 5, 4\) is not \(1, 8, 5, 3\)": (E, refused(E, residual=torch.ones(1, 8, 5, 4, device=DEVICE))),
    "noise and its weight come together": (E, refused(E, weight=FOUR)),
    "is not of up to 16 channels": (
        E,
        lambda s: refused(E, noise=image(1, 17, 5, 3, dtype=torch.half), weight=FOUR)(s),
    ),
    r"weight \(4,\) of the noise": (E, lambda s: refused(E, noise=s[E][0], weight=FOUR)(s)),
    r"residual \(1, 4, 5, 3\), strides": (C, refused(C, residual=torch.ones(1, 4, 5, 3, device=DEVICE))),
    "are not alike and contiguous": (S, lambda s: [s[S][0], s[S][1][:4], *s[S][2:]]),
    "8192 channels, at most 4096": (C, lambda s: [image(1, 8192, 1, 1, dtype=torch.half), *s[C][1:]]),
    "shapes do not match": (A, lambda s: [s[A][0], s[A][1][..., :8], s[A][2][..., :8]]),
    "0 tokens, must be 1 to 128": (A, lambda s: [s[A][0], *[s[A][1][:, :0]] * 2]),
    "129 tokens, must be 1 to 128": (A, lambda s: [s[A][0], *[s[A][1][:, :1].repeat(1, 129, 1, 1)] * 2]),
    "different dtypes": (A, lambda s: [s[A][0].bfloat16(), *s[A][1:]]),
    "float32 is not one of": (A, lambda s: [t.float() for t in s[A]]),
    "129 channels per head": (A, lambda s: [torch.ones(1, 2, 1, 129, device=DEVICE).half()] * 3),
    "not side by side": (A, lambda s: [t.transpose(2, 3) for t in s[A]]),
}


@needs_triton
@pytest.mark.parametrize("reason", REFUSED)
def test_an_explicit_choice_that_cannot_be_served_raises(reason):
    name, spoil = REFUSED[reason]
    args = spoil(samples())
    with pytest.raises(DeviceError, match=f"kernel {name}: .*{reason}"):
        getattr(dispatch, name)(*args, choice="triton")
    # The operator itself is as careful. (Autograd's wrapper hides the gradient from it.)
    if reason != "requires a gradient":
        args = args[:-1] if name == "bias_act" else args
        name += "_" if name in OVERWRITING else ""
        with pytest.raises(DeviceError, match=reason):
            getattr(torch.ops.sodec, name)(*args)


def test_without_triton_or_a_gpu(monkeypatch):
    x = torch.ones(2, 4)
    monkeypatch.setenv("SODEC_KERNELS", "triton")
    monkeypatch.setattr(legality, "has_triton", lambda: False)
    with pytest.raises(DeviceError, match="triton is not installed"):
        dispatch.geglu(x)
    monkeypatch.setattr(legality, "has_triton", lambda: True)
    monkeypatch.setattr(legality, "interpreted", lambda: False)
    with pytest.raises(DeviceError, match="needs a CUDA device, the input is on cpu"):
        dispatch.geglu(x)
    assert torch.equal(dispatch.geglu(x, choice="auto"), reference.geglu(x))


def test_settings():
    assert set(dispatch.parse("").values()) == {"auto"}
    assert set(dispatch.parse("torch").values()) == {"torch"}
    modes = dispatch.parse("geglu=torch, triton")
    assert modes.pop("geglu") == "torch"
    assert set(modes.values()) == {"triton"}
    for wrong in ("cuda", "geglu", "geglu=on", "gelu=torch", "=torch"):
        with pytest.raises(DeviceError, match="SODEC_KERNELS"):
            dispatch.parse(wrong)
    with pytest.raises(DeviceError, match=r"choice must be one of auto, triton, torch \(got 'fast'\)"):
        dispatch.geglu(torch.ones(2, 4), choice="fast")


def test_some_kernels_win_only_where_launches_are_replayed(monkeypatch):
    monkeypatch.setattr(launch, "architecture", lambda _: "sm90")
    device = torch.device("cpu")

    def winners():
        return [name for name in dispatch.KERNELS if launch.won(name, device, dispatch._in_graphs.get())]

    assert winners() == ["group_norm_silu"]
    with dispatch.in_graphs():
        assert winners() == ["bias_act", "channel_norm_act", "geglu", "group_norm_silu", "guided_attention"]
    assert winners() == ["group_norm_silu"]


def test_launch_configurations(monkeypatch):
    content = launch.table()
    assert {"sm80", "sm90", "default", "interpreter"} == set(content["configs"])
    for section in content["configs"].values():
        assert set(section) == set(dispatch.KERNELS)
        for name, by_width in section.items():
            assert set(by_width) == ({"16"} if name == "guided_attention" else {"16", "32"})
            for config in by_width.values():
                tiles = [size for key, size in config.items() if key.isupper() and key != "PROGRAMS"]
                assert all(size & (size - 1) == 0 for size in tiles)
    monkeypatch.setattr(launch, "architecture", lambda _: "sm75000")
    assert launch.config("geglu", torch.ones(1)) == content["configs"]["default"]["geglu"]["32"]
    monkeypatch.setattr(launch, "VERSION", -1)
    launch.table.cache_clear()
    with pytest.raises(DeviceError, match="version"):
        launch.table()


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


def test_importing_the_package_loads_neither_torch_nor_triton(tmp_path):
    code = "import json, sys, sodec.kernels; print(json.dumps([m for m in ('torch', 'triton') if m in sys.modules]))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path)) == []
    code = ("import json, sys, torch; from sodec.kernels import dispatch; dispatch.geglu(torch.ones(2, 4)); "
            "print(json.dumps(['triton' in sys.modules, torch.cuda.is_initialized()]))")  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if k != "SODEC_KERNELS"}
    assert json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, env=environment)) == [
        False,
        False,
    ]
