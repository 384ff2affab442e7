"""sodec's own decoder behind the command line that check.py asks; pictures come from `sodec decompress` itself.

python tests/conformance/check.py python tests/conformance/package_decoder.py
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sodec import entropy
from sodec.cli import main as command_line
from sodec.errors import SodecError
from sodec.stream import container, symbols
from sodec.weights import Coding, find

REFUSED = 2


def sha256(array: np.ndarray) -> str:
    """Of the elements as they lie, 16-bit ones with their low byte first."""
    return hashlib.sha256(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()


def tables_of(plain: dict[str, Any]) -> entropy.Tables:
    """Tables as JSON has them."""
    minimums, rows = zip(*plain["tables"], strict=True)
    offsets = np.cumsum([0, *map(len, rows)])
    parts = (np.array(part, np.int32) for part in (np.concatenate(rows), offsets, minimums))
    return entropy.Tables(*parts, plain["precision"])


def coding_of(plain: dict[str, Any]) -> Coding:
    """The integers of a model as JSON has them."""
    layers = [
        (np.array(one["weights"], np.int8), np.array(one["bias"], np.int32), np.array(one["multiplier"], np.int32),
         one["shift"], one["upsample"]) for one in plain["layers"]
    ]  # fmt: skip
    z_tables, y_tables = (tables_of(plain[name]) for name in ("z_tables", "y_tables"))
    return Coding((z_tables,), y_tables, layers, np.array(plain["offsets"], np.int32))


def stream_answer(data: bytes, coding: Coding) -> dict[str, Any]:
    """What a stream holds. Raises as `container.read`."""
    stream = container.read(data, max_pixels=container.MAX_SIDE**2, max_tile=container.MAX_SIDE)
    tiles = []
    for payload, (width, height) in zip(stream.payloads, stream.tile_sizes(), strict=True):
        z, y = symbols.decode(coding, payload, stream.quality, -(-height // 16), -(-width // 16))
        tiles.append({"z": sha256(z), "y": sha256(y)})
    return {
        "fingerprint": stream.fingerprint.hex(), "width": stream.width, "height": stream.height,
        "quality": stream.quality, "grey": stream.grey,
        "alpha": None if stream.alpha is None else sha256(stream.alpha), "tiles": tiles,
    }  # fmt: skip


def payload_answer(payload: bytes, sections: list[dict[str, Any]]) -> dict[str, Any]:
    """The symbols of a payload. Raises `CorruptStreamError`."""
    decoder = entropy.Decoder(payload)
    found = [decoder.read(np.array(one["indexes"], np.uint8), tables_of(one["tables"])) for one in sections]
    decoder.finish()
    return {"symbols": [sha256(one) for one in found]}


def dequantised(data: bytes) -> np.ndarray:
    """y_hat of a stream of one tile by the bundled weights, (Cy, h, w) float32."""
    from sodec.codec import Codec

    stream = container.read(data)
    cells = (-(-stream.height // 16), -(-stream.width // 16))
    z, y = symbols.decode(find("lite").coding, stream.payloads[0], stream.quality, *cells)
    engine = Codec("lite", device="cpu", dtype="float32").engine
    return np.asarray(engine.dequantise(z, y, stream.quality)[0][0], np.float32)


def main(command: str, *arguments: str) -> None:
    """One answer, on standard output or in a file."""
    if command == "symbols":
        coding, stream = arguments
        print(json.dumps(stream_answer(Path(stream).read_bytes(), coding_of(json.loads(Path(coding).read_text())))))
    elif command == "payload":
        case = json.loads(Path(arguments[0]).read_text())
        print(json.dumps(payload_answer(bytes.fromhex(case["payload"]), case["sections"])))
    elif command == "y_hat":
        stream, out = arguments
        dequantised(Path(stream).read_bytes()).astype("<f4").tofile(out)
    elif command == "picture":
        mode, stream, out = arguments
        command_line(
            ["decompress", stream, "-o", out, "--mode", mode, "--device", "cpu", "--dtype", "float32", "--overwrite"]
        )
    else:
        raise SodecError(f"the command must be one of symbols, payload, y_hat, picture (got {command})")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SodecError as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
