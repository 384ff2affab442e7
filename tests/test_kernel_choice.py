"""Which of kernel and PyTorch an operation takes: SODEC_KERNELS, the table of winners, and inputs that are refused."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch
from kernel_inputs import DEVICE, OVERWRITING, image, joined, needs_triton, poisoned, rounding, samples

from sodec.errors import DeviceError
from sodec.kernels import dispatch, launch, legality, reference

__all__ = ["poisoned", "rounding"]  # fixtures that every test here uses


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
