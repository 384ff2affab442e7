"""Decoding by PyTorch on a CPU, in times of what 100 GFLOP of a plain convolution take in the same minute.

python benchmarks/cpu_decode.py [--size 1920x1080 ...] [--threads 2] [--seconds 10] [--profile]

A time alone says little of a machine that others use too, or of another processor. So decodes and a 3x3 convolution of
128 channels (256x256 positions, of the same dtype) take turns, and the ratio of their medians is what to compare.
`--profile` adds a table of operators.
"""

import argparse
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import sodec
from sodec.files import PHOTO

CHANNELS, SIDE, REPEATS = 128, 256, 3
UNIT = 100e9  # operations, a multiplication and an addition as two


def mirrored(width, height):
    """The bundled photograph, continued by mirroring: uint8 (height, width, 3)."""
    rgb = np.asarray(Image.open(PHOTO).convert("RGB"))
    while rgb.shape[0] < height or rgb.shape[1] < width:
        rgb = np.concatenate([rgb, rgb[::-1]]) if rgb.shape[0] < height else np.concatenate([rgb, rgb[:, ::-1]], 1)
    return np.ascontiguousarray(rgb[:height, :width])


def seconds(call):
    """Of one call, by the clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def convolution(dtype):
    """A function that says how many seconds `UNIT` operations take."""
    x = torch.randn(1, CHANNELS, SIDE, SIDE, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    operations = 2 * weight.numel() * SIDE**2

    @torch.inference_mode()
    def run():
        return seconds(lambda: [F.conv2d(x, weight, padding=1) for _ in range(REPEATS)]) * UNIT / operations / REPEATS

    return run


def measured(call, unit, limit):
    """Seconds of calls and of the unit, in turns; the first of each does not count."""
    call(), unit()
    end, calls, units = time.perf_counter() + limit, [], []
    while time.perf_counter() < end or len(calls) < 3:
        units.append(unit())
        calls.append(seconds(call))
    return calls, units


def profile(call, count=3):
    """Prints the operators that take the most time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        for _ in range(count):
            call()
    rows = sorted(profiled.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    for row in rows[:14]:
        own = row.self_cpu_time_total
        print(f"  {row.key:<36} {own / count / 1000:7.1f} ms  {own / total:5.1%}  {row.count // count:>4} calls")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", nargs="*", default=["768x512", "1920x1080"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    codec = sodec.Codec(engine="torch", threads=options.threads, tile=options.tile)
    unit = convolution(codec.dtype)
    print(f"{codec.bundle.name} {codec.bundle.version}, {codec.dtype}, torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    for size in options.size:
        picture = mirrored(*map(int, size.split("x")))
        data = codec.compress(picture)
        for name, call in {
            "decode": lambda data=data: codec.decompress(data, output="numpy"),
            "encode": lambda picture=picture: codec.compress(picture),
        }.items():
            calls, units = measured(call, unit, options.seconds)
            middle, base = statistics.median(calls), statistics.median(units)
            print(f"{size} {name}: {1000 * middle:.0f} ms (least {1000 * min(calls):.0f}), {middle / base:.2f} times "
                  f"100 GFLOP, which take {1000 * base:.0f} ms; {len(calls)} in turns")  # fmt: skip
        if options.profile:
            profile(lambda data=data: codec.decompress(data, output="numpy"))


if __name__ == "__main__":
    main()
