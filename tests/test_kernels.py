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

import numpy as np
import pytest
import torch

from sodec.errors import DeviceError
from sodec.kernels import dispatch, launch, legality, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CAN_RUN = legality.has_triton() and (DEVICE == "cuda" or legality.interpreted())
needs_triton = pytest.mark.skipif(not CAN_RUN, reason="triton is not installed, or not interpreted without a GPU")


@pytest.fixture(autouse=True)
def _poisoned(monkeypatch):
    """Every buffer that a launcher asks for starts as NaN, so an element left unwritten shows."""
    monkeypatch.delenv("SODEC_KERNELS", raising=False)
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


def check(name, exact, *args):
    """The kernel's largest error is at most twice that of PyTorch in the same dtype (and an ulp of float32)."""
    out = getattr(dispatch, name)(*args, choice="triton")
    plain = getattr(dispatch, name)(*args, choice="torch")
    wanted = exact(*(a.double() if isinstance(a, torch.Tensor) else a for a in args))
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
    check("group_norm_silu", reference.group_norm_silu, x, groups, weight, bias, 1e-5, silu)


@needs_triton
def test_group_norm_silu_far_from_zero():
    x = draw(1, 32, 20, 20, dtype=torch.float32, mean=1000.0).contiguous(memory_format=torch.channels_last)
    one, zero = torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE)
    check("group_norm_silu", reference.group_norm_silu, x, 8, one, zero, 1e-5, True)


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
    return {
        "geglu": (draw(3, 10, dtype=torch.float16),),
        "group_norm_silu": (x, 2, ones, ones, 1e-5, True),
        "guided_attention": (q, q[:, :3], q[:, :3]),
    }


@needs_triton
@pytest.mark.parametrize("name", dispatch.KERNELS)
def test_operator_is_registered_with_its_fake(name, monkeypatch):
    monkeypatch.undo()  # opcheck compares buffers of its own
    operator = getattr(importlib.import_module(f"sodec.kernels.{name}"), name)
    torch.library.opcheck(operator, samples()[name])


@pytest.mark.parametrize("name", dispatch.KERNELS)
def test_automatic_is_pytorch_unless_a_kernel_has_won(name, monkeypatch):
    args = samples()[name]
    plain = getattr(reference, name)(*args)
    monkeypatch.setattr(launch, "config", lambda *_: pytest.fail("a kernel was launched"))
    assert torch.equal(getattr(dispatch, name)(*args), plain)


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


G, A = "group_norm_silu", "guided_attention"
REFUSED = {
    "dtype torch.float64": ("geglu", lambda s: [s["geglu"][0].double()]),
    "is not even": ("geglu", lambda s: [s["geglu"][0][:, :9]]),
    "not contiguous": ("geglu", lambda s: [s["geglu"][0][:, :8]]),
    "no elements": ("geglu", lambda s: [s["geglu"][0][:0]]),
    "requires a gradient": ("geglu", lambda s: [s["geglu"][0].clone().requires_grad_()]),
    "3 groups do not divide 8 channels": (G, lambda s: [s[G][0], 3, *s[G][2:4]]),
    "channels_last": (G, lambda s: [s[G][0].contiguous(), *s[G][1:4]]),
    r"are not \(8,\)": (G, lambda s: [s[G][0], 2, *[torch.ones(4, device=DEVICE)] * 2]),
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
    if name == "group_norm_silu":
        args = [*args, 1e-5, True]
    # The operator itself is as careful. (Autograd's wrapper hides the gradient from it.)
    if reason != "requires a gradient":
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
        assert winners() == list(dispatch.KERNELS)
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
