"""The project's targets beside what `sodec bench --json` measured. Nothing passes or fails: a machine is what it is.

python benchmarks/targets.py REPORT.json...

The targets of `lite` on the CPU are meant for two cores of a Zen 4 processor, those on a GPU for an H100 or H200.
"""

import json
import sys
from pathlib import Path

from sodec.evaluate.run import markdown

CPU, GPU = "cpu", "cuda"


def size(report, width, height):
    return next((one for one in report["sizes"] if (one["width"], one["height"]) == (width, height)), None)


def time(width, height, key):
    def value(report):
        found = size(report, width, height)
        return 1000 * found[key]["median_s"] if found else None

    return value


def points(report, direction):
    return next((one["points"] for one in report["growth"] if one["direction"] == direction), [])


def memory(report):
    found = [(p["peak_bytes"] - p["imports_bytes"]) / 1e6 for p in points(report, "decode")
             if (p["width"], p["height"]) == (768, 512) and p["peak_bytes"]]  # fmt: skip
    return found[0] if found else None


def first_pixel(report):
    found = [1000 * p["first_pixel_s"] for p in points(report, "decode") if (p["width"], p["height"]) == (768, 512)]
    return found[0] if found else None


def over_plain(report):
    """Plain eager over ours, networks, in our dtype where that was measured."""
    found = report["ratios"] and report["ratios"]["engineering"]
    return found[min(1, len(found) - 1)]["ratio_network"] if found else None


TARGETS = [  # model, device, what, at most (or at least, below 0), unit, value
    ("lite", CPU, "decode 768x512, bytes to pixels", 350, "ms", time(768, 512, "decode_end_to_end")),
    ("lite", CPU, "encode 768x512, pixels to bytes", 100, "ms", time(768, 512, "encode_end_to_end")),
    ("lite", CPU, "peak memory above the imports, decode 768x512", 1000, "MB", memory),
    ("lite", CPU, "cold process to first pixel, 768x512", 3000, "ms", first_pixel),
    ("lite", GPU, "decode 1920x1080, networks", 12, "ms", time(1920, 1080, "decode_network")),
    ("sd21", GPU, "decode 512x512, networks", 20, "ms", time(512, 512, "decode_network")),
    ("sd21", GPU, "plain eager over ours, networks", -2, "x", over_plain),
]


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    body = []
    for report in (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:]):
        for model, device, what, limit, unit, value in TARGETS:
            if (report["model"], report["machine"]["device"]) != (model, device):
                continue
            found = value(report)
            wanted = f"at least {-limit}" if limit < 0 else f"at most {limit}"
            met = "" if found is None else "yes" if (found >= -limit if limit < 0 else found <= limit) else "no"
            told = "not measured" if found is None else f"{found:.1f} {unit}"
            body.append([f"{model}, {report['machine']['hardware']}: {what}", f"{wanted} {unit}", told, met])
    print(markdown(["", "target", "measured", "met"], body))


if __name__ == "__main__":
    main()
