"""`sodec.inspect` and `Codec.decompress` on altered streams whose checks are right: an answer, or an error of ours.

python fuzz/fuzz_streams.py inspect --seconds 600
python fuzz/fuzz_streams.py decompress --seconds 600 --seed 7

It ends with how many streams were tried and what became of them, and with the most processor time and memory, by
themselves and for each KB of the stream (a stream below 1 KB counts as one KB). A stream that raises anything else, or
takes more than a minute, is left in build/found/.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import sodec
from sodec.errors import SodecError
from sodec.stream import container
from sodec.weights import find

sys.path.insert(0, str(Path(__file__).parent))
from streams import Maker, altered

FOUND = Path("build/found")
LONGEST = 60  # seconds, after which a call counts as one that never ends
MAX_PIXELS = 1 << 18
SEEDS = 400  # valid streams, of which the others are made


class Hangs(Exception):
    """A call that took `LONGEST`."""


def inspected(data: bytes, _: random.Random) -> None:
    """What the package says of a stream must add up."""
    info = sodec.inspect(data, max_pixels=MAX_PIXELS)
    assert sum(info.bytes.values()) == 2 * len(data) == 2 * info.bytes["total"]
    assert info.width * info.height <= MAX_PIXELS


def inspector() -> tuple[Maker, Callable[[bytes, random.Random], None]]:
    """`sodec.inspect`, with streams of the bundled weights, whose z it counts."""
    lite = find("lite")
    return Maker(lite.coding, lite.fingerprint), inspected


def decoder(folder: Path) -> tuple[Maker, Callable[[bytes, random.Random], None]]:
    """A codec of the smallest configuration with random weights, and a call of it with options drawn at random."""
    from sodec.bench.random_weights import write_random_weights
    from sodec.codec import Codec
    from sodec.models import TINY

    bundle = write_random_weights(folder, TINY)
    codec = Codec(weights=bundle)

    def decompressed(data: bytes, draw: random.Random) -> None:
        options: dict = {"on_error": draw.choice(("raise", "conceal"))}
        if draw.random() < 0.2:
            options["region"] = tuple(draw.choice((0, 1, 17, 64, 100)) for _ in range(4))
        if draw.random() < 0.2:
            options["scale"] = draw.choice((1 / 2, 1 / 4, 1 / 8))
        elif draw.random() < 0.3:
            options["fidelity"] = draw.choice((0.5, 1))
        header = container.peek(data[: container.PEEK_BYTES])
        pixels = codec.decompress(data, output="numpy", max_pixels=MAX_PIXELS, **options)
        # A header that is damaged may be repaired to another where damage is concealed.
        if options["on_error"] == "raise" and not {"region", "scale"} & set(options):
            assert pixels.shape[:2] == (header.height, header.width)

    return Maker(bundle.coding, bundle.fingerprint), decompressed


class Memory:
    """Megabytes that this process has taken at most since `start`, beyond what it held then (Linux; elsewhere 0)."""

    def start(self) -> None:
        """Forgets the peak so far."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self.before = self._peak()

    def taken(self) -> float:
        """Since `start`."""
        return (self._peak() - self.before) / 1024

    @staticmethod
    def _peak() -> int:
        with suppress(OSError), open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        return 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=["inspect", "decompress"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--count", type=int, help="Streams to try, instead of a time.")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    if options.call == "inspect":
        maker, call = inspector()
    else:
        folder = tempfile.TemporaryDirectory()
        maker, call = decoder(Path(folder.name))
    sys.exit(0 if fuzz(maker, call, options.seconds, options.count, options.seed) else 1)


def fuzz(
    maker: Maker, call: Callable[[bytes, random.Random], None], seconds: float, count: int | None, seed: int
) -> bool:
    """Whether nothing was found; prints what was tried."""
    print(f"seed {seed}", flush=True)
    draw = random.Random(seed)
    seeds = [maker.stream(draw) for _ in range(min(SEEDS, count or SEEDS))]
    outcomes: Counter[str] = Counter()
    most, memory = dict.fromkeys(("s", "s per KB", "MB", "MB per KB"), 0.0), Memory()
    found, start, processor = 0, time.monotonic(), time.process_time()
    if hasattr(signal, "SIGALRM"):  # not on Windows, where one that hangs is the caller's to end
        signal.signal(signal.SIGALRM, _hangs)
    while outcomes.total() < count if count else time.monotonic() - start < seconds:
        data = altered(draw, draw.choice(seeds), draw.choice(seeds))
        memory.start()
        begin = time.process_time()
        _alarm(LONGEST)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of damage that is concealed
                call(data, draw)
            outcome = "answered"
        except SodecError as error:
            outcome = type(error).__name__
        except Exception as error:
            outcome = f"FOUND {type(error).__name__}"
            found += 1
            FOUND.mkdir(parents=True, exist_ok=True)
            (FOUND / f"{type(error).__name__}-{found}.sodec").write_bytes(data)
            print(f"{FOUND}/{type(error).__name__}-{found}.sodec: {error!r}", flush=True)
        _alarm(0)
        taken, kilobytes = (time.process_time() - begin, memory.taken()), max(1.0, len(data) / 1000)
        for name, value in zip(("s", "MB"), taken, strict=True):
            most[name] = max(most[name], value)
            most[f"{name} per KB"] = max(most[f"{name} per KB"], value / kilobytes)
        outcomes[outcome] += 1
    minutes = (time.process_time() - processor) / 60
    print(f"{outcomes.total():,} streams in {minutes:.1f} minutes of processor time: {dict(outcomes.most_common())}")
    print("at most " + ", ".join(f"{value:.3f} {name}" for name, value in most.items()))
    return found == 0


def _alarm(seconds: int) -> None:
    if hasattr(signal, "SIGALRM"):
        signal.alarm(seconds)


def _hangs(*_: object) -> None:
    raise Hangs(f"more than {LONGEST} seconds")


if __name__ == "__main__":
    main()
