"""What tests of the Triton kernels share: where kernels run, buffers that start as NaN, and inputs."""

import math

import numpy as np
import pytest
import torch

from sodec.kernels import legality

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
CAN_RUN = legality.has_triton() and (DEVICE == "cuda" or legality.interpreted())
needs_triton = pytest.mark.skipif(not CAN_RUN, reason="triton is not installed, or not interpreted without a GPU")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every buffer that a launcher asks for starts as NaN, so an element left unwritten shows."""
    monkeypatch.delenv("SODEC_KERNELS", raising=False)
    with torch.device("cpu"):
        torch.empty(0)  # the first such context notes for good which functions it is for, and must not note ours
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *args, _plain=plain, **more: _plain(*args, **more).fill_(math.nan))


@pytest.fixture(autouse=True)
def rounding(monkeypatch):
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


def image(*shape, dtype, mean=-2.3):
    return draw(*shape, dtype=dtype, mean=mean).contiguous(memory_format=torch.channels_last)


OVERWRITING = ("bias_act", "skip_norm_act")  # their first argument


def joined(result):
    return result if isinstance(result, torch.Tensor) else torch.stack(result)


def samples():
    """Arguments of every kernel, by its name."""
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
