"""Compiles the Triton kernels for a GPU that is not there: `python compiling.py` prints how many programs it made.

Triton asks its driver only what to compile for, so a driver of three answers will do. Nothing is launched. For
test_kernels.py; a process of its own, since Triton decides when it is imported whether it interprets.
"""

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from sodec.kernels import dispatch, launch, legality


class Hopper:
    """Stands for a GPU of compute capability 9.0."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def main():
    driver.set_active(Hopper())
    legality._common = lambda *tensors: None
    launch.architecture = lambda device: "sm90"
    compiled = []
    run = JITFunction.run

    def compile_only(self, *args, grid, warmup, **options):
        compiled.append(run(self, *args, grid=grid, warmup=True, **options).hash)

    JITFunction.run = compile_only
    calls()
    print(len(set(compiled)))


def calls(dtype=torch.bfloat16):
    """Every kernel, with all that it can be given and without."""

    def image(channels, height=16, width=16):
        return torch.ones(1, channels, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last)

    def vector(size):
        return torch.ones(size, dtype=dtype)

    for channels in (40, 320, 33):
        x, c = image(channels), vector(channels)
        dispatch.bias_act(x, c, None, silu=True, choice="triton")
        dispatch.bias_act(x, c, x, image(4), torch.ones(channels, 4, dtype=dtype), choice="triton")
        dispatch.bias_act(x, c, image(channels, 1, 1), choice="triton")
        dispatch.bias_act(image(4 * channels, 8, 8), vector(4 * channels), x, doubled=True, choice="triton")
        dispatch.channel_norm_act(x, c, c, 1e-5, "silu", choice="triton")
        dispatch.channel_norm_act(x, c, c, 1e-5, "relu", c, x, 3, choice="triton")
        rows = torch.ones(16, channels, dtype=dtype)
        dispatch.skip_norm_act(rows, rows, c, c, 1e-5, choice="triton")
        dispatch.skip_norm_act(rows, rows, c, c, 1e-5, "silu", c, choice="triton")
    for channels, groups, side in ((1280, 32, 16), (320, 32, 64), (66, 2, 128)):
        x, c = image(channels, side, side), vector(channels)
        dispatch.group_norm_silu(x, groups, c, c, 1e-5, True, None, choice="triton")
        dispatch.group_norm_silu(x, groups, c, c, 1e-5, False, c, choice="triton")
    dispatch.geglu(torch.ones(16, 2560, dtype=dtype), choice="triton")
    q = torch.ones(1, 64, 2, 64, dtype=dtype)
    dispatch.guided_attention(q, q, q, choice="triton")


if __name__ == "__main__":
    main()
