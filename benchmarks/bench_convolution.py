"""lite's 3x3 convolutions in bfloat16 on a CPU: Winograd's algorithm, oneDNN with what follows, and PyTorch's layers.

pytest benchmarks/bench_convolution.py

Sizes are those of 1920x1080. Nothing passes or fails by time; all must compute the same. Compare within a group, whose
kinds run one after the other, and not between runs.
"""

import pytest
import torch
import torch.nn.functional as F

from sodec import _native
from sodec.models import fused, ops
from sodec.models.blocks import conv

LAYERS = {  # inputs, outputs, height, width, and whether a residual is added; SiLU follows
    "UNet 1/16, second of a block": (160, 160, 68, 120, True),
    "UNet 1/32": (192, 192, 34, 60, False),
    "UNet 1/8": (128, 128, 136, 240, False),
    "D_m to 1/4": (32, 256, 136, 240, False),
    "D_m 1/4": (64, 64, 272, 480, True),
    "D_a 1/8": (80, 80, 136, 240, False),
    "D_a 1/4 to pixels": (40, 48, 272, 480, False),
}
KINDS = {"winograd": fused.WinogradConv2d, "oneDNN": fused.FusedConv2d, "PyTorch": lambda layer: layer}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_convolution(benchmark, name, kind):
    if kind == "winograd" and not _native.has_winograd():
        pytest.skip("this processor has no AVX512-BF16, or has AMX")
    if kind == "oneDNN" and not fused.can_fuse(torch.bfloat16):
        pytest.skip("oneDNN has no bfloat16 here")
    inputs, outputs, height, width, with_residual = LAYERS[name]
    torch.manual_seed(0)
    layer = conv(inputs, outputs).to(memory_format=torch.channels_last).requires_grad_(False)
    x = ops.channels_last(torch.randn(1, inputs, height, width).to(torch.bfloat16))
    residual = ops.channels_last(torch.randn(1, outputs, height, width).to(torch.bfloat16)) if with_residual else None
    expected = layer(x.float())
    expected = F.silu(expected if residual is None else expected + residual)
    one = KINDS[kind](layer) if kind == "winograd" else KINDS[kind](layer.to(torch.bfloat16))

    @torch.inference_mode()
    def run():
        return ops.conv(one, x, residual=residual, silu=True)

    assert (run() - expected).norm() <= 1e-2 * expected.norm()
    benchmark.group = f"{name}, {inputs} to {outputs}"
    benchmark.extra_info["GFLOP of the definition"] = 18e-9 * inputs * outputs * height * width
    benchmark(run)
