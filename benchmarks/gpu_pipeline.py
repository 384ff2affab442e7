"""What surrounds the networks of `lite` on a GPU, checked and timed: graphs, batches, windows, encoding. In 35 seconds.

    python benchmarks/gpu_pipeline.py --out FOLDER [--seconds 35] [--rehearse]

Checks come first: pictures of graphs against those without, of batches against single ones, of regions against crops.
Then medians of bytes to a NumPy array of uint8, and back; stages; pictures per second by size of the batch; where the
processor's time goes. Prints tables, writes `pipeline.json` after each part, and ends with 1 where a check or a part
failed. `--rehearse` runs all of it on the CPU at tiny sizes, where nothing is captured and times mean nothing.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import argparse  # noqa: E402
import cProfile  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import pstats  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

import sodec  # noqa: E402
from sodec.bench.clock import Deadline, measure  # noqa: E402
from sodec.bench.machine import describe, scene  # noqa: E402
from sodec.bench.run import end_of_traceback, graphed  # noqa: E402
from sodec.codec import Codec, Report  # noqa: E402
from sodec.errors import SodecError  # noqa: E402
from sodec.models.graphs import GraphedDecoder  # noqa: E402
from sodec.pipeline.source import TileSource  # noqa: E402
from sodec.pipeline.torch_pixels import in_8_bits  # noqa: E402
from sodec.stream import container  # noqa: E402

SMALL, LARGE = (768, 512), (1920, 1080)
TINY_SMALL, TINY_LARGE = (96, 64), (320, 200)
TINY_TILE = 128
BATCHES = (1, 4, 16, 32)
BUDGET = 0.4  # seconds of repeats for a figure
SYMBOLS = 64  # reads that are timed
MANY = 8  # decodes that are profiled


class Run:
    """The options, the codecs, and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.deadline = options, Deadline(options.seconds)
        self.rehearse: bool = options.rehearse
        self.small, self.large = (TINY_SMALL, TINY_LARGE) if self.rehearse else (SMALL, LARGE)
        self.budget = 0.0 if self.rehearse else BUDGET
        self.found: dict[str, Any] = {"checks": {}, "ms": {}, "pictures_per_s": {}, "errors": {}, "skipped": []}
        self.wrong: list[str] = []

    def prepare(self) -> None:
        """Loads the model, with graphs and without, and makes streams."""
        tile = {"tile": TINY_TILE} if self.rehearse else {}
        device = "cpu" if self.rehearse else "cuda"
        self.eager = Codec("lite", engine="torch", device=device, cuda_graphs=False, **tile)
        self.graphs = self.with_graphs()
        self.device = self.eager.device
        self.streams = {size: self.eager.compress(scene(*size)) for size in (self.small, self.large)}
        shown = describe(self.device, self.eager.dtype)
        self.found["machine"] = {name: str(value) for name, value in vars(shown).items()}
        self.found["weights"] = self.eager.bundle.fingerprint.hex()
        self.found["tile"] = self.eager.engine.tile
        print("; ".join(self.found["machine"].values()), f"tile {self.eager.engine.tile}", flush=True)

    def with_graphs(self, tile: int | None = None) -> Codec:
        """A codec of the same weights with graphs of its own."""
        made = graphed(self.eager, not self.rehearse)
        engine: Any = made.engine
        if tile:
            engine.tile = tile
        if self.rehearse:  # the bookkeeping alone
            engine.batch_pixels = 16 * TINY_SMALL[0] * TINY_SMALL[1]
            engine.graphed = GraphedDecoder(engine.model, in_8_bits, capture=lambda function, inputs: function)
        return made

    def part(self, name: str, seconds: float, part: Callable[[], None]) -> None:
        """Runs a part unless fewer `seconds` are left than it may take; its error is noted, and others go on."""
        if seconds and not self.deadline.allows(seconds):
            self.found["skipped"].append(name)
            print(f"{name}: left out, {self.deadline.left:.0f} s are left", flush=True)
            return
        begun = time.perf_counter()
        try:
            part()
        except Exception as error:
            self.found["errors"][name] = end_of_traceback(error)
            print(f"{name} FAILED:\n{self.found['errors'][name]}", flush=True)
        print(f"  [{name}: {time.perf_counter() - begun:.1f} s, {time.perf_counter() - START:.1f} in all]", flush=True)
        self.save()

    def save(self) -> None:
        """Writes what was found so far."""
        self.found["seconds"] = time.perf_counter() - START
        path = self.options.out / "pipeline.json"
        path.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")

    # -- checks

    def check(self, name: str, ones: list[np.ndarray], others: list[np.ndarray], most: int) -> None:
        """Notes how far pictures are from each other, and whether that is more than `most` levels anywhere."""
        away = [np.abs(one.astype(int) - other) for one, other in zip(ones, others, strict=True)]
        worst, mean = max(int(one.max()) for one in away), max(float(one.mean()) for one in away)
        self.holds(name, worst <= most, f"at most {worst} of 255 away (allowed {most}), mean {mean:.4f}")

    def holds(self, name: str, right: bool, text: str) -> None:
        """Notes a check."""
        self.found["checks"][name] = {"right": bool(right), "found": text}
        if not right:
            self.wrong.append(name)
        print(f"{'ok   ' if right else 'WRONG'} {name}: {text}", flush=True)

    def check_graphs(self) -> None:
        """Graphs against none, at one size after the other, and again at the first."""
        sizes = [self.small, self.large, (self.small[1], self.small[0])]
        for size in sizes:
            stream = self.streams.setdefault(size, self.eager.compress(scene(*size)))
            wanted = decoded(self.eager, stream)
            pictures = [decoded(self.graphs, stream) for _ in range(3)]
            name = f"{size[0]}x{size[1]}"
            self.check(f"graphs, {name}: first decode, capture and replay", pictures, [wanted] * 3, 1)
            self.found.setdefault("replays", {})[name] = pictures[-1]
        first = f"{self.small[0]}x{self.small[1]}"
        again = decoded(self.graphs, self.streams[self.small])
        same = np.array_equal(again, self.found.pop("replays")[first])
        self.holds("a graph after those of two other sizes", same, "the same picture" if same else "another picture")
        state: Any = self.graphs.engine
        self.holds("captures", not state.graphed.failed and len(state.graphed) >= 6, f"{len(state.graphed)} graphs")

    def check_windows(self) -> None:
        """Several windows: joined by ramps, in regions, previews, blends and as grey."""
        stream, tile = self.streams[self.large], 128 if self.rehearse else 512
        windowed = self.with_graphs(tile)
        plain = graphed(self.eager, False)
        plain.engine.tile = tile
        width, height = self.large
        region = (width // 3, height // 4, width // 2, height // 2)
        x, y, w, h = region
        crop = decoded(plain, stream)[y : y + h, x : x + w]
        views: dict[str, dict[str, Any]] = {
            "whole": {}, "region": {"region": region}, "fidelity": {"mode": "fidelity"},
            "blend": {"fidelity": 0.5}, "preview": {"scale": 1 / 4},
        }  # fmt: skip
        for name, view in views.items():
            wanted = decoded(plain, stream, **view)
            pictures = [decoded(windowed, stream, **view) for _ in range(3)]
            self.check(f"windows of {tile}, graphs against none, {name}", pictures, [wanted] * 3, 1)
            if name == "region":
                self.check("region against the crop of the whole", [wanted], [crop], 2)
        for width, height in (self.small, self.large):
            made = [self.graphs.compress(scene(width, height)) for _ in range(3)]
            bytes_away = max(abs(len(one) - len(self.streams[width, height])) for one in made)
            text = f"the same bytes: {set(made) == {self.streams[width, height]}}, at most {bytes_away} more or fewer"
            self.holds(f"encoding by graphs, {width}x{height}", bytes_away <= len(made[0]) // 100, text)
        grey = self.eager.compress(scene(*self.small)[..., 0].copy())
        self.check("grey, graphs", [decoded(self.graphs, grey)], [decoded(self.eager, grey)], 1)

    def check_batches(self) -> None:
        """Batches against single pictures, and threads that share a codec against one."""
        streams = self.several(7)
        alone = [decoded(self.eager, stream) for stream in streams]
        # bfloat16 rounds at other places where a library takes another kernel for a batch.
        most = 12 if self.eager.dtype == torch.bfloat16 else 2
        for name, codec in (("eager", self.eager), ("graphs", self.graphs)):
            for _ in range(3):
                together = codec.decompress(streams, output="numpy")
            self.check(f"batches against single pictures, {name}", together, alone, most)
        found: list[Any] = [None] * 4

        def decode(number: int) -> None:
            found[number] = [decoded(self.graphs, streams[number]) for _ in range(5)][-1]

        threads = [threading.Thread(target=decode, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.check("four threads with one codec", found, alone[: len(found)], 1)

    def several(self, count: int) -> list[bytes]:
        """Streams of so many different pictures of the small size, at several qualities."""
        picture = scene(*self.small)
        moved = [np.roll(picture, (29 * number, 53 * number), (0, 1)) for number in range(count)]
        return [self.eager.compress(one, quality=30 + 5 * (number % 9)) for number, one in enumerate(moved)]

    # -- times

    def time_one(self, size: tuple[int, int]) -> None:
        """Medians of decoding and encoding one picture."""
        name, stream, picture = f"{size[0]}x{size[1]}", self.streams[size], scene(*size)
        fresh = self.with_graphs()
        firsts = []
        for _ in range(3):
            begun = time.perf_counter()
            decoded(fresh, stream)
            firsts.append(1000 * (time.perf_counter() - begun))
        self.found["ms"][f"{name} first, second (capture) and third decode of a new size"] = firsts
        rows: dict[str, Callable[[], Any]] = {
            "decode, eager": lambda: decoded(self.eager, stream),
            "decode, graphs": lambda: decoded(self.graphs, stream),
            "decode, graphs, fidelity": lambda: decoded(self.graphs, stream, mode="fidelity"),
            "encode, eager": lambda: self.eager.compress(picture),
            "encode, graphs": lambda: self.graphs.compress(picture),
        }
        if size == self.large:
            for tile in (128, 256) if self.rehearse else (1024, 2048):
                other = self.with_graphs(tile)
                rows[f"decode, graphs, tile {tile}"] = lambda other=other: decoded(other, stream)
        for row, call in rows.items():
            timing = measure(call, self.device, host=True, budget=self.budget)
            self.found["ms"][f"{name} {row}"] = [1000 * s for s in (timing.median_s, timing.q1_s, timing.q3_s)]
            print(f"{name:>10} {row:<28} {1000 * timing.median_s:8.2f} ms", flush=True)
        print(f"{name:>10} first, capture, replay:      " + ", ".join(f"{ms:.1f}" for ms in firsts), flush=True)

    def stages(self) -> None:
        """Seconds by stage, each of which then waits for the device."""
        for size in (self.small, self.large):
            name = f"{size[0]}x{size[1]}"
            for row, call in (
                ("decode, eager", lambda report, size=size: decoded(self.eager, self.streams[size], report=report)),
                ("decode, graphs", lambda report, size=size: decoded(self.graphs, self.streams[size], report=report)),
                ("encode, eager", lambda report, size=size: self.eager.compress(scene(*size), report=report)),
                ("encode, graphs", lambda report, size=size: self.graphs.compress(scene(*size), report=report)),
            ):
                reports = [Report() for _ in range(5)]
                for report in reports:
                    call(report)
                medians = {
                    stage: 1000 * float(np.median([report.times.get(stage, 0) for report in reports]))
                    for stage in reports[0].times
                }
                self.found.setdefault("stages_ms", {})[f"{name} {row}"] = medians
                print(f"{name:>10} {row}: " + ", ".join(f"{s} {ms:.2f}" for s, ms in medians.items()), flush=True)

    def batches(self) -> None:
        """Pictures per second, bytes to arrays, of lists of several lengths."""
        streams = self.several(max(BATCHES))
        for count in BATCHES:
            for row, codec in (("graphs", self.graphs), ("eager", self.eager)):
                few = streams[:count]
                timing = measure(
                    lambda codec=codec, few=few: codec.decompress(few, output="numpy"), self.device, host=True,
                    budget=self.budget,
                )  # fmt: skip
                rate = count / timing.median_s
                self.found["pictures_per_s"][f"{count}, {row}"] = rate
                print(f"list of {count:>2}, {row:<7} {rate:8.1f} pictures per second", flush=True)

    def profiles(self) -> None:
        """Where the processor's time goes."""
        picture, few = scene(*self.large), self.several(max(BATCHES))
        calls: dict[str, Callable[[], Any]] = {
            "decode, graphs, large": lambda: decoded(self.graphs, self.streams[self.large]),
            "encode, graphs, large": lambda: self.graphs.compress(picture),
            f"list of {len(few)}, graphs": lambda: self.graphs.decompress(few, output="numpy"),
        }
        for name, call in calls.items():
            call()
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(MANY):
                call()
            profile.disable()
            text = io.StringIO()
            pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(22)
            lines = [line for line in text.getvalue().splitlines() if line.strip()][4:]
            self.found.setdefault("profiles", {})[name] = lines
            print(f"-- {name}, {MANY} calls", *lines[:24], sep="\n", flush=True)

    def threads(self) -> None:
        """Symbols of one picture, read again and again by several threads: what the processor allows."""
        stream = container.read(self.streams[self.small])
        source = TileSource(self.eager.engine, stream, content=False)
        for count in (1, 2, 4, 16):
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(source.symbols, [0] * 2 * count))
                begun = time.perf_counter()
                list(pool.map(source.symbols, [0] * SYMBOLS))
                each = 1000 * (time.perf_counter() - begun) / SYMBOLS
            self.found["ms"][f"symbols of a picture, {count} threads"] = each
            print(f"symbols of a picture, {count:>2} threads: {each:.2f} ms", flush=True)

    def memory(self) -> None:
        """What the graphs and all of it take on the device."""
        if self.device.type == "cuda":
            self.found["memory_gb"] = {
                "most allocated": torch.cuda.max_memory_allocated() / 1e9,
                "reserved": torch.cuda.memory_reserved() / 1e9,
            }
            print("memory, GB:", self.found["memory_gb"], flush=True)


def decoded(codec: Codec, stream: bytes, **options: Any) -> np.ndarray:
    """Bytes to an array of uint8."""
    return np.asarray(codec.decompress(stream, output="numpy", **options))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("pipeline"), help="folder for pipeline.json")
    parser.add_argument("--seconds", type=float, default=35, help="no part begins that would not end by then")
    parser.add_argument("--rehearse", action="store_true", help="all of it on the CPU, at tiny sizes")
    run = Run(parser.parse_args())
    run.options.out.mkdir(parents=True, exist_ok=True)
    print(f"sodec {sodec.__version__}, torch {torch.__version__}, imported in {time.perf_counter() - START:.1f} s")
    try:
        run.prepare()
    except SodecError as error:
        print(f"gpu_pipeline: {error}", file=sys.stderr)
        return 2
    run.part("graphs", 0, run.check_graphs)
    run.part("batches against single pictures", 3, run.check_batches)
    run.part("windows", 3, run.check_windows)
    run.part("times of the small picture", 3, lambda: run.time_one(run.small))
    run.part("times of the large picture", 4, lambda: run.time_one(run.large))
    run.part("pictures per second", 5, run.batches)
    run.part("threads", 1, run.threads)
    run.part("stages", 2, run.stages)
    run.part("profiles", 3, run.profiles)
    run.part("memory", 0, run.memory)
    failed = [*run.wrong, *run.found["errors"]]
    print(f"{len(run.found['checks'])} checks, wrong or failed: {', '.join(failed) or 'none'}; "
          f"{time.perf_counter() - START:.1f} s", flush=True)  # fmt: skip
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
