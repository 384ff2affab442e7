"""A report's JSON as tables in markdown, and as a bar chart. What was not measured is named with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..evaluate.run import markdown
from ..extras import require

Json = dict[str, Any]

SUMS = {
    "decode_network": "decode, networks only",
    "decode_network_graphs": "decode, networks only, CUDA graphs",
    "decode_end_to_end": "decode, bytes to pixels",
    "encode_network": "encode, networks only",
    "encode_end_to_end": "encode, pixels to bytes",
}


def text(reports: Sequence[Json]) -> str:
    """All tables of each report, then one with all reports side by side."""
    blocks = []
    for report in reports:
        blocks += [f"{report['model']} {report['sodec']}, weights {report['weights']}, {machine_line(report)}"]
        blocks += [stage_table(size) for size in report["sizes"]]
        if report["ratios"]:
            blocks += [ratio_table(report["ratios"]), *emulation_notes(report["ratios"])]
        if report["growth"]:
            blocks += [growth_table(report["growth"]), *map(exponent_line, report["growth"])]
        blocks += [f"not measured: {name}: {why}" for name, why in report["not_measured"].items()]
        blocks += [f"failed: {name}: {trace.splitlines()[-1]}" for name, trace in report.get("errors", {}).items()]
    return "\n\n".join([*blocks, summary(reports)]) + "\n"


def machine_line(report: Json) -> str:
    """One line on the machine, the hardware's name first."""
    m, c = report["machine"], report["ceilings"]
    where = f"CUDA {m['cuda']}" if m["device"] == "cuda" else f"{m['threads']} of {m['cores']} cores"
    ceilings = f"{c['flops_per_s'] / 1e9:,.0f} GFLOP/s, {c['bytes_per_s'] / 1e9:,.0f} GB/s"
    return f"{m['hardware']}, {where}, {m['dtype']}, torch {m['torch']}, {m['system']}; measured ceilings {ceilings}"


def stage_table(size: Json) -> str:
    """One size: each stage beside its floor, then the whole, which is measured by itself."""
    head = [f"{size['width']}x{size['height']}, {size['bytes']} bytes", "ms", "quartiles", "share", "GFLOP", "MB",
            "floor, ms", "bound", "x floor"]  # fmt: skip
    body = []
    for stage in size["stages"]:
        work = stage["work"]
        floor = ["–"] * 5 if work["floor_s"] is None else [
            f"{work['flops'] / 1e9:.2f}", f"{(work['weight_bytes'] + work['activation_bytes']) / 1e6:.1f}",
            _ms(work["floor_s"]), work["bound"], f"{stage['above_floor']:.1f}",
        ]  # fmt: skip
        body.append([stage["name"], *_timing(stage["time"]), f"{100 * stage['share']:.0f} %", *floor])
    body += [[name, *_timing(size[key]), *[""] * 6] for key, name in SUMS.items() if size[key] is not None]
    return markdown(head, body)


def ratio_table(ratios: Json) -> str:
    """The three ratios of benchmarks/claim.py, and the times that they are quotients of."""
    end, network, whole, unet = (ratios[key] for key in ("end_to_end", "network", "decode_one_step", "unet_one_step"))
    rows: list[tuple[str, Json, Json, float]] = []
    for steps in ratios["steps"]:
        name = f"(a) {steps['steps']} DDIM steps"
        rows.append((f"{name}, decoder", steps["decode"], whole, steps["ratio_decode"]))
        rows.append((f"{name}, UNet alone", steps["unet"], unet, steps["ratio_unet"]))
    for rival in ratios["engineering"]:
        rows.append((f"(b) {rival['rival']}, end to end", rival["end_to_end"], end, rival["ratio_end_to_end"]))
        rows.append((f"(b) {rival['rival']}, networks", rival["network"], network, rival["ratio_network"]))
    for codec in ratios["multi_step"]:
        rows.append((f"(c) {codec['name']}, plain (emulated)", codec["decode"], end, codec["ratio"]))
        same = codec["decode_same_kernels"], end, codec["ratio_same_kernels"]
        rows.append((f"(c) {codec['name']}, our kernels (emulated)", *same))
    rows.append(("the UNet's share of one-step decoding", unet, whole, ratios["unet_share"]))
    head = [f"ratios at {ratios['width']}x{ratios['height']}", "ms", "over, ms", "ratio"]
    body = [[name, _ms(a["median_s"]), _ms(b["median_s"]), f"{ratio:.2f}"] for name, a, b, ratio in rows]
    return markdown(head, body)


def emulation_notes(ratios: Json) -> list[str]:
    """What (c) is."""
    return [f"(c) is {note}" for note in dict.fromkeys(codec["emulated"] for codec in ratios["multi_step"])]


def growth_table(growth: Sequence[Json]) -> str:
    """Time and memory of every size, each from a process of its own."""
    head = ["size"]
    for part in growth:
        head += [f"{part['direction']}{what}" for what in (", ms", " from a cold process, s", ", MB above the imports")]
    body = []
    for points in zip(*(part["points"] for part in growth), strict=True):
        row = [f"{points[0]['width']}x{points[0]['height']}"]
        for point in points:
            row += [_ms(point["time"]["median_s"]), f"{point['first_pixel_s']:.2f}", _megabytes(point)]
        body.append(row)
    return markdown(head, body)


def exponent_line(growth: Json) -> str:
    """How time and memory grow with pixels: an exponent of 1 is linear."""
    clauses = [
        f"{what} grows as pixels to the power {_number(growth[f'{what}_exponent'])} "
        f"({_number(growth[f'{what}_exponent_last'])} between the two largest)"
        for what in ("time", "memory")
    ]
    return f"{growth['direction']}: {'; '.join(clauses)}"


def summary(reports: Sequence[Json]) -> str:
    """A column per report, and an empty one for a GPU if no report is of one."""
    head = ["", *(f"{report['model']}, {report['machine']['hardware']}" for report in reports)]
    columns = [_facts(report) for report in reports]
    without = all(report["machine"]["device"] != "cuda" for report in reports)
    names = dict.fromkeys(name for column in columns for name in column)
    body = [[name, *(column.get(name, "") for column in columns), *[""] * without] for name in names]
    note = "\n\nGPU: not measured; `sodec bench --device cuda --json gpu.json` on a machine with one fills its column"
    return markdown([*head, *["GPU"] * without], body) + note * without


def _facts(report: Json) -> dict[str, str]:
    """The figures that are quoted most, by name."""
    facts = {}
    for size in report["sizes"]:
        at = f"{size['width']}x{size['height']}"
        facts[f"decode {at}, networks / end to end, ms"] = _pair(size["decode_network"], size["decode_end_to_end"])
        facts[f"encode {at}, networks / end to end, ms"] = _pair(size["encode_network"], size["encode_end_to_end"])
    if ratios := report["ratios"]:
        for steps in ratios["steps"]:
            both = f"{steps['ratio_decode']:.1f} / {steps['ratio_unet']:.1f}"
            facts[f"(a) {steps['steps']} steps over one, decoder / UNet"] = both
        facts["UNet's share of one-step decoding"] = f"{100 * ratios['unet_share']:.0f} %"
        for rival in ratios["engineering"]:
            facts[f"(b) {rival['rival']}"] = f"{rival['ratio_end_to_end']:.1f}"
        for codec in ratios["multi_step"]:
            facts[f"(c) {codec['name']} (emulated)"] = f"{codec['ratio']:.1f}"
    return facts


def _pair(a: Json, b: Json) -> str:
    return f"{_ms(a['median_s'])} / {_ms(b['median_s'])}"


def _timing(timing: Json) -> list[str]:
    return [_ms(timing["median_s"]), f"{_ms(timing['q1_s'])}–{_ms(timing['q3_s'])}"]


def _ms(seconds: float) -> str:
    """Milliseconds to three figures."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _megabytes(point: Json) -> str:
    if point["gpu_peak_bytes"] is not None:
        return f"{point['gpu_peak_bytes'] / 1e6:.0f} (GPU)"
    if point["peak_bytes"] is None or point["imports_bytes"] is None:
        return "–"
    return f"{(point['peak_bytes'] - point['imports_bytes']) / 1e6:.0f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def chart(report: dict[str, Any], file: Path) -> None:
    """Bars per stage, a colour per size, quartiles as whiskers and floors as black lines; milliseconds, logarithmic.

    Raises
    ------
    MissingPackageError, OutputError
        matplotlib is not installed; the file can't be written, or its suffix is no format of matplotlib's.
    """
    figure = require("matplotlib.figure", "the chart", "matplotlib").Figure(figsize=(10, 5), layout="constrained")
    axes = figure.add_subplot()
    sizes = report["sizes"]
    names = [stage["name"] for stage in sizes[0]["stages"]] + ["networks", "bytes to pixels"]
    width = 0.8 / len(sizes)
    for number, size in enumerate(sizes):
        times = [stage["time"] for stage in size["stages"]] + [size["decode_network"], size["decode_end_to_end"]]
        places = [place + (number - (len(sizes) - 1) / 2) * width for place in range(len(names))]
        middle = [1000 * time["median_s"] for time in times]
        spread = [[1000 * abs(time[end] - time["median_s"]) for time in times] for end in ("q1_s", "q3_s")]
        label = f"{size['width']}x{size['height']}"
        axes.bar(places, middle, width, yerr=spread, label=label, error_kw={"linewidth": 0.8})
        for place, stage in zip(places, size["stages"], strict=False):
            if stage["work"]["floor_s"]:
                floor = 1000 * stage["work"]["floor_s"]
                axes.hlines(floor, place - width / 2, place + width / 2, colors="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="floor: arithmetic or bandwidth")
    axes.set_yscale("log")
    axes.set_ylabel("milliseconds")
    axes.set_xticks(range(len(names)), names)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small")
    axes.set_title(f"sodec {report['model']}, decoding\n{machine_line(report)}", fontsize="small")
    try:
        figure.savefig(file, dpi=110)
    except OSError as error:
        raise OutputError(f"{file} can't be written: {error.strerror}") from None
    except ValueError as error:
        raise OutputError(f"{file} can't be written: {error}") from None
