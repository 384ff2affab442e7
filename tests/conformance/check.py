"""Checks a decoder of .sodec streams through a command line. README.md beside this file says what it must answer.

python tests/conformance/check.py node viewer/node/cli.js
python tests/conformance/check.py --only symbols,payload my-decoder

Plain Python; y_hat needs NumPy, pictures need Pillow too.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent
WEIGHTS = TESTS.parent / "sodec/weights/lite"
REFUSED = 2  # the exit code of a decoder that refuses a stream
SECONDS = 120  # that one answer may take
# Of y_hat and of pixels, the largest difference that float arithmetic in another order makes. y_hat is stored in
# 16-bit floats, which alone is up to 2^-11 of a value.
Y_HAT_ABSOLUTE, Y_HAT_RELATIVE = 2e-3, 1e-3
PIXEL_LEVELS = 2
TYPES = {"I8": "b", "I32": "i"}

Result = tuple[str, str]  # what was checked, and what is wrong with it; empty where nothing is


def coding_json(path: Path) -> dict[str, Any]:
    """The integers of a coding.safetensors in the form of tests/golden/model.json."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])

    def flat(name: str) -> list[int]:
        entry = header[name]
        start, _ = entry["data_offsets"]
        count = math.prod(entry["shape"])
        return list(struct.unpack_from(f"<{count}{TYPES[entry['dtype']]}", data, 8 + size + start))

    def tables(name: str) -> dict[str, Any]:
        cumulative, offsets, minimums = (flat(f"{name}.{field}") for field in ("cumulative", "offsets", "minimums"))
        rows = [cumulative[a:b] for a, b in zip(offsets, offsets[1:])]  # noqa: B905, RUF007
        return {"precision": flat(f"{name}.precision")[0], "tables": list(zip(minimums, rows))}  # noqa: B905

    layers = []
    for number in range(flat("scale_network.layers")[0]):
        weights = flat(f"scale_network.{number}.weights")
        for length in header[f"scale_network.{number}.weights"]["shape"][:0:-1]:
            weights = _cut(weights, length)
        shift, upsample = flat(f"scale_network.{number}.shift_upsample")
        bias, multiplier = (flat(f"scale_network.{number}.{field}") for field in ("bias", "multiplier"))
        layers.append({
            "weights": weights, "bias": bias, "multiplier": multiplier, "shift": shift, "upsample": upsample
        })  # fmt: skip
    z_tables = tables("z_tables")  # one set: the released codings have fewer than 256 channels of z
    offsets = _cut(flat("offsets"), header["offsets"]["shape"][1])
    return {"z_tables": z_tables, "y_tables": tables("y_tables"), "layers": layers, "offsets": offsets}


def _cut(values: list[Any], length: int) -> list[Any]:
    return [values[start : start + length] for start in range(0, len(values), length)]


class Decoder:
    """The command line under test."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)

    def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        done = subprocess.run(
            [*self.command, *map(str, arguments)], capture_output=True, text=True, timeout=SECONDS, check=False
        )
        return done.returncode, done.stdout, done.stderr.strip()

    def answer(self, *arguments: str | Path) -> Any:
        """What it prints, as JSON; a sentence where it refuses or fails."""
        code, out, said = self.run(*arguments)
        if code:
            return f"exit code {code}: {said[-300:]}"
        try:
            return json.loads(out)
        except ValueError:
            return f"it does not print JSON: {out[:100]!r}"


def check_symbols(decoder: Decoder, expected: dict[str, Any], folder: Path) -> Iterator[Result]:
    """Every golden and released stream down to its integers, and every stream that must be refused."""
    golden, released = TESTS / "golden/model.json", folder / "coding.json"
    released.write_text(json.dumps(coding_json(WEIGHTS / "coding.safetensors")))
    for kind, coding in (("streams", golden), ("released", released)):
        for name, wanted in expected[kind].items():
            found = decoder.answer("symbols", coding, TESTS / name)
            yield name, "" if found == wanted else difference(found, wanted)
    for name, wanted in expected["errors"].items():
        code, _, said = decoder.run("symbols", golden, TESTS / name)
        yield name, refusal(wanted, code, said)


def difference(found: Any, wanted: dict[str, Any]) -> str:
    """The first field that differs."""
    if not isinstance(found, dict):
        return str(found)
    field = next(name for name in wanted if found.get(name) != wanted[name])
    return f"{field} must be {wanted[field]} (got {found.get(field)})"


def refusal(wanted: dict[str, Any], code: int, said: str) -> str:
    """What is wrong with the way in which a stream was refused."""
    if code != REFUSED:
        return f"the exit code must be {REFUSED}, a refusal (got {code})"
    if not said or "\n" in said:
        return f"the reason must be one line on standard error (got {said[-300:]!r})"
    number = wanted.get("number")
    if number is not None and str(number) not in said:
        return f"a stream of a newer format must be refused by the number {number} (got {said!r})"
    return ""


def check_payload(decoder: Decoder, expected: dict[str, Any], folder: Path) -> Iterator[Result]:
    """Payloads of the entropy coder alone, well-formed ones and those that were made to hurt."""
    for number, case in enumerate(expected["payloads"]):
        path = folder / f"{number}.json"
        payload = (TESTS / case["file"]).read_bytes()[case["skip_bytes"] :]
        sections = [
            {"tables": one["tables"], "indexes": one["indexes"] if "indexes" in one else by_rule(**one["rule"])}
            for one in case["sections"]
        ]
        path.write_text(json.dumps({"payload": payload.hex(), "sections": sections}))
        name = f"{case['file']}, case {number}"
        if case["symbols"] is None:
            code, _, said = decoder.run("payload", path)
            yield name, refusal({}, code, said)
        else:
            found = decoder.answer("payload", path)
            wanted = {"symbols": case["symbols"]}
            yield name, "" if found == wanted else difference(found, wanted)


def by_rule(count: int, tables: int, skip_every: int) -> list[int]:
    """Indexes of a hostile payload: the tables in turn, every so many symbols skipped."""
    return [255 if i % skip_every == 0 else i % tables for i in range(count)]


def check_y_hat(decoder: Decoder, expected: dict[str, Any], folder: Path) -> Iterator[Result]:
    """The dequantised latent of the released streams."""
    import numpy as np

    for name, answer in expected["released"].items():
        wanted = np.load(HERE / f"{answer['fingerprint']}.y_hat.npy").astype(np.float32)
        out = folder / "y_hat"
        code, _, said = decoder.run("y_hat", TESTS / name, out)
        if code:
            yield f"y_hat of {name}", f"exit code {code}: {said[-300:]}"
            continue
        found = np.fromfile(out, "<f4")
        if found.size != wanted.size:
            yield f"y_hat of {name}", f"{wanted.size} values of 32 bits must be written (got {found.size})"
            continue
        off = np.abs(found.reshape(wanted.shape) - wanted) - Y_HAT_RELATIVE * np.abs(wanted)
        worst = np.unravel_index(off.argmax(), off.shape)
        place = ", ".join(map(str, worst))
        yield f"y_hat of {name}", "" if off.max() <= Y_HAT_ABSOLUTE else f"off by {off.max():.4f} at ({place})"


def check_picture(decoder: Decoder, expected: dict[str, Any], folder: Path) -> Iterator[Result]:
    """Both pictures of the released streams, as the bundled weights paint them."""
    import numpy as np
    from PIL import Image

    version = json.loads((WEIGHTS / "model.json").read_text())["version"]
    for name in expected["released"]:
        for mode in ("fidelity", "full"):
            title = f"{mode} picture of {name}"
            stored = HERE / "pictures" / version / f"{mode}.png"
            if not stored.exists():
                yield (
                    title,
                    f"no pictures of the weights {version} are stored: run python -m conformance.make in tests/",
                )
                continue
            out = folder / f"{mode}.png"
            code, _, said = decoder.run("picture", mode, TESTS / name, out)
            if code:
                yield title, f"exit code {code}: {said[-300:]}"
                continue
            found, wanted = (np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (out, stored))
            if found.shape != wanted.shape:
                yield title, f"the shape must be {wanted.shape} (got {found.shape})"
            else:
                off = int(np.abs(found - wanted).max())
                yield (
                    title,
                    "" if off <= PIXEL_LEVELS else f"a pixel is off by {off} levels, {PIXEL_LEVELS} are allowed",
                )


CHECKS = {"symbols": check_symbols, "payload": check_payload, "y_hat": check_y_hat, "picture": check_picture}


def check(command: Sequence[str], only: Sequence[str] = tuple(CHECKS)) -> Iterator[Result]:
    """Every answer of the decoder `command`, and what is wrong with it."""
    expected = json.loads((HERE / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        for name in only:
            yield from CHECKS[name](Decoder(command), expected, Path(folder))


def main() -> int:
    """Prints one line per answer; the exit code is 0 where all are right."""
    parser = argparse.ArgumentParser(description="Checks a decoder of .sodec streams through a command line.")
    parser.add_argument("--only", default=",".join(CHECKS), help=f"commands to check, of {', '.join(CHECKS)}")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the decoder, to which a command and files are added")
    given = parser.parse_args()
    only = given.only.split(",")
    if unknown := [name for name in only if name not in CHECKS]:
        parser.error(f"--only must be of {', '.join(CHECKS)} (got {', '.join(unknown)})")
    if not given.command:
        parser.error("no decoder is given")
    right = wrong = 0
    for name, fault in check(given.command, only):
        print(f"{'FAILED' if fault else 'ok':<6} {name}{': ' + fault if fault else ''}", flush=True)
        right, wrong = right + (not fault), wrong + bool(fault)
    print(f"{right} right, {wrong} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
