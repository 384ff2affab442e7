"""What a user waits for: whole processes, from nothing to a written file, by each engine that is installed.

python benchmarks/cold_start.py [PICTURE]
"""

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RUNS = 7


def sodec(*arguments):
    return [sys.executable, "-m", "sodec", *map(str, arguments)]


def main():
    folder = Path(tempfile.mkdtemp(prefix="sodec-cold-"))
    picture, stream, out = folder / "photo.png", folder / "photo.sodec", folder / "out.png"
    if len(sys.argv) > 1:
        Image.open(sys.argv[1]).convert("RGB").save(picture)
    else:
        noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
        Image.fromarray(noise).resize((768, 512), Image.Resampling.BICUBIC).save(picture)
    engines = ["onnx", *["torch"] * (importlib.util.find_spec("torch") is not None)]
    commands = {"python": [sys.executable, "-c", "pass"], "import sodec": [sys.executable, "-c", "import sodec"]}
    for engine in engines:
        module = {"onnx": "onnxruntime"}.get(engine, engine)
        commands |= {
            f"import {module}": [sys.executable, "-c", f"import {module}"],
            f"compress, {engine}": sodec("compress", picture, "-o", stream, "--engine", engine, "--overwrite"),
            f"decompress, {engine}": sodec("decompress", stream, "-o", out, "--engine", engine, "--overwrite"),
        }
    commands["info"] = sodec("info", stream)
    seconds = {name: [] for name in commands}
    for run in range(RUNS + 1):
        for name, command in commands.items():  # in turn, so that a slow minute is everyone's
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
            if run:  # the first fills the file cache
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    width, height = Image.open(picture).size
    print(f"{width}x{height}, {stream.stat().st_size} bytes; medians of {RUNS} processes")
    for name, median in medians.items():
        print(f"  {name:<18} {median:7.3f} s")
    print(f"  import sodec beyond python: {medians['import sodec'] - medians['python']:.3f} s")


if __name__ == "__main__":
    main()
