"""Pictures per second over Ray Data beside the command line, with one and two workers.

    python benchmarks/ray_rate.py FOLDER

Both compress the pictures of FOLDER and decompress the streams, each in a process of its own, whose start counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

RAY = """
import sys, ray
from sodec.integrations import ray as sodec_ray
ray.init(num_cpus=max(2, int(sys.argv[3])), include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
mode, source, workers, target = sys.argv[1:]
rows = sodec_ray.read(source, streams=mode == "decompress")
sys.exit(len(sodec_ray.errors(getattr(sodec_ray, mode)(rows, to=target, workers=int(workers)))))
"""


def seconds(tool: str, mode: str, source: Path, workers: int, target: Path) -> float:
    """The time of one run."""
    if tool == "ray":
        command = [sys.executable, "-c", RAY, mode, str(source), str(workers), str(target)]
    else:
        command = [sys.executable, "-m", "sodec", mode, str(source), "-r", "-o", str(target), "--quiet"]
        command += ["--workers", str(workers)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=target.parent)
    return time.perf_counter() - start


def main() -> None:
    """Prints a row for each."""
    source = Path(sys.argv[1]).absolute()
    count = sum(path.is_file() for path in source.iterdir())
    with tempfile.TemporaryDirectory() as scratch:
        for mode in ("compress", "decompress"):
            for tool in ("command line", "ray"):
                for workers in (1, 2):
                    target = Path(scratch, f"{mode}-{tool.split()[0]}-{workers}")
                    spent = seconds(tool, mode, source, workers, target)
                    print(f"{mode:<11} {tool:<13} {workers} workers {count / spent:6.2f} pictures/s, {spent:5.1f} s")
            source = Path(scratch, "compress-command-1")


if __name__ == "__main__":
    main()
