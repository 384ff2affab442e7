"""The container on any bytes: a stream, or an error of ours. Nothing else may be raised, and no memory taken first.

Guided by coverage (atheris); fuzz_streams.py goes further into the decoder, without that guidance.

pip install atheris
python fuzz/fuzz_container.py build/streams -max_len=4096 -max_total_time=600    (build/streams: tests/golden/streams/*)
"""

import sys
from pathlib import Path

import atheris

from sodec.errors import SodecError
from sodec.stream import container, info

sys.path.insert(0, str(Path(__file__).parent))
from streams import resealed

MAX_PIXELS = 1 << 20  # alpha may take a byte for each


def check(data: bytes) -> None:
    """Reads, salvages and inspects `data`, with checks that match where it begins like a stream."""
    if data[:1] == container.MAGIC[:1]:
        data = resealed(data)  # without it hardly an input would get past the first check
    for salvage in (False, True):
        try:
            stream = container.read(data, MAX_PIXELS, salvage=salvage)
        except SodecError:
            continue
        columns, rows = stream.tiles
        assert len(stream.payloads) == columns * rows
        assert stream.alpha is None or stream.alpha.shape == (stream.height, stream.width)
        if not salvage:
            assert container.read(container.write(stream), MAX_PIXELS).payloads == stream.payloads
    try:
        container.peek(data)
        found = info.inspect(data)
        assert sum(found.bytes.values()) == 2 * len(data) == 2 * found.bytes["total"]
    except SodecError:
        pass


if __name__ == "__main__":
    atheris.instrument_all()  # the import hook misses packages installed in place
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
