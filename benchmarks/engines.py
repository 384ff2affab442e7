"""The engines of `lite` on a CPU beside each other: times of one machine, in turns, and how far their pixels differ.

python benchmarks/engines.py [--threads N] [--size 768x512] [PICTURE]
"""

import argparse
import statistics
import time

import numpy as np
from PIL import Image

from sodec.codec import Codec
from sodec.files import PHOTO

RUNS = 9
ENGINES = {"PyTorch, float32": ("torch", "float32"), "PyTorch, bfloat16": ("torch", "bfloat16"),
           "ONNX Runtime, float32": ("onnx", "float32")}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("picture", nargs="?", default=PHOTO)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--size", default="768x512")
    options = parser.parse_args()
    size = tuple(map(int, options.size.split("x")))
    picture = np.asarray(Image.open(options.picture).convert("RGB").resize(size, Image.Resampling.LANCZOS))
    codecs = {
        name: Codec(engine=engine, dtype=dtype, threads=options.threads) for name, (engine, dtype) in ENGINES.items()
    }
    data = next(iter(codecs.values())).compress(picture)
    wanted = next(iter(codecs.values())).decompress(data, output="numpy").astype(int)
    seconds = {(name, what): [] for name in codecs for what in ("decode", "fidelity", "encode")}
    for run in range(RUNS + 1):
        for name, codec in codecs.items():  # in turn, so that a slow minute is everyone's
            for what, call in (
                ("decode", lambda codec: codec.decompress(data, output="numpy")),
                ("fidelity", lambda codec: codec.decompress(data, output="numpy", mode="fidelity")),
                ("encode", lambda codec: codec.compress(picture)),
            ):
                start = time.perf_counter()
                call(codec)
                if run:  # the first allocates
                    seconds[name, what].append(time.perf_counter() - start)
    print(f"{options.size}, {len(data)} bytes; medians of {RUNS}, in ms, and over those of {next(iter(codecs))}")
    for name, codec in codecs.items():
        row = []
        for what in ("decode", "fidelity", "encode"):
            median = statistics.median(seconds[name, what])
            first = statistics.median(seconds[next(iter(codecs)), what])
            row.append(f"{what} {1000 * median:6.0f} ({median / first:.2f})")
        furthest = np.abs(codec.decompress(data, output="numpy") - wanted).max()
        print(f"  {name:<22} {', '.join(row)}, at most {furthest} of 255 away")


if __name__ == "__main__":
    main()
