"""Writes what a decoder must answer: run from `tests`, by the package that is installed.

python -m conformance.make

`expected.json` depends on tests/golden and tests/hostile alone. `pictures/VERSION/` has what the bundled weights of
that version decode to; run this again after new weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from golden import make as golden
from PIL import Image

from sodec import entropy
from sodec.entropy import SKIP
from sodec.errors import CorruptStreamError, NewerFormatError
from sodec.weights import Bundle, Coding, find

from .package_decoder import coding_of, dequantised, sha256, stream_answer

HERE = Path(__file__).parent
TESTS = HERE.parent
RELEASED = TESTS / "golden/lite/eb1e22.sodec"
GAUSSIAN_SCALES = [0.1, 0.3, 1, 10]


def named(path: Path) -> str:
    """The path of a file below tests/, which is how expected.json names it."""
    return path.relative_to(TESTS).as_posix()


def refusal(data: bytes, coding: Coding) -> dict:
    """Whether a stream of tests/golden/errors is corrupt, or newer and by which number."""
    try:
        stream_answer(data, coding)
    except NewerFormatError as error:
        return {"refused": "newer", "number": int(next(filter(str.isdigit, str(error))))}
    except CorruptStreamError:
        return {"refused": "corrupt"}
    raise AssertionError("a stream of golden/errors was read")


def plain_tables(tables: entropy.Tables) -> dict:
    """Tables as in tests/golden/model.json."""
    cuts = [tables.cumulative[a:b].tolist() for a, b in zip(tables.offsets, tables.offsets[1:], strict=False)]
    rows = zip(tables.minimums.tolist(), cuts, strict=True)
    return {"precision": tables.precision, "tables": [list(row) for row in rows]}


def payload_cases() -> list[dict]:
    """Of tests/golden/payloads: sections of tables and indexes, and the symbols that they hold."""
    cases = []
    for name in sorted(golden.PAYLOADS):
        path = golden.HERE / "payloads" / f"{name}.bin"
        sections, _ = golden.payload_case(name)
        cases.append({
            "file": named(path), "skip_bytes": 0,
            "sections": [{"tables": tables, "indexes": indexes} for _, indexes, tables in sections],
            "symbols": [sha256(np.array(found, np.int16)) for found, _, _ in sections],
        })  # fmt: skip
    return cases


def hostile_cases() -> list[dict]:
    """Of tests/hostile, each read with two sets of tables and two choices of skipped symbols.

    The indexes follow a rule, `i mod tables` and every `skip_every`-th skipped, so that they need no list here.
    """
    cases = []
    for path in sorted((TESTS / "hostile").glob("*.bin")):
        data = path.read_bytes()
        count, payload = int.from_bytes(data[1:3], "little") % 2**14, data[3:]
        precision = (payload[0] >> 3 & 15) + 1 if payload else 1
        escapes = (np.array(part, np.int32) for part in ([0, 1 << precision] * 2, [0, 2, 4], [-32767, 32767]))
        for tables in (
            entropy.Tables(*escapes, precision),
            entropy.gaussian_tables(GAUSSIAN_SCALES, precision=precision),
        ):
            for every in (7, 21):
                indexes = (np.arange(count) % tables.count).astype(np.uint8)
                indexes[::every] = SKIP
                rule = {"count": count, "tables": tables.count, "skip_every": every}
                case = {
                    "file": named(path),
                    "skip_bytes": 3,
                    "sections": [{"tables": plain_tables(tables), "rule": rule}],
                }
                try:
                    decoder = entropy.Decoder(payload)
                    case["symbols"] = [sha256(decoder.read(indexes, tables))]
                    decoder.finish()
                except CorruptStreamError:
                    case["symbols"] = None
                cases.append(case)
    return cases


def expected() -> dict:
    """The contents of expected.json."""
    coding = coding_of(json.loads((golden.HERE / "model.json").read_text()))
    streams, errors = (sorted((golden.HERE / kind).glob("*.sodec")) for kind in ("streams", "errors"))
    return {
        "streams": {named(path): stream_answer(path.read_bytes(), coding) for path in streams},
        "released": {named(RELEASED): stream_answer(RELEASED.read_bytes(), find("lite").coding)},
        "errors": {named(path): refusal(path.read_bytes(), coding) for path in errors},
        "payloads": payload_cases() + hostile_cases(),
    }


def write_pictures(bundle: Bundle) -> None:
    """y_hat, which belongs to the coding, and the two pictures, which belong to the bundled weights."""
    from sodec.codec import Codec

    np.save(HERE / f"{bundle.fingerprint.hex()}.y_hat.npy", dequantised(RELEASED.read_bytes()).astype(np.float16))
    folder = HERE / "pictures" / bundle.version
    folder.mkdir(parents=True, exist_ok=True)
    codec = Codec("lite", device="cpu", dtype="float32")
    for mode in ("fidelity", "full"):
        pixels = codec.decompress(RELEASED.read_bytes(), output="numpy", mode=mode)
        Image.fromarray(pixels).save(folder / f"{mode}.png", optimize=True)


def main() -> None:
    (HERE / "expected.json").write_text(json.dumps(expected(), indent=None, separators=(",", ":")) + "\n")
    write_pictures(find("lite"))


if __name__ == "__main__":
    main()
